"""What is wrong with a match, and with shares, is found where it stands."""

from __future__ import annotations

import pytest

from director.kit.configfile import InvalidConfigError
from l7proxy.core.config import load_config
from l7proxy.core.model import Route
from l7proxy.core.settings.match import NO_CONDITIONS
from l7proxy.core.settings.split import Share
from l7proxy.files.loading import load_text

pytestmark = pytest.mark.unit


def text(match: str, upstream: str = "shop", more: str = "") -> str:
    """The value of `match` begins in column 12 of line 3, that of `upstream` in column 15 of line 4."""
    return f"""\
listeners: {{web: {{bind: "127.0.0.1:8080", health: /-/health}}}}
routes:
  - match: {match}
    upstream: {upstream}
  - {{match: {{host: other.org}}, upstream: {{shop: 1, canary: 1}}}}
upstreams:
  shop: {{backends: {{a: {{address: "127.0.0.1:1"}}}}}}
  canary: {{backends: {{a: {{address: "127.0.0.1:1"}}}}}}
{more}"""


def problems(source: str) -> list[str]:
    with pytest.raises(InvalidConfigError) as caught:
        load_config(source, "f")
    return list(caught.value.lines())


def route(match: str, upstream: str = "shop") -> Route:
    return load_config(text(match, upstream), "f").routes[0]


@pytest.mark.parametrize(
    ("match", "message"),
    [
        ("{method: []}", "f:3:21: routes.0.match.method: has too few entries"),
        ("{method: get}", "f:3:21: routes.0.match.method.0: 'get' can never match what clients send: write GET"),
        ("{method: [GET, TRACE]}", "f:3:27: routes.0.match.method.1: TRACE can never match: it is answered 405"),
        ('{method: "A B"}', "f:3:21: routes.0.match.method.0: 'A B' is not a method"),
        ("{header: {}}", "f:3:21: routes.0.match.header: has too few entries"),
        ("{header: {X-A: 1}}", "f:3:27: routes.0.match.header.X-A: not a text: write it in quotes"),
        ("{header: {X-A: true}}", "f:3:27: routes.0.match.header.X-A: not a text: write it in quotes"),
        ("{header: {X A: a}}", "f:3:27: routes.0.match.header.X A: 'X A' is not the name of a header"),
        ('{header: {X-A: "*", x-a: "!"}}', "f:3:37: routes.0.match.header.x-a: X-A is the same header"),
        ('{header: {X-A: "~ (a"}}', "f:3:27: routes.0.match.header.X-A: '(a' is not a regular expression"),
        ('{header: {X-A: "~ (?=a)"}}', "f:3:27: routes.0.match.header.X-A: '(?=a)' is not a regular expression"),
        ('{header: {X-A: "~"}}', "f:3:27: routes.0.match.header.X-A: `~` without a regular expression"),
        ('{header: {X-A: "!a"}}', "f:3:27: routes.0.match.header.X-A: '!a': `!` alone is for what must not be there"),
        ('{header: {X-A: "a "}}', "f:3:27: routes.0.match.header.X-A: 'a ' can never match: values come without blank"),
        ('{header: {X-A: "a\\nb"}}', "f:3:27: routes.0.match.header.X-A: 'a\\nb' can never match"),
        ('{header: {X-Forwarded-For: "*"}}', "f:3:39: routes.0.match.header.X-Forwarded-For: X-Forwarded-For is a cla"),
        ('{header: {TE: "*"}}', "f:3:26: routes.0.match.header.TE: TE is about one connection only"),
        (
            '{header: {X_A: "*"}}',
            "f:3:27: routes.0.match.header.X_A: X_A is dropped, as CGI takes `_` for `-`: write X-A",
        ),
        ('{cookie: {"a b": "1"}}', "f:3:29: routes.0.match.cookie.a b: 'a b' is not the name of a cookie"),
        ('{cookie: {a: "1;2"}}', "f:3:25: routes.0.match.cookie.a: '1;2' can never match: a `;` ends a cookie"),
        (
            '{cookie: {a: "1"}, header: {Cookie: "!"}}',
            "f:3:25: routes.0.match.cookie.a: can never match: header.Cookie",
        ),
        ("{query: {debug: 1}}", "f:3:28: routes.0.match.query.debug: not a text: write it in quotes, such as"),
        ('{query: {"": "1"}}', "f:3:25: routes.0.match.query.: an entry without a name can never match"),
        ("{client: 10.0.0.1/8}", "f:3:21: routes.0.match.client: '10.0.0.1/8' is not a network"),
        ("{client: []}", "f:3:21: routes.0.match.client: has too few entries"),
        ('{type: "*/*"}', "f:3:19: routes.0.match.type.0: */* asks for nothing by name"),
        ("{type: [png, .jpg]}", "f:3:25: routes.0.match.type.1: '.jpg' is neither an extension (jpg) nor a media type"),
        ("{type: image/png/x}", "f:3:19: routes.0.match.type.0: 'image/png/x' is neither an extension"),
        (
            '{type: image/png, header: {Accept: "!"}}',
            "f:3:19: routes.0.match.type: can never match: header.Accept must",
        ),
        ('{path: "= /a.png", type: jpg}', "f:3:37: routes.0.match.type: can never match: the path has the extension"),
        ('{path: "= /a", type: jpg}', "f:3:33: routes.0.match.type: can never match: the path has no extension"),
        ('{path: "= /-/health"}', "f:3:19: routes.0.match.path: can never match: /-/health is the `health` of every"),
        ('{path: "~ ^v1/"}', "f:3:19: routes.0.match.path: '^v1/' can never match: every path begins with /"),
        ("{methods: GET}", "f:3:13: routes.0.match.methods: unknown key 'methods': did you mean 'method'?"),
        ("{host: other.org}", "f:5:5: routes.1: matches the same host and path as routes.0: order does not decide"),
    ],
)
def test_a_problem_of_a_match_has_its_place(match: str, message: str) -> None:
    [line] = problems(text(match))
    assert line.startswith(message), line


