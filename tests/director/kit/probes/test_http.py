"""The http probe's conversation, without a network; what it says and what it makes of answers."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpResponseParser
from hypothesis import example, given, settings
from hypothesis import strategies as st

from director.kit.checks.base import Tls
from director.kit.checks.http import HttpProbe
from director.kit.probes.answer import BadAnswer, BodyReader, HeadReader
from director.kit.probes.dialogue import Reconnect
from director.kit.probes.http import HttpDialogue
from tests.director.kit.probes.talk import TARGET, talk

pytestmark = pytest.mark.unit

OK = b"HTTP/1.1 200 OK\r\n"
SHA = "sha256:" + hashlib.sha256(b"all ok").hexdigest()
MD5 = "md5:" + hashlib.md5(b"all ok", usedforsecurity=False).hexdigest()
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nall\r\n3;x=y\r\n ok\r\n0\r\n\r\n"


def _said(probe: HttpProbe, *script: bytes) -> tuple[bool, str]:
    result, _ = talk(HttpDialogue(probe, TARGET), *script)
    assert result is not None
    return result.ok, result.reason


def test_request_has_what_is_written() -> None:
    _, said = talk(HttpDialogue(HttpProbe(), TARGET), OK)
    fields = b"Host: 10.0.0.1:8080\r\nUser-Agent: director-check\r\nAccept: */*\r\nConnection: close\r\n"
    assert said == b"GET / HTTP/1.1\r\n" + fields + b"\r\n"
    probe = HttpProbe(
        method="POST", path="/a?b", host="x.example", headers=(("user-agent", "me"), ("X-A", "ä")), content="ü".encode()
    )
    _, said = talk(HttpDialogue(probe, TARGET, lasting=True), OK)
    assert (
        said
        == (
            "POST /a?b HTTP/1.1\r\nHost: x.example\r\nAccept: */*\r\nuser-agent: me\r\nX-A: ä\r\n"
            "Content-Length: 2\r\nConnection: keep-alive\r\n\r\nü"
        ).encode()
    )


@pytest.mark.parametrize(
    ("probe", "answer", "told"),
    [
        (HttpProbe(digest=SHA), CHUNKED, (True, "status 200, digest matches")),
        (HttpProbe(digest=MD5), OK + b"Content-Length: 6\r\n\r\nall ok", (True, "status 200, digest matches")),
        (HttpProbe(digest=SHA, body="ok$"), OK + b"\r\nall ok", (True, "status 200, digest and body match")),
        (HttpProbe(digest=SHA, body="^ok"), CHUNKED, (False, "status 200, but the body does not match '^ok'")),
        (
            HttpProbe(digest=MD5),
            OK + b"\r\nwrong",
            (False, "status 200, but the digest of the body is md5:2bda2998d9b0ee197da142a0447f6725"),
        ),
        (
            HttpProbe(digest=SHA, max_bytes=5),
            CHUNKED,
            (False, "status 200, but the body is larger than max_bytes (5) allows to digest"),
        ),
        (
            HttpProbe(digest=SHA, max_bytes=5),
            OK + b"Content-Length: 6\r\n\r\n",
            (False, "status 200, but the body is larger than max_bytes (5) allows to digest"),
        ),
        (HttpProbe(digest=SHA, max_bytes=6), CHUNKED, (True, "status 200, digest matches")),
        (HttpProbe(body="^all$", max_bytes=3), CHUNKED, (True, "status 200, body matches")),
        (HttpProbe(method="HEAD"), OK + b"Content-Length: 6\r\n\r\n", (True, "status 200")),
        (HttpProbe(), OK + b"Content-Length: 6\r\n\r\n", (True, "status 200")),
        (
            HttpProbe(body="x"),
            OK + b"Content-Length: 6\r\n\r\nall",
            (False, "the answer broke off: not enough data, 3 bytes of its content length did not come"),
        ),
        (
            HttpProbe(body="x"),
            CHUNKED[:-3],
            (False, "the answer broke off: not enough data, the last chunk did not come"),
        ),
        (
            HttpProbe(body="x"),
            CHUNKED[:-5] + b"zz\r\n",
            (False, "not an HTTP answer: 'zz\\r\\n' is no length of a chunk"),
        ),
        (HttpProbe(), b"HTTP/1.1 200 OK\r\nA: b", (False, "not an HTTP answer: it ends within its head")),
        (HttpProbe(), OK + b"no header\r\n\r\n", (False, "not an HTTP answer: 'no header' is no header")),
        (HttpProbe(), b"+OK POP3", (False, "not an HTTP answer: it begins with '+OK POP3'")),
    ],
)
def test_answer_is_judged(probe: HttpProbe, answer: bytes, told: tuple[bool, str]) -> None:
    assert _said(probe, answer) == told


@pytest.mark.parametrize(
    ("patterns", "told"),
    [
        ((("content-type", "^text/html"),), (True, "status 200")),
        ((("x-twice", "^2$"), ("x-folded", "^a b$")), (True, "status 200")),
        ((("x-twice", "3"),), (False, "status 200, but the header x-twice is '1', which does not match '3'")),
        ((("x", ""),), (False, "status 200, but the header x is not there")),
    ],
)
def test_headers_are_judged(patterns: tuple[tuple[str, str], ...], told: tuple[bool, str]) -> None:
    answer = OK + b"CONTENT-TYPE:text/html; x\r\nX-Twice: 1\r\nX-Twice: 2 \r\nX-Folded: a\r\n  b\r\n\r\n"
    assert _said(HttpProbe(expect_headers=patterns), answer) == told


# Redirects


def _to(location: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} X\r\nLocation: {location}\r\nContent-Length: 5\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/x", "/x"),
        ("/x?a=b#c", "/x?a=b"),
        ("y", "/d/y"),
        ("../z", "/z"),
        ("?q", "/d/e?q"),
        ("http://A.example", "/"),
        ("http://a.example:80/x", "/x"),
        ("//a.example/x", "/x"),
    ],
)
def test_redirect_is_followed_on_the_same_host(location: str, path: str) -> None:
    probe = HttpProbe(path="/d/e", host="a.example", redirects=1)
    result, said = talk(HttpDialogue(probe, TARGET), _to(location), OK + b"\r\n")
    assert result is not None
    assert result.reason == "status 200"
    assert said.startswith(b"GET /d/e HTTP/1.1\r\nHost: a.example\r\n")
    assert f"\r\n\r\nGET {path} HTTP/1.1\r\nHost: a.example\r\n".encode() in said


@pytest.mark.parametrize(
    "location",
    [
        *("http://b.example/", "http://a.example:81/", "https://a.example/", "//b.example/", "ftp://a.example/"),
        *("http://[", "http://x@a.example/", "/a b", "/\x7f", "/ä", "javascript:alert(1)"),
    ],
)
def test_redirect_elsewhere_is_the_reason(location: str) -> None:
    ok, reason = _said(HttpProbe(host="a.example", redirects=3), _to(location))
    assert not ok
    assert reason.startswith("status 302, leads to '")
    assert reason.endswith("': only what is on the same host is followed")


def test_redirects_come_to_an_end() -> None:
    probe = HttpProbe(redirects=2)
    assert _said(probe, _to("/1"), _to("/2"), _to("/3")) == (False, "status 302, after 2 redirects, leads on to '/3'")
    assert _said(probe, b"HTTP/1.1 302 X\r\n\r\n") == (False, "status 302, but no Location to follow")
    assert _said(HttpProbe(), _to("/1")) == (True, "status 302")


@pytest.mark.parametrize(
    ("status", "again"), [(301, b"GET"), (302, b"GET"), (303, b"GET"), (307, b"POST"), (308, b"POST")]
)
def test_what_is_sent_again_follows_the_status(status: int, again: bytes) -> None:
    probe = HttpProbe(method="POST", content=b"abc", redirects=1)
    _, said = talk(HttpDialogue(probe, TARGET), _to("/x", status), OK)
    second = said.partition(b"\r\n\r\nabc")[2]
    assert second.startswith(again + b" /x HTTP/1.1\r\n")
    assert (b"Content-Length: 3\r\n" in second and second.endswith(b"\r\n\r\nabc")) is (again == b"POST")


def test_body_of_a_redirect_is_not_waited_for() -> None:
    dialogue = HttpDialogue(HttpProbe(redirects=1), TARGET)
    dialogue.opened()
    assert isinstance(dialogue.heard(_to("/x")), Reconnect)


def test_redirect_to_https_stays_there() -> None:
    probe = HttpProbe(Tls(), host="a.example", redirects=1)
    assert talk(HttpDialogue(probe, TARGET), _to("https://a.example:443/x"), OK)[1].count(b"GET ") == 2


# The connection afterwards


@pytest.mark.parametrize(
    ("answer", "lasts"),
    [
        (OK + b"Content-Length: 2\r\n\r\nok", True),
        (OK + b"Content-Length: 2\r\nConnection: close\r\n\r\nok", False),
        (OK + b"Content-Length: 2\r\n\r\nok+", False),
        (CHUNKED, True),
        (CHUNKED + b"x", False),
        (b"HTTP/1.1 204 No\r\n\r\n", True),
        (OK + b"\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: x, Keep-Alive\r\n\r\n", True),
        (OK + b"Content-Length: 70000\r\n\r\n", False),
    ],
)
@pytest.mark.parametrize("body", [None, "^"])
def test_connection_lasts_after_a_whole_answer(answer: bytes, lasts: bool, body: str | None) -> None:
    dialogue = HttpDialogue(HttpProbe(body=body), TARGET, lasting=True)
    talk(dialogue, answer)
    assert dialogue.lasts() is lasts
    other = HttpDialogue(HttpProbe(body=body), TARGET)
    talk(other, answer)
    assert not other.lasts()


def test_lasting_waits_for_the_rest_of_a_body() -> None:
    dialogue = HttpDialogue(HttpProbe(), TARGET, lasting=True)
    dialogue.opened()
    assert dialogue.heard(OK + b"Content-Length: 4\r\n\r\nab") == b""
    assert not dialogue.lasts()
    assert getattr(dialogue.heard(b"cd"), "reason", None) == "status 200"
    assert dialogue.lasts()


# Beside the proxy's parser


def _as_the_proxy(data: bytes) -> list[tuple[int, bytes]] | None:
    """What aiohttp's parser, which the proxy uses, makes of `data`: final statuses with what came of bodies."""
    loop: Any = asyncio.new_event_loop()
    try:
        protocol = BaseProtocol(loop)
        parser = HttpResponseParser(protocol, loop, 2**16, read_until_eof=True, auto_decompress=False)
        messages, _, _ = parser.feed_data(data)
    except HttpProcessingError:
        return None
    else:
        found = [(message.code, body) for message, body in messages if message.code >= 200 or message.code == 101]
        return [(code, b"".join(getattr(body, "_buffer", ()))) for code, body in found]
    finally:
        loop.close()


