"""However a stream of bytes is cut into packets, it is read alike: the same answers, the same requests behind."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.wire.corpus import CHUNKED_3, CHUNKS, GOODS, HEADS, LENGTH_3, SMUGGLED
from tests.wire.harness import Message, Origin, live, running, statuses_of, takes
from tests.wire.test_response_framing import MENDED, NO_ANSWER
from tests.wire.verdicts import no_errors_logged

pytestmark = pytest.mark.unit

LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
MOST_BYTES = 2000
"""A stream longer than this is another test's: cut everywhere, it would take too long."""

STREAMS: dict[str, bytes] = {
    **{f"good: {name}": case.request + LAST for name, case in GOODS.items()},
    **{f"bad head: {name}": case.request + SMUGGLED for name, case in HEADS.items()},
    **{f"bad head behind a request: {name}": LENGTH_3 + case.request + SMUGGLED for name, case in HEADS.items()},
    **{f"bad chunks: {name}": case.request + SMUGGLED for name, case in CHUNKS.items()},
    **{f"bad chunks behind chunks: {name}": CHUNKED_3 + case.request + SMUGGLED for name, case in CHUNKS.items()},
}
STREAMS = {name: stream for name, stream in STREAMS.items() if len(stream) <= MOST_BYTES}
FRAME_S = 0.0004
"""Between two packets: enough for the loop to see them apart, mostly."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a stream: statuses, whether the connection ended, and the whole requests behind."""

    statuses: tuple[int, ...]
    closed: bool
    messages: tuple[Message, ...]
    smuggled: bool


class Client:
    """Blocking, for a thread beside the loop of the proxy; one exchange at a time."""

    def __init__(self, port: int, origin: Origin) -> None:
        self.port = port
        self.origin = origin

    def outcome(self, stream: bytes, cuts: list[int]) -> Outcome:
        """Send `stream` in packets that end at `cuts`, and read all there is."""
        count, size = len(self.origin.messages), len(self.origin.received)
        got, closed = self._ask(stream, cuts)
        received = bytes(self.origin.received[size:])
        return Outcome(tuple(statuses_of(got)), closed, tuple(self.origin.messages[count:]), b"/smuggled" in received)

    def answer(self, request: bytes) -> bytes:
        """All that comes for `request`."""
        return self._ask(request, [])[0]

    def _ask(self, stream: bytes, cuts: list[int]) -> tuple[bytes, bool]:
        """What came, and whether the connection ended."""
        got, closed = b"", False
        with socket.create_connection(("127.0.0.1", self.port), timeout=2.0) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(ConnectionError):
                for piece in pieces_of(stream, cuts):
                    connection.sendall(piece)
                    if cuts:
                        time.sleep(FRAME_S)
            try:
                while piece := connection.recv(65536):
                    got += piece
                closed = True
            except TimeoutError:
                pass
            except ConnectionError:
                closed = True
        return got, closed


def cuts_of(stream: bytes) -> st.SearchStrategy[list[int]]:
    """One to eight places, each as likely near the end of a line as anywhere."""
    ends = [at for at in range(1, len(stream)) if stream[at - 1 : at + 1].strip(b"\r\n") != stream[at - 1 : at + 1]]
    anywhere = st.integers(1, len(stream) - 1)
    place = st.one_of(anywhere, st.sampled_from(ends)) if ends else anywhere
    return st.lists(place, min_size=1, max_size=8, unique=True).map(sorted)


cases = st.sampled_from(sorted(STREAMS)).flatmap(lambda name: st.tuples(st.just(name), cuts_of(STREAMS[name])))


@live
async def test_any_split_of_a_stream_gives_the_same_outcome(tmp_path: Path) -> None:
    """The lot in one piece says what is right; other tests say that this is."""
    origin = Origin(takes)
    async with running(tmp_path, origin) as proxy:
        client, whole = Client(proxy.port, origin), dict[str, Outcome]()

        @given(cases)
        @settings(max_examples=400, database=None, phases=[Phase.generate, Phase.shrink])
        def check(case: tuple[str, list[int]]) -> None:
            name, cuts = case
            if name not in whole:
                whole[name] = client.outcome(STREAMS[name], [])
            assert client.outcome(STREAMS[name], cuts) == whole[name]
            assert whole[name].closed
            assert name.startswith("good") or not whole[name].smuggled

        with no_errors_logged():
            await asyncio.to_thread(check)  # it blocks, beside the loop that answers it


@live
async def test_octet_by_octet_is_the_same_as_at_once(tmp_path: Path) -> None:
    origin, names = Origin(takes), [name for name, stream in STREAMS.items() if len(stream) < 220]
    chosen = [name for name in names if name.startswith(("good", "bad chunks:"))][::3] + names[::29]
    async with running(tmp_path, origin) as proxy:
        client = Client(proxy.port, origin)

        def differing() -> dict[str, tuple[Outcome, Outcome]]:
            found = {}
            for name in chosen:
                stream = STREAMS[name]
                whole, cut = client.outcome(stream, []), client.outcome(stream, list(range(1, len(stream))))
                if whole != cut:
                    found[name] = whole, cut
            return found

        with no_errors_logged():
            assert await asyncio.to_thread(differing) == {}


@live
async def test_every_cut_of_a_few_streams_gives_the_same_outcome(tmp_path: Path) -> None:
    """At each place once, so that none is left to chance."""
    names = [
        "good: trailers",
        "bad head: length, then chunked",
        "bad chunks: bare LF in an extension",
        "good: three chunks",
    ]
    origin = Origin(takes)
    async with running(tmp_path, origin) as proxy:
        client = Client(proxy.port, origin)

        def differing() -> list[str]:
            found = []
            for name in names:
                stream = STREAMS[name]
                whole = client.outcome(stream, [])
                found += [
                    f"{name}: {stream[:at][-20:]!r} | {stream[at:][:20]!r}"
                    for at in range(1, len(stream))
                    if client.outcome(stream, [at]) != whole
                ]
            return found

        with no_errors_logged():
            assert await asyncio.to_thread(differing) == []