@pytest.mark.parametrize(
    ("upstream", "message"),
    [
        (
            "{shop: 95, canry: 5}",
            "f:4:33: routes.0.upstream.canry: there is no upstream 'canry': did you mean 'canary'?",
        ),
        ("shp", "f:4:15: routes.0.upstream: there is no upstream 'shp': did you mean 'shop'?"),
        ("{shop: 0, canary: 0}", "f:4:15: routes.0.upstream: all shares are 0, so nobody answers"),
        ("{shop: -1}", "f:4:15: routes.0.upstream: shop: -1 is not a share: write a whole number from 0 to 10000"),
        ("{shop: 99.5, canary: 0.5}", "f:4:15: routes.0.upstream: shop: 99.5 is not a share"),
        ("{shop: true}", "f:4:15: routes.0.upstream: shop: true is not a share"),
        ("{}", "f:4:15: routes.0.upstream: name an upstream, or several with their shares"),
        ("[shop, canary]", "f:4:15: routes.0.upstream: name an upstream, or several with their shares"),
    ],
)
def test_a_problem_of_shares_has_its_place(upstream: str, message: str) -> None:
    [line] = problems(text("{path: /a}", upstream))
    assert line.startswith(message), line


def test_equal_conditions_in_other_words_are_found_once() -> None:
    more = "  - {match: {header: {b: c, A: b}, method: [PUT, GET]}, upstream: shop}\n"
    source = text("{method: [GET, PUT], header: {a: b, B: c}}").replace("upstreams:\n", more + "upstreams:\n")
    assert problems(source) == [
        "f:6:5: routes.2: matches the same host, path and conditions as routes.0: order does not decide; "
        "change or remove one"
    ]


def test_underscores_that_go_on_can_be_matched() -> None:
    config = load_config(text('{header: {X_A: "*"}}', more="underscores: forward\n"), "f")
    assert str(config.routes[0].conditions) == "header.x_a"


def test_a_health_path_of_one_listener_leaves_a_route_to_the_others() -> None:
    source = text('{path: "= /-/health"}').replace("{web:", '{other: {bind: "127.0.0.1:8081"}, web:')
    assert load_config(source, "f").routes[0].path.text == "/-/health"


def test_what_a_match_means() -> None:
    found = route('{method: GET, header: {X-Tier: gold, b: "~ x"}, query: {a: "!"}, cookie: {c: "*"}, type: [PNG]}')
    assert found.name == "* / GET header.b~x header.x-tier=gold cookie.c !query.a type=png"
    assert route("{path: /a}").conditions is NO_CONDITIONS


def test_shares_are_kept_in_order_and_the_largest_names_the_route_s_upstream() -> None:
    found = route("{path: /a}", "{canary: 5, shop: 95}")
    assert found.split == (Share("canary", 5), Share("shop", 95))
    assert found.upstream == "shop"
    assert found.upstreams == ("canary", "shop")
    assert [each.upstream for each in found.by_upstream] == ["canary", "shop"]
    alone = route("{path: /a}", "{canary: 5}")
    assert (alone.upstream, alone.split, alone.by_upstream) == ("canary", (), (alone,))


def test_an_upstream_that_nobody_uses_is_a_warning_with_its_place() -> None:
    source = text("{path: /a}", more="  spare: {backends: {a: {address: '127.0.0.1:1'}}}\n")
    loaded = load_text(source, "f")
    assert loaded.warnings == (
        "f:9:10: upstreams.spare: no route and no listener uses it: name it in one, or remove it",
    )
    assert load_text(source.replace("{shop: 1, canary: 1}", "{shop: 1, canary: 1, spare: 0}"), "f").warnings == ()
