"""What is about one connection stays on it, in both directions (RFC 9110 7.6.1)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.wire.corpus import GET, POST, Bad, bad
from tests.wire.harness import Origin, fields_of, live, named, running, says, statuses_of, takes
from tests.wire.verdicts import expect_none, fault_of_answer, faults_of_refusals

pytestmark = pytest.mark.unit

CLOSE = b"Connection: close\r\n"
OURS = (b"close", b"keep-alive", b"te")
"""What a Connection of ours may name."""


def lines_of(head: bytes) -> list[bytes]:
    return head.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]


def names_of(head: bytes) -> set[bytes]:
    return {line.partition(b":")[0].lower() for line in lines_of(head)}


def options_of(head: bytes) -> set[bytes]:
    """What Connection names."""
    return {option.strip().lower() for value in fields_of(head, b"connection") for option in value.split(b",")}


STOPS: dict[str, bytes] = {
    "what Connection names": b"Connection: close, X-Stop\r\nX-Stop: 1\r\n",
    "named in other case": b"Connection: close, x-STOP\r\nX-Stop: 1\r\n",
    "named after it came": b"X-Stop: 1\r\nConnection: close,X-Stop\r\n",
    "named twice, there twice": b"X-Stop: 1\r\nConnection: X-Stop, X-Stop, close\r\nx-stop: 2\r\n",
    "two Connections": b"Connection: X-Stop\r\nX-Stop: 1\r\nCONNECTION: close\r\n",
    "empty members and tabs": b"Connection: , \tX-Stop\t ,, close,\r\nX-Stop: 1\r\n",
    "named without a space": b"Connection:close,X-Stop\r\nX-Stop:1\r\n",
    "Keep-Alive": CLOSE + b"Keep-Alive: timeout=5, X-Stop\r\n",
    "Keep-Alive that is named": b"Connection: close, Keep-Alive\r\nKeep-Alive: X-Stop\r\n",
    "Proxy-Connection": CLOSE + b"Proxy-Connection: X-Stop\r\n",
    "TE": CLOSE + b"TE: X-Stop;q=0.5\r\n",
    "TE that is named": b"Connection: close, TE\r\nTE: X-Stop, trailers\r\n",
    "Upgrade": CLOSE + b"Upgrade: X-Stop/1\r\n",
    "Proxy-Authorization": CLOSE + b"Proxy-Authorization: Basic X-Stop\r\n",
    "Proxy-Authenticate": CLOSE + b"Proxy-Authenticate: Basic realm=X-Stop\r\n",
    "in other case": CLOSE + b"kEEP-aLIVE: X-Stop\r\nproxy-CONNECTION: X-Stop\r\nUPGRADE: X-Stop\r\n",
    "many": CLOSE + b"Keep-Alive: X-Stop\r\n" * 3 + b"Proxy-Connection: X-Stop\r\n" * 3,
    "thirty names": b"Connection: close, %b\r\n" % b", ".join(b"X-%d" % n for n in range(30))
    + b"".join(b"X-%d: X-Stop\r\n" % n for n in range(30)),
}


@live
async def test_they_never_reach_the_backend(tmp_path: Path) -> None:
    origin, faults = Origin(takes), {}
    async with running(tmp_path, origin) as proxy:
        for name, lines in STOPS.items():
            got = await proxy.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n" + lines + b"X-B: 2\r\n\r\n")
            head = origin.heads[-1]
            kept = [line for line in lines_of(head) if line.startswith((b"X-A", b"X-B"))]
            gone = b"x-stop" not in head.lower() and not names_of(head) & {b"keep-alive", b"proxy-connection"}
            if statuses_of(got) != [200] or kept != [b"X-A: 1", b"X-B: 2"] or not gone:
                faults[name] = f"got {got[:40]!r}, and the backend {head!r}"
    expect_none(faults)


@live
async def test_they_never_reach_the_client(tmp_path: Path) -> None:
    faults, lines = {}, b""

    async def answer(*args: object) -> None:
        await says(b"HTTP/1.1 200 OK\r\nX-A: 1\r\n" + lines + b"X-B: 2\r\nContent-Length: 0\r\n\r\n")(*args)  # type: ignore[arg-type]

    async with running(tmp_path, Origin(answer)) as proxy:
        for name, lines in STOPS.items():  # noqa: B007 -- the answer reads it
            got = await proxy.get()
            kept = [line for line in lines_of(got) if line.startswith((b"X-A", b"X-B"))]
            gone = b"x-stop" not in got.lower() and not names_of(got) & {b"keep-alive", b"proxy-connection"}
            if statuses_of(got) != [200] or kept != [b"X-A: 1", b"X-B: 2"] or not gone:
                faults[name] = f"got {got!r}"
    expect_none(faults)


@live
async def test_interim_answers_lose_them_too(tmp_path: Path) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nConnection: X-Stop\r\nX-Stop: 1\r\nKeep-Alive: 1\r\nLink: </a>\r\n\r\n"
    async with running(tmp_path, Origin(says(hints, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))) as proxy:
        got = await proxy.get()
    assert statuses_of(got) == [103, 200]
    assert b"Link: </a>\r\n" in got
    assert names_of(got) & {b"x-stop", b"keep-alive", b"connection"} == set()


@pytest.mark.parametrize("te", [b"trailers", b"gzip, trailers", b"gzip;q=0.5, deflate", b"", b"TRAILERS;q=1"])
@live
async def test_te_stops_here_or_is_made_anew_as_trailers(tmp_path: Path, te: bytes) -> None:
    """RFC 9110 10.1.4: whoever sends TE names it in Connection."""
    origin = Origin(takes)
    async with running(tmp_path, origin) as proxy:
        await proxy.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, TE\r\nTE: " + te + b"\r\n\r\n")
    if sent := fields_of(origin.heads[0], b"te"):
        assert sent == [b"trailers"]
        assert b"te" in options_of(origin.heads[0])
        assert b"trailers" in te.lower()
    else:
        assert b"te" not in options_of(origin.heads[0])


@live
async def test_a_backend_sees_no_connection_option_but_ours(tmp_path: Path) -> None:
    origin = Origin(takes)
    async with running(tmp_path, origin) as proxy:
        for option in (b"close", b"keep-alive, close", b"close, x", b"Close", b"close, Upgrade"):
            await proxy.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: " + option + b"\r\n\r\n")
        assert origin.connections == 1, "the client's close is not the backend's"
    assert [options_of(head) - set(OURS) for head in origin.heads] == [set()] * 5


@live
async def test_what_this_proxy_sets_is_added_after_the_removal(tmp_path: Path) -> None:
    origin = Origin(takes)
    async with running(tmp_path, origin, more="name: mine") as proxy:
        for name in (b"X-Forwarded-For", b"X-Forwarded-Proto", b"X-Forwarded-Host", b"Via", b"Forwarded", b"Date"):
            got = await proxy.send(GET + b"Connection: close, " + name + b"\r\n" + name + b": 192.0.2.1\r\n\r\n")
            assert statuses_of(got) == [200], name
    for head in origin.heads:
        assert fields_of(head, b"x-forwarded-for") == [b"127.0.0.1"]
        assert fields_of(head, b"x-forwarded-proto") == [b"http"]
        assert fields_of(head, b"x-forwarded-host") == [b"a"]
        assert fields_of(head, b"via") == [b"1.1 mine"]
        assert b"192.0.2.1" not in head


@live
async def test_an_answers_date_is_added_after_the_removal(tmp_path: Path) -> None:
    old = b"Thu, 01 Jan 1970 00:00:00 GMT"
    answer = b"HTTP/1.1 200 OK\r\nConnection: Date\r\nDate: %b\r\nContent-Length: 0\r\n\r\n" % old
    async with running(tmp_path, Origin(says(answer))) as proxy:
        got = await proxy.get()
    assert len(fields_of(got, b"date")) == 1
    assert fields_of(got, b"date") != [old]


NAMED = {
    f"Connection: {value.decode()}": bad(GET + lines + b"Connection: " + value + b"\r\n\r\n")
    for value, lines in {
        b"Host": b"",
        b"close, host": b"",
        b"Content-Length": b"Content-Length: 0\r\n",
        b"content-length, close": b"",
        b"Transfer-Encoding": b"Transfer-Encoding: chunked\r\n",
        b"close,TRANSFER-ENCODING": b"",
        b"Cookie": b"Cookie: a=b\r\n",
        b"keep-alive , cookie": b"",
        b"Authorization": b"Authorization: Basic x\r\n",
        b",,\tAuthorization\t,": b"",
    }.items()
}


@live
async def test_a_connection_that_names_what_a_request_is_made_of_is_refused(tmp_path: Path) -> None:
    cases: dict[str, Bad] = {
        **NAMED,
        "in the second Connection": bad(GET + b"Connection: close\r\nX: y\r\nconnection: Host\r\n\r\n"),
        "with a body": bad(POST + b"Connection: Content-Length\r\nContent-Length: 3\r\n\r\nabc"),
    }
    origin = Origin(takes)
    async with running(tmp_path, origin) as proxy:
        expect_none(await faults_of_refusals(proxy, origin, cases))


@live
async def test_an_answers_connection_cannot_take_its_framing_away(tmp_path: Path) -> None:
    answers = [
        b"HTTP/1.1 200 OK\r\nConnection: Content-Length\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ]
    for answer in answers:
        async with running(tmp_path, Origin(says(answer))) as proxy:
            got = await proxy.get()
        if statuses_of(got) != [502]:
            assert statuses_of(got) == [200]
            assert fields_of(got, b"content-length") == [b"2"] or b"\r\n2\r\nok\r\n0\r\n\r\n" in got


@live
async def test_trace_is_answered_405_and_says_what_is_allowed(tmp_path: Path) -> None:
    """RFC 9110 15.5.6: with Allow. Nobody reads cookies by it."""
    origin = Origin(takes)
    async with running(tmp_path, origin) as proxy:
        for lines in (b"", b"Max-Forwards: 0\r\n", b"Max-Forwards: 5\r\n", b"Cookie: secret\r\n"):
            got = await proxy.send(b"TRACE / HTTP/1.1\r\nHost: a\r\n" + CLOSE + lines + b"\r\n")
            assert not fault_of_answer(got, [405])
            assert b"GET" in b"".join(fields_of(got, b"allow"))
            assert b"TRACE" not in b"".join(fields_of(got, b"allow"))
            assert b"secret" not in got
    assert origin.received == b""


@pytest.mark.parametrize(
    ("head", "closes"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nProxy-Connection: close\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: close\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: CLOSE\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\nConnection: close\r\n", True),
        (b"GET / HTTP/1.0\r\nHost: a\r\n", True),
        (b"GET / HTTP/1.0\r\nHost: a\r\nProxy-Connection: keep-alive\r\n", True),
        (b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive, close\r\n", True),
        (b"GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n", False),
    ],
)
@live
async def test_a_connection_lasts_as_long_as_was_agreed(tmp_path: Path, head: bytes, closes: bool) -> None:
    """RFC 9112 9.3. What the backend says of its own connection counts for nothing here."""
    origin = Origin(says(b"HTTP/1.1 200 OK\r\nConnection: %b\r\nContent-Length: 0\r\n\r\n" % b"keep-alive"))
    async with running(tmp_path, origin) as proxy:
        got = await proxy.send(head + b"\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert statuses_of(got) == ([200] if closes else [200, 200])
    first = got.partition(b"\r\n\r\n")[0]
    if b"HTTP/1.0" in head:  # where closing is what happens when nothing is said
        assert (b"keep-alive" in options_of(first)) != closes
    else:
        assert (b"close" in options_of(first)) == closes


@live
async def test_a_backends_close_is_not_the_clients(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    origin = Origin(says(answer))
    async with running(tmp_path, origin) as proxy:
        got = await proxy.send(
            b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
    assert statuses_of(got) == [200, 200]
    assert b"close" not in options_of(got.partition(b"\r\n\r\n")[0])
    assert origin.connections == 2


@live
async def test_an_upgrade_that_is_not_for_us_stays_here(tmp_path: Path) -> None:
    """h2c never, and whatever it is, only with Connection: Upgrade."""
    origin = Origin(named)
    async with running(tmp_path, origin) as proxy:
        for lines in (
            b"Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
            b"Connection: close\r\nUpgrade: websocket\r\n",
            b"Connection: close, Upgrade\r\nUpgrade: TLS/1.0\r\n",
        ):
            got = await proxy.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n")
            assert statuses_of(got) == [200]
    for head in origin.heads:
        assert names_of(head) & {b"upgrade", b"http2-settings"} == set()
