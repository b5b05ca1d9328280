"""What backends see of path, query and host, and how answers lead back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.kit.configfile import InvalidConfigError
from l7proxy.core.config import load_config
from l7proxy.core.head import RequestHead
from l7proxy.core.model import Route
from l7proxy.core.paths import climbs
from l7proxy.core.rewrite import Rewriter, WayBack
from l7proxy.core.strict import read_request
from tests.l7proxy.transformed import Asking, Transformed, rewritten

pytestmark = pytest.mark.unit

FILE = """\
listeners: {{web: {{bind: "127.0.0.1:80"}}}}
routes:
  - {{name: r, match: {{path: '{path}'}}, upstream: up, {route}}}
upstreams: {{up: {{backends: {{a: {{address: "10.0.0.1:8000"}}}}}}}}
"""


def route_of(rewrite: str, path: str = "/", more: str = "") -> Route:
    text = FILE.format(path=path, route=f"rewrite: {rewrite}" + (f", {more}" if more else ""))
    return load_config(text, "f.yaml").routes[0]


def head_of(target: str, *lines: str, host: str = "shop.example") -> RequestHead:
    text = "\r\n".join([f"GET {target} HTTP/1.1", f"Host: {host}", *lines])
    head = read_request(text.encode())
    assert isinstance(head, RequestHead)
    return head


def seen(route: Route, target: str, *lines: str) -> Transformed:
    return rewritten(route, Asking(head_of(target, *lines), route))


def target_of(route: Route, target: str, *lines: str) -> str:
    made = seen(route, target, *lines)
    return made.refusal or made.target.decode()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/app", "/"),
        ("/app/", "/"),
        ("/app/x", "/x"),
        ("/app/x/", "/x/"),
        ("/app?q=1", "/?q=1"),
        ("/app/?", "/?"),
        ("/apple", "/apple"),
        ("/other/app", "/other/app"),
        ("/app/a%2fb/%41", "/a%2fb/%41"),
        ("/%61pp/a%2fb", "/a%2fb"),
        ("/./app/%41", "/A"),
        ("/app/app/x", "/app/x"),
    ],
)
def test_prefix_is_stripped_by_whole_segments(target: str, expected: str) -> None:
    assert target_of(route_of("{strip_prefix: /app}"), target) == expected


@pytest.mark.parametrize(
    ("rewrite", "target", "expected"),
    [
        ("{add_prefix: /v2}", "/", "/v2/"),
        ("{add_prefix: /v2}", "/x?y", "/v2/x?y"),
        ("{strip_prefix: /app, add_prefix: /v2}", "/app", "/v2"),
        ("{strip_prefix: /app, add_prefix: /v2}", "/app/", "/v2/"),
        ("{strip_prefix: /app, add_prefix: /v2}", "/app/x", "/v2/x"),
        ("{strip_prefix: /app, add_prefix: /v2}", "/x", "/v2/x"),
        ("{add_prefix: /v2}", "//x", "/v2//x"),
    ],
)
def test_prefix_is_added(rewrite: str, target: str, expected: str) -> None:
    assert target_of(route_of(rewrite), target) == expected


@pytest.mark.parametrize(
    ("rewrite", "target", "expected"),
    [
        ('{path: "/{rest}"}', "/v1/a%2fb?x=%41", "/a%2Fb?x=%41"),
        ('{path: "/{rest}/{ext}"}', "/v1/a/", "/a//"),
        ('{path: "/t/{header.X-T}"}', "/v1/a", "/t/a%2Fb%20%3F%25"),
        ('{path: "/{query.q}"}', "/v1/a?q=%2541%0d%0a", "/%2541%0D%0A?q=%2541%0d%0a"),
        ('{path: "{path}", add_prefix: /p}', "/v1/%7e", "/p/v1/%7e"),
        ('{regex: {pattern: "^/v1/(?P<x>[a-z]+)(?P<y>[0-9]*)$", to: "/new/{x}-{y}"}}', "/v1/ab12", "/new/ab-12"),
        ('{regex: {pattern: "^/v1/(?P<x>[a-z]+)$", to: "/new/{x}"}}', "/v1/12", "/v1/12"),
    ],
)
def test_path_by_template(rewrite: str, target: str, expected: str) -> None:
    route = route_of(rewrite, "~ ^/v1/(?P<rest>.*?)(?P<ext>[.][a-z]+)?$")
    assert target_of(route, target, "X-T: a/b ?%") == expected


@pytest.mark.parametrize(
    ("rewrite", "target"),
    [
        ("{strip_prefix: /app}", "/app//evil.example/x"),
        ('{regex: {pattern: "^/app(?P<rest>.*)$", to: "{path}/../{rest}"}}', "/app/x"),
        ('{regex: {pattern: "^/a(?P<rest>.*)$", to: "/{rest}"}}', "/a../etc/passwd"),
        ('{regex: {pattern: "^/a(?P<rest>.*)$", to: "/{rest}"}}', "/a.%2E%2fx"),
        ('{regex: {pattern: "^/a(?P<rest>.*)$", to: "/{rest}"}}', "/a/x"),
        ('{path: "/x/{header.X-Up}"}', "/app"),
    ],
)
def test_no_rule_makes_a_dangerous_path(rewrite: str, target: str) -> None:
    route = route_of(rewrite)
    made = seen(route, target, "X-Up: ..")
    assert made.refusal.startswith("400: rewritten, the path ")
    forwarding = route_of(rewrite, more="dangerous_path: forward")
    assert not seen(forwarding, target, "X-Up: ..").refusal


def test_strip_by_normal_form_where_dots_are_forwarded() -> None:
    route = route_of("{strip_prefix: /app}", more="dangerous_path: forward")
    assert target_of(route, "/app/../app/x") == "/x"
    assert target_of(route, "/app/../x") == "/app/../x"


SEGMENTS = st.sampled_from(["app", "%61pp", "a", "a%2fb", "..", ".", "", "%2e%2e", "x;y", "a..", "%25"])


@given(st.lists(SEGMENTS, min_size=1, max_size=5), st.sampled_from(["strip_prefix: /app", "add_prefix: /v"]))
def test_harmless_stays_harmless(segments: list[str], rewrite: str) -> None:
    path = "/" + "/".join(segments)
    made = seen(route_of("{" + rewrite + "}"), path)
    if not made.refusal:
        came = made.target.decode()
        assert not climbs(came)
        assert not came.startswith("//") or path.startswith("//")


QUERY = '{query: {set: {a: "1 2", n: "{client}"}, add: {z: "{path}"}, remove: [utm_source, "x_*", "ä"]}}'


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/p", "/p?a=1%202&n=192.0.2.1&z=/p"),
        ("/p?", "/p?a=1%202&n=192.0.2.1&z=/p"),
        ("/p?b=%41+c&a=x&&c&a=y", "/p?b=%41+c&a=1%202&&c&n=192.0.2.1&z=/p"),
        ("/p?utm_source=1&utm_sourced&x_=1&x_y&%78_z&%C3%A4=1", "/p?utm_sourced&a=1%202&n=192.0.2.1&z=/p"),
        ("/p?n=7&z=1", "/p?n=192.0.2.1&z=1&a=1%202&z=/p"),
    ],
)
def test_query_is_changed_and_the_rest_stays(target: str, expected: str) -> None:
    assert target_of(route_of(QUERY), target) == expected


def test_query_that_loses_all() -> None:
    route = route_of('{query: {remove: "*"}}')
    assert target_of(route, "/p?a=1&b") == "/p"


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#"), max_size=30))
def test_query_that_no_rule_names_keeps_its_bytes(query: str) -> None:
    made = seen(route_of('{query: {remove: ["zz_*", yy]}}'), "/p?" + query)
    if "zz" not in query and "yy" not in query and "%" not in query:
        assert made.target.decode() == "/p" + ("?" + query if query else "")


def test_host_is_replaced_in_its_place() -> None:
    route = route_of("{host: internal.example}")
    made = rewritten(route, Asking(head_of("/x", "X-A: 1"), route))
    assert made.host == b"internal.example"
    assert made.fields == b"Host: internal.example\r\nX-A: 1\r\n"


def test_host_of_a_value_that_is_none_is_refused() -> None:
    route = route_of('{host: "{header.X-To}"}')
    assert seen(route, "/", "X-To: a.example:81").host == b"a.example:81"
    assert "gives no host" in seen(route, "/", "X-To: a b").refusal
    assert "gives no host" in seen(route, "/").refusal


# the way back


def way(rewrite: str, target: str = "/app/x", *, host: str = "shop.example", scheme: str = "https") -> WayBack:
    route = route_of(rewrite)
    assert route.rewrite is not None
    head = head_of(target, host=host)
    asked = route.rewrite.host.fixed if route.rewrite.host is not None else head.authority
    return WayBack(Rewriter(route.rewrite), head, scheme, asked or b"", b"10.0.0.1:8000")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/v2/login", "/app/login"),
        ("/v2", "/app"),
        ("/v2/?a=/v2#/v2", "/app/?a=/v2#/v2"),
        ("/elsewhere", "/elsewhere"),
        ("/v22", "/v22"),
        ("login", "login"),
        ("?page=2", "?page=2"),
        ("http://10.0.0.1:8000/v2/x", "https://shop.example/app/x"),
        ("//10.0.0.1:8000/v2/x", "//shop.example/app/x"),
        ("HTTP://shop.example/v2/x", "HTTP://shop.example/app/x"),
        ("https://shop.example/v2/x", "https://shop.example/app/x"),
        ("https://other.example/v2/x", "https://other.example/v2/x"),
        ("http://10.0.0.1:9000/v2/x", "http://10.0.0.1:9000/v2/x"),
        ("http://10.0.0.1:8000/none", "https://shop.example/none"),
        ("mailto:a@b", "mailto:a@b"),
        ("/v2//evil.example", "/app//evil.example"),
    ],
)
def test_location_leads_back(url: str, expected: str) -> None:
    back = way("{strip_prefix: /app, add_prefix: /v2}")
    assert back.fields(f"Location: {url}\r\n".encode()) == f"Location: {expected}\r\n".encode()
    assert back.fields(f"content-location: {url}\r\n".encode()) == f"content-location: {expected}\r\n".encode()


@pytest.mark.parametrize(
    ("url", "scheme", "expected"),
    [
        ("http://internal.example/x", "https", "https://shop.example:8443/x"),
        ("http://internal.example:80/x", "https", "https://shop.example:8443/x"),
        ("https://internal.example/x", "https", "https://shop.example:8443/x"),
        ("https://internal.example/x", "http", "https://shop.example/x"),
        ("http://10.0.0.1:8000", "https", "https://shop.example:8443"),
        ("http://internal.example.evil/x", "https", "http://internal.example.evil/x"),
    ],
)
def test_location_at_the_host_that_was_asked_leads_back(url: str, scheme: str, expected: str) -> None:
    back = way("{host: internal.example}", host="shop.example:8443", scheme=scheme)
    assert back.url(url.encode()).decode() == expected


def test_redirect_to_https_does_not_become_a_loop() -> None:
    back = way("{strip_prefix: /app}", scheme="http")
    assert back.url(b"https://shop.example/x") == b"https://shop.example/app/x"


def test_prefix_leads_back_only_where_it_was_stripped() -> None:
    assert way("{strip_prefix: /app}", "/app").url(b"/x") == b"/app/x"
    assert way("{strip_prefix: /app}", "/other").url(b"/x") == b"/x"
    assert way("{strip_prefix: /app}", "/app").url(b"/") == b"/app/"


def test_path_that_a_pattern_made_leads_nowhere_known() -> None:
    back = way('{regex: {pattern: "^/app/(?P<x>.*)", to: "/{x}"}}')
    assert back.url(b"/x") == b"/x"
    assert back.url(b"http://10.0.0.1:8000/x") == b"https://shop.example/x"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0;url=/v2/x", "0;url=/app/x"),
        ("5; URL='http://10.0.0.1:8000/v2/'", "5; URL='https://shop.example/app/'"),
        ("5", "5"),
    ],
)
def test_refresh_leads_back(value: str, expected: str) -> None:
    back = way("{strip_prefix: /app, add_prefix: /v2}")
    assert back.fields(f"Refresh: {value}\r\nA: b\r\n".encode()) == f"Refresh: {expected}\r\nA: b\r\n".encode()


@pytest.mark.parametrize(
    ("rewrite", "cookie", "expected"),
    [
        ("{strip_prefix: /app}", "a=/; Path=/", "a=/; Path=/app"),
        ("{strip_prefix: /app}", 'a="Path=/x" ;path = /x ;HttpOnly', 'a="Path=/x" ;path = /app/x ;HttpOnly'),
        ("{strip_prefix: /app}", "a=b; Path=x; Secure", "a=b; Path=x; Secure"),
        ("{strip_prefix: /app}", "a=b", "a=b"),
        ("{strip_prefix: /app, add_prefix: /v2}", "a=b; Path=/v2/x", "a=b; Path=/app/x"),
        ("{strip_prefix: /app, add_prefix: /v2}", "a=b; Path=/v2", "a=b; Path=/app"),
        ("{strip_prefix: /app, add_prefix: /v2}", "a=b; Path=/", "a=b; Path=/app"),
        ("{strip_prefix: /app, add_prefix: /v2}", "a=b; Path=/w", "a=b; Path=/w"),
        ("{add_prefix: /v2}", "a=b; Path=/v2/", "a=b; Path=/"),
        ('{path: "/x"}', "a=b; Path=/x", "a=b; Path=/x"),
        ("{host: internal.example}", "a=b; Domain=.Internal.example", "a=b; Domain=shop.example"),
        ("{host: internal.example}", "a=b; Domain=example; Path=/", "a=b; Domain=example; Path=/"),
        ("{strip_prefix: /app}", "a=b; domain=shop.example", "a=b; domain=shop.example"),
    ],
)
def test_cookies_lead_back(rewrite: str, cookie: str, expected: str) -> None:
    line = f"set-Cookie:  {cookie} \r\n".encode()
    assert way(rewrite).fields(line) == f"set-Cookie:  {expected} \r\n".encode()


@given(st.binary(max_size=40))
def test_cookie_without_known_attributes_keeps_its_bytes(octets: bytes) -> None:
    value = octets.translate(None, b"\r\n")
    if b"path" not in value.lower() and b"domain" not in value.lower():
        line = b"Set-Cookie: " + value + b"\r\n"
        assert way("{strip_prefix: /app}").fields(line) == line


# mistakes


@pytest.mark.parametrize(
    ("path", "rewrite", "message"),
    [
        ("/", "{strip_prefix: app}", "rewrite.strip_prefix: 'app' is not the begin of a path: write one such as /app"),
        ("/", "{strip_prefix: /app/}", "rewrite.strip_prefix: '/app/' ends with a slash: write /app"),
        ("/", "{add_prefix: /}", "rewrite.add_prefix: '/' is the begin of every path: name one such as /app"),
        ("/", "{add_prefix: /a/../b}", "rewrite.add_prefix: '/a/../b' is not in normal form: write '/b'"),
        ("/shop", "{strip_prefix: /app}", "no path of this route begins with /app: match.path is /shop"),
        ("= /app/x", "{strip_prefix: /app/x/y}", "no path of this route begins with /app/x/y"),
        ("/", "{strip_prefix: /a, path: /b}", "rewrite.path: strip_prefix says already what becomes of the path"),
        ("/", '{path: "/{rest}"}', "rewrite.path: '{rest}' is no variable, and there is no group of that name"),
        ("~ ^/(?P<rest>.*)", '{path: "/{rset}"}', "'{rset}' is neither a group nor a variable: did you mean 'rest'?"),
        ("/", '{path: "x"}', "rewrite.path: 'x' does not begin with a slash: write /x"),
        ("/", '{path: "/a/../b"}', "rewrite.path: '/a/../b' would be refused each time"),
        ("/", '{path: "//{path}"}', "rewrite.path: '//{path}' would be refused each time"),
        ("/", '{regex: {pattern: "(", to: "/x"}}', "rewrite.regex.pattern: '(' is not a regular expression"),
        (
            "/",
            '{regex: {pattern: "(?P<a>x)", to: "/{b}"}}',
            "rewrite.regex.to: '{b}' is neither a group nor a variable",
        ),
        ("/", '{query: {set: {a: "{clint}"}}}', "rewrite.query.set.a: '{clint}' is no variable"),
        ("/", '{query: {set: {a: "1"}, remove: a}}', "`set` replaces a already: remove one of them"),
        ("/", '{query: {set: {a: "1"}, add: {a: "2"}}}', "rewrite.query.add.a: `set` has it already"),
        ("/", '{query: {remove: "a*b"}}', "'a*b': write a name, or the begin of one and * at its end"),
        ("/", '{host: "a b"}', "rewrite.host: 'a b' is not a host"),
        ("/", "{answers: false}", "rewrite.answers: nothing is rewritten that answers could be led back from"),
        ("/", "{query: {set: {a: true}}}", 'write it in quotes, such as "true"'),
    ],
)
def test_mistakes_are_found_at_their_place(path: str, rewrite: str, message: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        route_of(rewrite, path)
    lines = caught.value.lines()
    assert [line for line in lines if message in line], lines
    assert all(line.startswith("f.yaml:3:") for line in lines)


def test_what_can_begin_so_is_no_mistake() -> None:
    for path in ("/", "/app", "/app/v1", "/a", "= /app", "~ ^/app"):
        if path != "/a":
            assert route_of("{strip_prefix: /app}", path).rewrite is not None
