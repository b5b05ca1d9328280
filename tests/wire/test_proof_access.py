"""Who may pass, TLS with all that belongs to it, and compression: seen from outside."""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from tests.wire.codings import WHOLE
from tests.wire.harness import fields_of, free_port
from tests.wire.outside import Back, Line, Program, its_name, ok, upstreams
from tests.wire.sealed import credulous, make_certificate, shown

pytestmark = pytest.mark.unit

SECRET = "$2b$04$AFt0Fgs2.i46BPhw4ar6X.Dy.SvQGoCMBx.sQeP77QLzK5uBO0HwW"
"""bcrypt of `secret`."""
LARGE = b"all the world is a stage; " * 200
ROUTES = f"""\
access_log: none
routes:
  - match: {{host: nets}}
    upstream: up
    access: {{allow: [192.0.2.0/24, 127.0.0.0/8], deny: [192.0.2.128/25, 127.0.0.9]}}
  - {{match: {{host: none}}, upstream: up, access: {{deny: 127.0.0.0/8}}}}
  - match: {{host: basic}}
    upstream: up
    access: {{basic: {{realm: staff, users: {{ann: "{SECRET}"}}}}}}
    headers: {{request: {{set: {{X-User: "{{user}}"}}}}}}
  - match: {{host: asks}}
    upstream: up
    access: {{forward_auth: {{url: "http://VERIFY/verify", pass: [X-User], timeout: 500ms}}}}
  - match: {{host: mutual}}
    upstream: up
    access: {{client_certificate: {{subject_header: X-Subject, fingerprint_header: X-Print}}}}
    headers: {{request: {{set: {{X-Mine: "{{tls.subject}}"}}}}}}
  - {{match: {{host: small}}, upstream: up, compress: true}}
  - {{match: {{host: own}}, respond: {{body: "{"a" * 2000}"}}, compress: true}}
  - {{upstream: up}}
"""


@dataclass(frozen=True, slots=True)
class Place:
    """A program with a listener of each kind, and whom it asks."""

    proxy: Program
    up: Back
    verify: Back
    sealed: int
    to_https: int
    made: Path

    def tls(self, client: str = "", source: str = "127.0.0.1") -> Line:
        """A connection by TLS, with a certificate or without."""
        context = credulous()
        if client:
            context.load_cert_chain(self.made / f"{client}.crt", self.made / f"{client}.key")
        return Line(self.sealed, source, context, "shop.example")

    def told(self, name: str) -> list[str]:
        """A header of the last request at the backend."""
        return [value.decode() for value in fields_of(self.up.heads[-1], name.lower().encode())]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made, certificates, challenges = (tmp_path_factory.mktemp(name) for name in ("made", "certificates", "acme"))
    make_certificate(certificates, "shop", names="DNS:shop.example,DNS:*.shop.example")
    make_certificate(certificates, "other", names="DNS:other.example")
    make_certificate(made, "ca")
    make_certificate(made, "ann", issuer="ca")
    make_certificate(made, "eve")
    (challenges / "token-1").write_text("token-1.print")
    up, verify = Back("up"), Back("verify")
    sealed, to_https = free_port(), free_port()
    listeners = f"""\
  sealed:
    bind: "127.0.0.1:{sealed}"
    tls: {{folder: {certificates}, default: other, clients: {{ca: {made}/ca.crt, mode: optional}}}}
    hsts: {{max_age: 1y, include_subdomains: true}}
  web:
    bind: "127.0.0.1:{to_https}"
    redirect_to_https: {{port: 8443}}
    acme: {{folder: {challenges}}}
    health: /-/health
    trusted_proxies: 127.0.5.0/24
"""
    text = ROUTES.replace("VERIFY", verify.address) + upstreams({"up": [up]})
    folder = tmp_path_factory.mktemp("access") / "run"
    trusting = ", trusted_proxies: 127.0.5.0/24"
    with Program(folder, text, listener=trusting, listeners=listeners) as proxy:
        yield Place(proxy, up, verify, sealed, to_https, made)
    up.stop()
    verify.stop()


@pytest.fixture(autouse=True)
def anew(place: Place) -> None:
    place.up.says = its_name


