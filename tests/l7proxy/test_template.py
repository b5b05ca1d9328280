"""Texts with variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7proxy.core.head import RequestHead
from l7proxy.core.lookup import Fields
from l7proxy.core.template import KEYED, VARIABLES, Place, Source, compile_template

pytestmark = pytest.mark.unit


def head_of(target: bytes = b"/a%2fb/c?x=1&y=a%0d%0ab", authority: bytes = b"Shop.example:8080") -> RequestHead:
    head = RequestHead()
    head.target = target
    head.authority = authority
    head.host = authority.decode().lower().partition(":")[0]
    head.path = "/a%2Fb/c"
    return head


@dataclass
class Told:
    """What an exchange would say."""

    head: RequestHead = field(default_factory=head_of)
    seen: Fields = field(default_factory=lambda: Fields(b"Cookie: a=1; b=\xc3\xa4\r\nX-Tier: g/o ld\r\n"))
    asker: str = "192.0.2.7"
    peer: str = "10.0.0.1"
    scheme: str = "https"
    captures: Mapping[str, bytes | None] = field(default_factory=lambda: {"rest": b"x%2Fy?", "none": None})
    request_id: bytes = b"4f3a"
    user: str = "ann"
    subject: str = "CN=Än\r\nX: y"
    route_name: str = "shop"
    upstream_name: str = "up"
    backend_name: str = "b0"
    listener_name: str = "web"


def filled(text: str, place: Place = Place.HEADER, source: Source | None = None, *, late: bool = True) -> bytes:
    return compile_template(text, ["rest", "none"], place, late=late).fill(source or Told())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", b"plain"),
        ("{{}} {{{client}}}", b"{} {192.0.2.7}"),
        ("{client} {peer} {scheme} {host}:{port}", b"192.0.2.7 10.0.0.1 https shop.example:8080"),
        ("{method} {path} {query} {uri}", b"GET /a%2fb/c x=1&y=a%0d%0ab /a%2fb/c?x=1&y=a%0d%0ab"),
        ("{request_id} {route} {upstream} {backend} {listener} {user}", b"4f3a shop up b0 web ann"),
        ("{header.X-Tier}|{header.x-none}|{cookie.a}|{cookie.A}|{query.x}|{query.z}", b"g/o ld||1||1|"),
        ("{rest}{none}", b"x%2Fy?"),
    ],
)
def test_variables_are_looked_up(text: str, expected: bytes) -> None:
    assert filled(text) == expected


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("{query.y}", Place.HEADER, b"a  b"),
        ("{tls.subject}", Place.HEADER, "CN=Än  X: y".encode()),
        ("/{header.X-Tier}/{rest}", Place.PATH, b"/g%2Fo%20ld/x%2Fy%3F"),
        ("/{query.y}", Place.PATH, b"/a%0D%0Ab"),
        ("https://{host}{path}?{query}", Place.URL, b"https://shop.example/a%2fb/c?x=1&y=a%0d%0ab"),
        ("/{header.X-Tier}", Place.URL, b"/g%2Fo%20ld"),
        ("ä b {query.y}&{header.X-Tier}", Place.QUERY, b"%C3%A4%20b%20a%0D%0Ab%26g%2Fo%20ld"),
        ("{rest}", Place.QUERY, b"x%2Fy%3F"),
        ("{query.y}", Place.TEXT, b"a\r\nb"),
    ],
)
def test_values_are_made_safe_for_their_place(text: str, place: Place, expected: bytes) -> None:
    assert filled(text, place) == expected


def test_html_is_escaped() -> None:
    told = Told(head=head_of(b"/<b>?x=\"'"))
    assert filled("<p>{path}{query}", Place.HTML, told) == b"<p>/&lt;b&gt;x=&quot;&#x27;"


@pytest.mark.parametrize("path", [b"//evil.example/x", b"/\\evil.example/x", b"///evil.example/x"])
@pytest.mark.parametrize("text", ["{path}", "/{rest}"])
def test_url_of_a_path_stays_on_its_host(text: str, path: bytes) -> None:
    told = Told(head=head_of(path), captures={"rest": path[1:]})
    assert filled(text, Place.URL, told) == b"/evil.example/x"


@pytest.mark.parametrize(
    ("target", "path"),
    [(b"http://a.example/x?y", b"/x"), (b"http://a.example", b"/"), (b"HTTP://a?q=://", b"/"), (b"*", b"*")],
)
def test_path_of_an_absolute_target(target: bytes, path: bytes) -> None:
    assert filled("{path}", source=Told(head=head_of(target))) == path


@pytest.mark.parametrize(
    ("authority", "port"), [(b"[::1]", b"443"), (b"[::1]:81", b"81"), (b"a:", b"443"), (b"", b"443")]
)
def test_port_is_that_of_host_or_of_the_scheme(authority: bytes, port: bytes) -> None:
    assert filled("{port}", source=Told(head=head_of(authority=authority))) == port


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("{rst}", Place.PATH, "'{rst}' is neither a group nor a variable: did you mean 'rest'?"),
        ("{clint}", Place.HEADER, "did you mean 'client'?"),
        ("{headers.X}", Place.HEADER, "did you mean 'header.NAME'?"),
        ("{header.}", Place.HEADER, "write it as {header.NAME}"),
        ("{cookie.a b}", Place.HEADER, "write it as {cookie.NAME}"),
        ("{}", Place.HEADER, "write {{ for a brace"),
        ("a { b", Place.HEADER, "has a { without its }: write {{"),
        ("a } b", Place.HEADER, "has a } without its {: write }}"),
        ("a\nb", Place.HEADER, "cannot stand in a header"),
        ("/a b", Place.PATH, "cannot stand in a path: percent-encode"),
        ("/a?b", Place.PATH, "cannot stand in a path"),
        ("/ä", Place.URL, "cannot stand in a URL"),
        ("/%x", Place.URL, "write %25"),
        ("{backend}", Place.HEADER, "is not known before an answer comes"),
    ],
)
def test_mistakes_say_what_to_write(text: str, place: Place, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        compile_template(text, ["rest"], place)


def test_without_groups_it_says_so() -> None:
    with pytest.raises(ValueError, match="there is no group of that name"):
        compile_template("/{rest}", (), Place.PATH)


def test_groups_stand_above_variables() -> None:
    template = compile_template("{host}{path}", ["host"])
    assert template.fill(Told(), {"host": b"mine"}) == b"mine/a%2fb/c"


def test_equality_is_by_what_they_say() -> None:
    assert compile_template("{client}") == compile_template("{client}")
    assert compile_template("{rest}", ["rest"]) != compile_template("{client}", ["rest"])
    assert compile_template("{host}", ["host"]) != compile_template("{host}")


NAMES = [*VARIABLES, *(f"{key}.x" for key in KEYED), "rest"]


@given(
    st.sampled_from(NAMES), st.binary(max_size=20), st.sampled_from([Place.HEADER, Place.URL, Place.PATH, Place.QUERY])
)
def test_no_value_brings_controls(name: str, octets: bytes, place: Place) -> None:
    said = b"".join(octets.split(b"\r\n"))
    clean = bytes(octet for octet in said if octet >= 0x20 and octet != 0x7F)
    target = b"/?x=" + b"".join(b"%%%02x" % octet for octet in octets)
    told = Told(
        head=head_of(target),
        seen=Fields(b"X: %b\r\nCookie: x=%b\r\n" % (clean, clean)),
        captures={"rest": clean},
        user=octets.decode("latin-1"),
    )
    text = filled("a{" + name + "}b", place, told)
    assert not [octet for octet in text if octet < 0x20 or octet == 0x7F]
    if place is not Place.HEADER:
        assert text.isascii()
        assert b" " not in text