PARTS = st.sampled_from(
    [
        *(
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.0 404\r\n",
            b"HTTP/1.1 100 C\r\n\r\n",
            b"HTTP/1.1 204 \r\n",
            b"HTTP/2.0 500 X\r\n",
        ),
        *(
            b"Content-Length: 3\r\n",
            b"Content-Length: 03 \r\n",
            b"Transfer-Encoding: gzip, chunked\r\n",
            b"\r\n",
            b"\n",
        ),
        *(
            b"Transfer-Encoding: chunked\r\n",
            b"X: y\r\n",
            b"X:\r\n",
            b" folded\r\n",
            b"X : y\r\n",
            b"X: \xff\x01\r\n",
            b"a\0b",
        ),
        *(
            b"Connection: close\r\n",
            b"abc",
            b"3\r\nabc\r\n",
            b"0\r\n",
            b"A;b=c\r\n",
            b"003\r\nabc\r\n",
            b"Z: x\r\n",
            b"\r",
        ),
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(PARTS, max_size=9).map(lambda parts: b"HTTP/1.1 200 OK\r\n" + b"".join(parts)) | st.binary(max_size=60))
@example(b"\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
@example(b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nTransfer-Encoding: chunked\r\n\r\n3 ;x\r\nabc\r\n0\r\nA: b\r\n\r\n")
def test_what_the_proxy_takes_is_taken(data: bytes) -> None:
    theirs = _as_the_proxy(data)
    if not theirs:
        return
    try:
        found = HeadReader().feed(data)
    except BadAnswer as error:
        raise AssertionError(f"{theirs} was refused: {error}") from None
    assert found is not None
    head, rest = found
    body = BodyReader(head)
    assert (head.status, body.feed(rest)) == theirs[0]
    assert not body.bad