def test_networks_let_pass_and_keep_out(place: Place) -> None:
    port, before = place.proxy.port, len(place.up.heads)
    asked = {
        ("nets", "127.0.0.1", ""): 200,
        ("nets", "127.0.0.9", ""): 403,
        ("nets", "127.0.0.1", "192.0.2.200"): 200,  # nobody believes it
        ("nets", "127.0.5.1", "192.0.2.7"): 200,
        ("nets", "127.0.5.1", "192.0.2.200"): 403,
        ("nets", "127.0.5.1", "203.0.113.7"): 403,
        ("nets", "127.0.5.1", "192.0.2.7, 203.0.113.7"): 403,
        ("none", "127.0.0.1", "192.0.2.7"): 403,
        ("none", "127.0.5.1", "192.0.2.7"): 200,
    }
    for (host, source, claimed), status in asked.items():
        with Line(port, source) as line:
            answer = line.ask("/", *([f"X-Forwarded-For: {claimed}"] if claimed else []), host=host)
        assert answer.status == status, (host, source, claimed)
        assert status == 200 or "access_denied" in answer.cause
    assert len(place.up.heads) == before + list(asked.values()).count(200)


def test_who_has_the_password_passes(place: Place) -> None:
    def login(text: str) -> str:
        return f"Authorization: Basic {b64encode(text.encode()).decode()}"

    before = len(place.up.heads)
    for lines in ((), (login("ann:wrong"),), (login("ann:"),), (login("eve:secret"),), ("Authorization: Basic !",)):
        answer = place.proxy.ask("/", *lines, "X-User: ann", host="basic")
        assert answer.status == 401, lines
        assert "staff" in answer.one("www-authenticate")
    assert len(place.up.heads) == before
    for _ in range(2):
        assert place.proxy.ask("/", login("ann:secret"), "X-User: root", host="basic").status == 200
        assert place.told("x-user") == ["ann"]
        assert not place.told("authorization")


def test_who_cannot_be_asked_about_is_kept_out(place: Place) -> None:
    place.verify.says = lambda back, head: (
        ok(b"", "X-User: ann")
        if fields_of(head, b"cookie") == [b"good"]
        else b"HTTP/1.1 401 No\r\nContent-Length: 4\r\n\r\nnope"
    )
    assert place.proxy.ask("/", "Cookie: good", "X-User: root", host="asks").status == 200
    assert place.told("x-user") == ["ann"]
    before = len(place.up.heads)
    denied = place.proxy.ask("/", "X-User: root", host="asks")
    assert (denied.status, denied.text) == (401, "nope")
    place.verify.says = lambda back, head: b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
    assert place.proxy.ask("/", "Cookie: good", host="asks").status == 500
    place.verify.stop()
    down = place.proxy.ask("/", "Cookie: good", host="asks")
    assert (down.status, "auth_unreachable" in down.cause or "destination_unavailable" in down.cause) == (502, True)
    place.verify.start()
    place.verify.says = lambda back, head: b"garbage\r\n\r\n"
    assert place.proxy.ask("/", "Cookie: good", host="asks").status == 502
    assert len(place.up.heads) == before, "closed, never open"


def test_a_clients_certificate_is_told_and_nobody_else_can_say_it(place: Place) -> None:
    lies = ("X-Subject: CN=root", "X-Print: 00", "X-Mine: CN=root")
    with place.tls("ann") as line:
        assert line.ask("/", *lies, host="mutual").status == 200
    assert place.told("x-subject") == place.told("x-mine") == ["CN=ann"]
    der = ssl.PEM_cert_to_DER_cert((place.made / "ann.crt").read_text())

    assert place.told("x-print") == [sha256(der).hexdigest()]
    before = len(place.up.heads)
    with place.tls() as line:
        answer = line.ask("/", *lies, host="mutual")
        assert (answer.status, "certificate_wanted" in answer.cause) == (403, True)
        assert line.ask("/", *lies, host="shop.example").status == 200, "elsewhere nobody asks"
    assert place.proxy.ask("/", *lies, host="mutual").status == 403, "nor over plain HTTP"
    with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)), place.tls("eve") as line:
        line.ask("/", host="mutual")
    assert len(place.up.heads) == before + 1


