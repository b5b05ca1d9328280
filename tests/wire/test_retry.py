"""What is asked a second time, of whom, and what never is.

One rule (RFC 9110 9.2.2, RFC 9112 9.3.1): a request that may have been begun is repeated only if that does no harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from pathlib import Path

import pytest

from tests.wire.harness import (
    PATIENCE_S,
    Answer,
    Origin,
    Running,
    abort,
    body_back,
    dechunk,
    fields_of,
    free_port,
    length_of,
    live,
    named,
    one_answer,
    running,
    says,
    status_of,
    stuck_port,
)

pytestmark = pytest.mark.unit

IDEMPOTENT = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]
"""RFC 9110 9.2.2; TRACE is refused."""


def request(method: str, target: str = "/", body: bytes | None = None) -> bytes:
    lines = f"{method} {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    if body is not None:
        lines += f"Content-Length: {len(body)}\r\n"
    return lines.encode() + b"\r\n" + (body or b"")


def hangs_up(when: bytes, *, reset: bool = False) -> Answer:
    """An answer, except to heads with `when` in them: to those the end of the connection."""

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if when not in head:
            await named(origin, head, reader, writer)
            return
        if reset:
            abort(writer)
        raise EOFError

    return answer


def stale_at(target: bytes, *, reset: bool = False) -> Answer:
    """Close once, when `target` comes over a connection that was used before: the race of keep-alive."""
    used: set[object] = set()
    done: list[bool] = []

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        if target in head and peer in used and not done:
            done.append(True)
            if reset:
                abort(writer)
            raise EOFError
        used.add(peer)
        if head.startswith(b"HEAD"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
        else:
            await named(origin, head, reader, writer)

    return answer


@pytest.mark.parametrize("reset", [False, True], ids=["end", "reset"])
@pytest.mark.parametrize("method", IDEMPOTENT)
@live
async def test_a_stale_connection_is_replaced_by_a_fresh_one_to_the_same_backend(
    tmp_path: Path, method: str, reset: bool
) -> None:
    origin = Origin(stale_at(b" /second ", reset=reset))
    async with running(tmp_path, origin) as proxy:
        assert status_of(await proxy.get("/first")) == 200
        assert status_of(await proxy.talk(request(method, "/second"))) == 200
    assert [head.split(b" ")[1] for head in origin.heads] == [b"/first", b"/second", b"/second"]
    assert origin.connections == 2


@live
async def test_a_stale_connection_does_not_lead_to_another_backend(tmp_path: Path) -> None:
    """Nothing is wrong with the backend: who is meant to answer (say, by a session) answers."""
    first, second = Origin(stale_at(b" /again "), "first"), Origin(stale_at(b" /again "), "second")
    async with running(tmp_path, first, second) as proxy:
        for _ in range(2):
            assert status_of(await proxy.get("/")) == 200
        got = await proxy.get("/again")
    asked = first if any(b" /again " in head for head in first.heads) else second
    other = second if asked is first else first
    assert got.endswith(asked.name.encode())
    assert len([head for head in asked.heads if b" /again " in head]) == 2
    assert not [head for head in other.heads if b" /again " in head]


@live
async def test_many_stale_connections_cost_a_get_only_one_more_try(tmp_path: Path) -> None:
    """The second try is on a fresh connection, not on the next stale one."""
    count, gate = 20, asyncio.Event()
    used: set[object] = set()

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        if b" /late " in head and peer in used:
            raise EOFError
        used.add(peer)
        if b" /early " in head:
            await gate.wait()
        await named(origin, head, reader, writer)

    origin = Origin(answer)
    async with running(tmp_path, origin) as proxy:
        async with asyncio.TaskGroup() as group:
            early = [group.create_task(proxy.get("/early")) for _ in range(count)]
            await proxy.until(lambda: len(origin.heads) == count)
            gate.set()
        assert {status_of(task.result()) for task in early} == {200}
        assert status_of(await proxy.get("/late")) == 200
    assert len([head for head in origin.heads if b" /late " in head]) == 2


@pytest.mark.parametrize("reset", [False, True], ids=["end", "reset"])
@pytest.mark.parametrize("method", ["POST", "PATCH", "LOCK"])
@live
async def test_what_is_not_idempotent_is_never_sent_twice(tmp_path: Path, method: str, reset: bool) -> None:
    first, second = (Origin(hangs_up(b" /second ", reset=reset), name) for name in ("one", "two"))
    async with running(tmp_path, first, second) as proxy:
        for _ in range(4):
            assert status_of(await proxy.get("/first")) == 200
        assert status_of(await proxy.talk(request(method, "/second", b"once"))) == 502
        assert status_of(await proxy.talk(request(method, "/second"))) == 502
    assert len([head for head in first.heads + second.heads if b" /second " in head]) == 2


@live
async def test_a_connection_that_the_backend_closed_while_idle_is_not_used_for_a_post(tmp_path: Path) -> None:
    """The end of it was there to be seen, so that nothing was sent and nothing is lost."""

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"POST"):
            await body_back(origin, head, reader, writer)
        else:
            await named(origin, head, reader, writer)
        await writer.drain()
        raise EOFError

    origin = Origin(answer)
    async with running(tmp_path, origin) as proxy:
        for _ in range(30):
            assert status_of(await proxy.get("/")) == 200
            await asyncio.sleep(0.003)
            assert (await proxy.talk(request("POST", "/", b"body"))).endswith(b"\r\n\r\nbody")
            await asyncio.sleep(0.003)
    assert len(origin.heads) == 60


@pytest.mark.parametrize("reset", [False, True], ids=["end", "reset"])
@pytest.mark.parametrize("method", IDEMPOTENT)
@live
async def test_what_is_idempotent_goes_to_another_backend_if_no_byte_came(
    tmp_path: Path, method: str, reset: bool
) -> None:
    bad = Origin(hangs_up(b"", reset=reset))
    good = Origin(says(b"HTTP/1.1 204 No Content\r\n\r\n"))
    async with running(tmp_path, bad, good) as proxy:
        for _ in range(4):
            assert status_of(await proxy.talk(request(method))) == 204
    assert len(good.heads) == 4
    assert len(bad.heads) <= 4


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("pause_s", [0.0, 0.03], ids=["at once", "in pieces"])
@pytest.mark.parametrize("size", [10, 1_000_000])
@live
async def test_a_body_that_is_sent_again_is_whole(tmp_path: Path, size: int, pause_s: float, framing: str) -> None:
    """A PUT may be repeated. Its body goes again from its first byte, or the answer is 502: a long one is not kept."""
    body, whole = random.Random(size).randbytes(size), list[bytes]()  # noqa: S311 -- any bytes do

    async def hang_up_later(
        origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await asyncio.sleep(pause_s / 2)
        abort(writer)
        raise EOFError

    async def keep(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if fields_of(head, b"content-length"):
            whole.append(await reader.readexactly(length_of(head)))
        else:
            whole.append(await dechunk(reader))
        await named(origin, head, reader, writer)

    def framed(piece: bytes) -> bytes:
        return piece if framing == "length" else b"%x\r\n%b\r\n" % (len(piece), piece)

    first, second = Origin(hang_up_later), Origin(keep)
    statuses = Counter[int]()
    async with running(tmp_path, first, second) as proxy:
        for _ in range(4):
            reader, writer = await proxy.connect()
            field = b"Content-Length: %d" % size if framing == "length" else b"Transfer-Encoding: chunked"
            writer.write(b"PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + field + b"\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                for at in range(4):
                    writer.write(framed(body[at * size // 4 : (at + 1) * size // 4]))
                    await asyncio.sleep(pause_s)
                writer.write(b"" if framing == "length" else b"0\r\n\r\n")
            async with asyncio.timeout(PATIENCE_S):
                statuses[status_of((await one_answer(reader))[0])] += 1
            writer.close()
    assert statuses == ({200: 4} if size == 10 else {200: statuses[200], 502: 4 - statuses[200]})
    assert statuses[200] >= 2
    assert whole == [body] * statuses[200]


@live
async def test_no_backend_is_asked_twice_in_vain(tmp_path: Path) -> None:
    origins = [Origin(hangs_up(b"")) for _ in range(5)]
    async with running(tmp_path, *origins) as proxy:
        assert status_of(await proxy.get()) == 502
    assert 2 <= sum(len(origin.heads) for origin in origins) <= 5
    assert max(len(origin.heads) for origin in origins) == 1


@pytest.mark.parametrize(
    "begun",
    [b"H", b"HTTP/1.1 200 O", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 103 Early Hints\r\n\r\n", b"rubbish\r\n\r\n"],
)
@live
async def test_an_answer_that_has_begun_is_not_asked_for_again(tmp_path: Path, begun: bytes) -> None:
    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begun)
        await writer.drain()
        await asyncio.sleep(0.02)
        raise EOFError

    first, second = Origin(answer), Origin(answer)
    async with running(tmp_path, first, second) as proxy:
        got = await proxy.get()
    assert b"HTTP/1.1 502 " in got
    assert got.count(b"HTTP/1.1 502 ") == 1
    assert len(first.heads) + len(second.heads) == 1


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", [5, 1_000_000])
@live
async def test_a_body_goes_to_another_backend_whole_when_one_refuses_the_connection(
    tmp_path: Path, size: int, framing: str
) -> None:
    origin, body = Origin(body_back), random.Random(size).randbytes(size)  # noqa: S311 -- any bytes do
    if framing == "length":
        sent = b"Content-Length: %d\r\n\r\n%b" % (size, body)
    else:
        pieces = [body[at : at + 50_000] for at in range(0, size, 50_000)]
        sent = b"Transfer-Encoding: chunked\r\n\r\n"
        sent += b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    async with running(tmp_path, free_port(), free_port(), origin, free_port()) as proxy:
        for _ in range(4):
            got = await proxy.talk(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + sent)
            assert status_of(got) == 200
            assert got.endswith(b"\r\n\r\n" + body)
    assert len(origin.heads) == 4


@live
async def test_a_backend_that_accepts_no_connection_in_time_is_passed_over(tmp_path: Path) -> None:
    origin = Origin(body_back)
    async with running(tmp_path, stuck_port(), origin, upstream="    timeouts: {connect: 150ms}") as proxy:
        for _ in range(2):
            assert (await proxy.talk(request("POST", "/", b"body"))).endswith(b"\r\n\r\nbody")
    assert len(origin.heads) == 2


class Racing:
    """A backend that closes connections as clients would hate it: after `most` answers, or `idle_s` of quiet."""

    def __init__(self, *, most: int = 1 << 30, idle_s: float = PATIENCE_S) -> None:
        self.most, self.idle_s = most, idle_s
        self.answered: Counter[object] = Counter()
        self.closed = 0

    async def answer(
        self, origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        peer = writer.get_extra_info("peername")
        await named(origin, head, reader, writer)
        self.answered[peer] += 1
        if self.answered[peer] >= self.most:
            await writer.drain()
            self.closed += 1
            raise EOFError
        if self.idle_s < PATIENCE_S:
            until = asyncio.get_running_loop().time() + self.idle_s
            while not reader._buffer and not reader.at_eof():  # type: ignore[attr-defined]
                if asyncio.get_running_loop().time() >= until:
                    self.closed += 1
                    raise EOFError
                await asyncio.sleep(0.001)


async def get_often(proxy: Running, times: int, pause: tuple[float, float], seen: Counter[int]) -> None:
    """GETs over one kept-alive connection, with pauses between."""
    reader, writer = await proxy.connect()
    chance = random.Random(times)  # noqa: S311 -- pauses
    for _ in range(times):
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        head, _ = await one_answer(reader)
        seen[status_of(head)] += 1
        if fields_of(head, b"connection") == [b"close"]:
            writer.close()
            reader, writer = await proxy.connect()
        if pause[1]:
            await asyncio.sleep(chance.uniform(*pause))
    writer.close()


@pytest.mark.parametrize("most", [1, 2, 7])
@live
async def test_a_backend_that_closes_after_a_few_answers_costs_no_get(tmp_path: Path, most: int) -> None:
    racing, seen = Racing(most=most), Counter[int]()
    async with running(tmp_path, Origin(racing.answer)) as proxy, asyncio.TaskGroup() as group:
        for _ in range(16):
            group.create_task(get_often(proxy, 150, (0, 0), seen))
    assert seen == {200: 2400}
    assert racing.closed >= 2400 // most - 16


@live
async def test_a_backend_that_closes_idle_connections_just_then_costs_no_get(tmp_path: Path) -> None:
    racing, seen = Racing(idle_s=0.05), Counter[int]()
    async with running(tmp_path, Origin(racing.answer)) as proxy, asyncio.TaskGroup() as group:
        for _ in range(60):
            group.create_task(get_often(proxy, 40, (0.045, 0.055), seen))
    assert seen == {200: 2400}
    assert racing.closed > 20


@live
async def test_bytes_behind_an_answer_are_dropped_with_their_connection(tmp_path: Path) -> None:
    """RFC 9112 9.2: what nobody asked for must not become the answer to the next one."""
    smuggled = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled"
    for late in (False, True):

        async def answer(
            origin: Origin,
            head: bytes,
            reader: asyncio.StreamReader,
            writer: asyncio.StreamWriter,
            late: bool = late,
        ) -> None:
            if b" /1 " not in head:
                await named(origin, head, reader, writer)
                return
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none" + (b"" if late else smuggled))
            if late:
                await writer.drain()
                await asyncio.sleep(0.02)
                writer.write(smuggled)

        origin = Origin(answer)
        async with running(tmp_path, origin) as proxy:
            reader, writer = await proxy.connect()
            writer.write(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await one_answer(reader))[1] == b"one"
            if late:
                await asyncio.sleep(0.05)
            writer.write(b"GET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert (await one_answer(reader))[1] == b"origin"
            assert await reader.read() == b""
            writer.close()
        assert origin.connections == 2


class Authenticating:
    """A backend that authenticates connections, not requests (NTLM, RFC 4559). It notes who came over which."""

    def __init__(self, challenge: bytes) -> None:
        self._challenge = challenge
        self.by_connection: dict[object, list[bytes]] = {}
        self.ended: set[object] = set()

    async def answer(
        self, origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        peer = writer.get_extra_info("peername")
        who = fields_of(head, b"x-who")[0]
        self.by_connection.setdefault(peer, []).append(who)
        if self._challenge and len(self.by_connection[peer]) == 1:
            writer.write(b"HTTP/1.1 401 Unauthorized\r\n%bContent-Length: 0\r\n\r\n" % self._challenge)
        else:
            await named(origin, head, reader, writer)

    def connections_of(self, who: bytes) -> list[object]:
        return [peer for peer, came in self.by_connection.items() if who in came]


@pytest.mark.parametrize(
    ("challenge", "authorization"),
    [
        (b"WWW-Authenticate: NTLM\r\n", b"NTLM TlRMTVNTUAAB"),
        (b"WWW-Authenticate: Negotiate\r\n", b"Negotiate YIIJ"),
        (b"WWW-Authenticate: Basic realm=x\r\nwww-authenticate: negotiate\r\n", b"negotiate YIIJ"),
        (b'WWW-Authenticate: Basic realm="a, b", NTLM\r\n', b"ntlm TlRMTVNTUAAB"),
        (b"", b"NTLM TlRMTVNTUAAB"),
        (b"", b"Negotiate YIIJ"),
    ],
)
@live
async def test_a_connection_that_is_authenticated_is_its_clients_alone(
    tmp_path: Path, challenge: bytes, authorization: bytes
) -> None:
    def asks(who: bytes, *, authorized: bool) -> bytes:
        more = b"Authorization: %b\r\n" % authorization if authorized else b""
        return b"GET / HTTP/1.1\r\nHost: a\r\nX-Who: %b\r\n%b\r\n" % (who, more)

    authenticating = Authenticating(challenge)
    async with running(tmp_path, Origin(authenticating.answer), Origin(authenticating.answer)) as proxy:
        reader, writer = await proxy.connect()
        writer.write(asks(b"alice", authorized=not challenge))
        await one_answer(reader)
        others = []
        for index in range(4):
            other, to_other = await proxy.connect()
            to_other.write(asks(b"other%d" % index, authorized=False))
            await one_answer(other)
            others.append(to_other)
        for authorized in (True, False, True, False):  # the handshake, and what it was for
            writer.write(asks(b"alice", authorized=authorized))
            assert status_of((await one_answer(reader))[0]) == 200
        (alices,) = authenticating.connections_of(b"alice")
        assert set(authenticating.by_connection[alices]) == {b"alice"}
        writer.close()
        await proxy.until(lambda: proxy.server.proxy.connections == len(others))
        for to_other in others:
            to_other.close()
        for _ in range(4):
            mallory, to_mallory = await proxy.connect()
            to_mallory.write(asks(b"mallory", authorized=False))
            await one_answer(mallory)
            to_mallory.close()
        assert set(authenticating.by_connection[alices]) == {b"alice"}


@live
async def test_an_authenticated_connection_ends_with_its_client(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Negotiate\r\nContent-Length: 0\r\n\r\n")
        await reader.read()
        ended.set()
        raise EOFError

    async with running(tmp_path, Origin(answer)) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await one_answer(reader)
        writer.close()
        async with asyncio.timeout(1.0):
            await ended.wait()


@live
async def test_an_ordinary_challenge_does_not_bind_a_connection(tmp_path: Path) -> None:
    challenge = says(b'HTTP/1.1 401 U\r\nWWW-Authenticate: Basic realm="NTLM, Negotiate"\r\nContent-Length: 0\r\n\r\n')
    origin = Origin(challenge)
    async with running(tmp_path, origin) as proxy:
        for _ in range(3):
            assert status_of(await proxy.get()) == 401
    assert origin.connections == 1