ANSWERS: dict[str, bytes] = {
    **{f"no answer: {name}": answer for name, answer in NO_ANSWER.items()},
    **{f"as it may be: {name}": answer for name, (answer, _) in MENDED.items() if name != "bare LF everywhere"},
    "a length": b"HTTP/1.1 200 OK\r\nX: 1\r\nContent-Length: 10\r\n\r\n0123456789",
    "no body": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "204": b"HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n",
    "304": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
    "trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\nX-U:\r\n\r\n",
    "hints": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "many cookies": b"HTTP/1.1 200 OK\r\n" + b"Set-Cookie: a=b\r\n" * 20 + b"Content-Length: 2\r\n\r\nok",
}
DATE = re.compile(rb"\r\nDate: [^\r]*")


def meaning_of(got: bytes) -> tuple[bytes, bytes, bytes]:
    """An answer's heads without their Date, its body without chunks, and what is left behind."""
    heads = b""
    while True:
        head, end, got = got.partition(b"\r\n\r\n")
        heads += DATE.sub(b"", head) + end
        if not head.startswith(b"HTTP/1.1 1"):
            break
    if b"transfer-encoding: chunked" not in head.lower():
        return heads, got, b""
    body = b""
    while (match := re.match(rb"([0-9a-fA-F]+)\r\n", got)) and int(match[1], 16):
        body += got[match.end() : match.end() + int(match[1], 16)]
        got = got[match.end() + int(match[1], 16) + 2 :]
    return heads, body, got


class Script:
    """An origin's answer in pieces, chosen by whoever asks next."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    async def answer(
        self, origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        for piece in self.pieces:
            if writer.transport.is_closing():  # it was heard enough of
                break
            writer.write(piece)
            await asyncio.sleep(FRAME_S)


answer_cases = st.sampled_from(sorted(ANSWERS)).flatmap(lambda name: st.tuples(st.just(name), cuts_of(ANSWERS[name])))


def pieces_of(stream: bytes, cuts: list[int]) -> list[bytes]:
    return [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


@live
async def test_any_split_of_an_answer_means_the_same(tmp_path: Path) -> None:
    script = Script()
    origin = Origin(script.answer)
    async with running(tmp_path, origin) as proxy:
        client, whole = Client(proxy.port, origin), dict[str, tuple[bytes, bytes, bytes]]()

        @given(answer_cases)
        @settings(max_examples=300, database=None, phases=[Phase.generate, Phase.shrink])
        def check(case: tuple[str, list[int]]) -> None:
            name, cuts = case
            if name not in whole:
                script.pieces = [ANSWERS[name]]
                whole[name] = meaning_of(client.answer(LAST))
            script.pieces = pieces_of(ANSWERS[name], cuts)
            assert meaning_of(client.answer(LAST)) == whole[name]

        with no_errors_logged():
            await asyncio.to_thread(check)


@live
async def test_whatever_a_backend_says_the_client_gets_an_answer_of_http(tmp_path: Path) -> None:
    """Answers with octets changed: 502 or 504, or what begins as an answer; never a 500, never silence."""
    script = Script()
    origin = Origin(script.answer)
    upstream = "    timeouts: {response: 100ms, idle: 100ms}"
    async with running(tmp_path, origin, upstream=upstream) as proxy:
        client = Client(proxy.port, origin)

        @given(st.sampled_from(sorted(ANSWERS)), st.binary(max_size=20), st.data())
        @settings(max_examples=100, database=None, phases=[Phase.generate])
        def check(name: str, rubbish: bytes, data: st.DataObject) -> None:
            answer = ANSWERS[name]
            at, over = data.draw(st.integers(0, len(answer))), data.draw(st.integers(0, 3))
            script.pieces = [answer[:at] + rubbish + answer[at + over :]]
            got = client.answer(LAST)
            assert re.match(rb"HTTP/1\.1 [1-9][0-9][0-9] ", got), got
            assert not got.startswith(b"HTTP/1.1 500")
            assert b"\x00" not in got.partition(b"\r\n\r\n")[0]

        with no_errors_logged():
            await asyncio.to_thread(check)
        script.pieces = [ANSWERS["a length"]]
        assert (await proxy.get()).endswith(b"0123456789")


@live
async def test_rubbish_is_never_a_500_and_never_heard_behind(tmp_path: Path) -> None:
    """Octets that are no request, and requests with octets changed: one refusal, or silence, or an honest answer."""
    origin, starts = Origin(takes), [LENGTH_3, CHUNKED_3, SMUGGLED, LAST]
    async with running(tmp_path, origin, more="timeouts: {head: 200ms, idle: 200ms, keepalive: 200ms}") as proxy:
        client = Client(proxy.port, origin)

        @given(st.binary(min_size=1, max_size=60), st.sampled_from(starts), st.data())
        @settings(max_examples=150, database=None, phases=[Phase.generate])
        def check(rubbish: bytes, request: bytes, data: st.DataObject) -> None:
            at = data.draw(st.integers(0, len(request)))
            over = data.draw(st.integers(0, 3))
            stream = data.draw(st.sampled_from([rubbish + b"\r\n\r\n", request[:at] + rubbish + request[at + over :]]))
            outcome = client.outcome(stream + b"\r\n\r\n" + LAST, [])
            assert outcome.closed
            assert not {500, 502, 503, 504} & set(outcome.statuses)

        with no_errors_logged():
            await asyncio.to_thread(check)
        assert statuses_of(await proxy.get()) == [200]