def test_certificates_are_chosen_by_name(place: Place) -> None:
    asked = {"shop.example": "shop", "SHOP.example": "shop", "a.shop.example": "shop", "other.example": "other"}
    asked |= {"a.b.shop.example": "other", "unknown.example": "other"}
    for name, expected in asked.items():
        assert shown(place.sealed, name) == f"CN={expected}", name
    assert shown(place.sealed, None) == "CN=other"
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        shown(place.sealed, "shop.example", old)


def test_from_http_to_https_and_to_stay_there(place: Place) -> None:
    with Line(place.to_https) as line:
        for method in ("GET", "POST"):
            answer = line.ask("/a%2fb?x=1&y", "Content-Length: 0", method=method, host="Shop.example:80")
            assert answer.status == 308
            assert answer.one("location").lower() == "https://shop.example:8443/a%2fb?x=1&y"
            assert not answer.all("strict-transport-security"), "nobody may say it over plain HTTP"
        token = line.ask("/.well-known/acme-challenge/token-1", host="shop.example")
        assert (token.status, token.text) == (200, "token-1.print")
        for name in ("token-2", "..%2ftoken-1", "%2e%2e/x", ""):
            assert line.ask(f"/.well-known/acme-challenge/{name}", host="shop.example").status in {308, 400, 404}, name
        assert line.ask("/-/health").status == 200
        assert line.ask("/", "X-Forwarded-Proto: https", host="shop.example").status == 308
    with Line(place.to_https, "127.0.5.1") as line:
        assert line.ask("/", "X-Forwarded-Proto: https", host="shop.example").status == 200
    place.up.says = lambda back, head: ok(b"", "Strict-Transport-Security: max-age=0")
    with place.tls() as line:
        for host in ("shop.example", "none", "own"):
            answer = line.ask("/", host=host)
            assert answer.one("strict-transport-security") == "max-age=31536000; includeSubDomains", host


def test_answers_are_compressed_once_and_say_so(place: Place) -> None:
    text = ("Content-Type: text/plain", 'ETag: "e"', "Vary: Cookie", "Accept-Ranges: bytes")
    place.up.says = lambda back, head: ok(LARGE, *text)
    with Line(place.proxy.port) as line:
        for accepted, coding in (
            ("gzip", "gzip"),
            ("br;q=1, gzip;q=0.5", "br"),
            ("zstd, br, gzip", "zstd"),
            ("*", "zstd"),
        ):
            answer = line.ask("/", f"Accept-Encoding: {accepted}", host="small")
            assert answer.one("content-encoding") == coding
            assert WHOLE[coding](answer.body) == LARGE
            assert answer.one("etag") == 'W/"e"'
            assert "accept-encoding" in ", ".join(answer.all("vary")).lower()
            assert "cookie" in ", ".join(answer.all("vary")).lower()
            assert not answer.all("accept-ranges")
        for lines in (
            (),
            ("Accept-Encoding: identity",),
            ("Accept-Encoding: gzip;q=0",),
            ("Accept-Encoding: gzip", "Range: bytes=0-"),
        ):
            answer = line.ask("/", *lines, host="small")
            assert answer.body == LARGE, lines
            assert not answer.all("content-encoding")
            assert answer.one("etag") == '"e"'
            assert "accept-encoding" in ", ".join(answer.all("vary")).lower() or len(lines) == 2, lines
        for more in ("Content-Encoding: gzip", "Content-Encoding: x-own", "Cache-Control: no-transform"):
            place.up.says = lambda back, head, more=more: ok(LARGE, *text, more)  # type: ignore[misc]
            answer = line.ask("/", "Accept-Encoding: gzip", host="small")
            assert answer.body == LARGE, "never twice"
            assert answer.one("etag") == '"e"'
            assert answer.one(more.partition(":")[0]) == more.partition(": ")[2]
        place.up.says = lambda back, head: ok(LARGE, "Content-Type: image/png")
        assert line.ask("/", "Accept-Encoding: gzip", host="small").body == LARGE
        place.up.says = lambda back, head: ok(LARGE[:500], *text)
        assert line.ask("/", "Accept-Encoding: gzip", host="small").body == LARGE[:500]
        own = line.ask("/", "Accept-Encoding: gzip", host="own")
        assert WHOLE["gzip"](own.body) == b"a" * 2000
        place.up.says = lambda back, head: ok(LARGE, *text)
        assert line.ask("/", "Accept-Encoding: gzip", host="any").body == LARGE, "only where a route says so"
