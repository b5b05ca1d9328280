"""TLS on a listener: handshakes, records however they are cut, and what the end of a connection says.

One rule: whoever is told that an answer is whole (close_notify) has all of it, and who has not is never told so.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.wire.corpus import CHUNKED_3, CHUNKS, GOODS, HEADS, LENGTH_3
from tests.wire.harness import (
    PATIENCE_S,
    Logged,
    Origin,
    Running,
    body_back,
    fields_of,
    live,
    named,
    running,
    status_of,
    statuses_of,
    takes,
)
from tests.wire.sealed import CUT, RESET, SAID, Sealed, Tls, listens_with, make_certificate, trusting
from tests.wire.test_upgrade import ASK, Ends
from tests.wire.verdicts import faults_of_refusals, no_errors_logged

pytestmark = pytest.mark.unit

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
Pair = tuple[Path, Path]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@asynccontextmanager
async def over_tls(
    tmp_path: Path, pair: Pair, *origins: Origin, listener: str = "", access_log: str | bool = "false", more: str = ""
) -> AsyncIterator[Tls]:
    listener = listens_with(*pair) + listener
    async with running(tmp_path, *origins, listener=listener, access_log=access_log, more=more) as plain:
        yield Tls(plain, trusting(pair[0]))


def chosen(seed: int) -> random.Random:
    """The same each time."""
    return random.Random(seed)  # noqa: S311 -- no secret


async def beside(work: Callable[[Sealed], None], proxy: Tls, *, cut: int = 0) -> None:
    """Do what blocks with an open connection, in a thread."""

    def run() -> None:
        with Sealed(proxy.port, proxy.context) as client:
            work(client.open(cut))

    await asyncio.to_thread(run)


# the handshake


@live
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_request_over_tls_is_answered_and_forwarded_as_https(
    tmp_path: Path, pair: Pair, version: ssl.TLSVersion, capfd: pytest.CaptureFixture[str]
) -> None:
    origin = Origin(named)
    async with over_tls(tmp_path, pair, origin, access_log="json") as proxy:
        proxy.context = trusting(pair[0], version)
        proxy.context.set_alpn_protocols(["h2", "http/1.1"])

        def work(client: Sealed) -> None:
            client.say(LAST)
            got, ended = client.read()
            assert (status_of(got), ended) == (200, SAID)
            assert client.tls.version() == version.name.replace("_", ".")
            assert client.tls.selected_alpn_protocol() == "http/1.1"
            assert "GCM" in str(client.tls.cipher()) or "CHACHA20" in str(client.tls.cipher())

        await beside(work, proxy)
    assert fields_of(origin.heads[0], b"x-forwarded-proto") == [b"https"]
    assert '"scheme":"https"' in capfd.readouterr().out


@live
async def test_what_is_older_than_tls_1_2_or_weak_is_refused_and_logged_without_a_traceback(
    tmp_path: Path, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    weak = trusting(pair[0], ssl.TLSVersion.TLSv1_2)
    weak.set_ciphers("ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(pair[0])
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    async with over_tls(tmp_path, pair, Origin(named)) as proxy:

        def work(context: ssl.SSLContext) -> None:
            with Sealed(proxy.port, context) as client, pytest.raises(ssl.SSLError, match=r"(?i)alert"):
                client.open()

        for context in (weak, old):
            await asyncio.to_thread(work, context)
        assert statuses_of(await proxy.get()) == [200]
    failed = [record for record in caplog.records if record.message == "TLS handshake failed"]
    assert [record.__dict__["client"] for record in failed] == ["127.0.0.1"] * 2
    assert "no cipher that is offered" in failed[0].__dict__["reason"]
    assert "knows no TLS 1.2" in failed[1].__dict__["reason"]
    assert not any(record.exc_info for record in caplog.records)


@live
async def test_a_client_that_does_not_trust_the_certificate_is_told_of_in_the_log(
    tmp_path: Path, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    async with over_tls(tmp_path, pair, Origin(named)) as proxy:
        stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

        def work() -> None:
            with Sealed(proxy.port, stranger) as client:
                with pytest.raises(ssl.SSLCertVerificationError):
                    client.open()
                client.put(client.outgoing.read())

        await asyncio.to_thread(work)
        await proxy.until(lambda: any(record.message == "TLS handshake failed" for record in caplog.records))
    assert "does not trust the certificate" in str([record.__dict__.get("reason") for record in caplog.records])


@live
@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"delete /x", b"PRI * HTTP/2.0\r\n\r\n"])
async def test_plain_http_is_answered_in_plain_text_and_never_forwarded(
    tmp_path: Path, pair: Pair, start: bytes
) -> None:
    origin = Origin(named)
    async with running(tmp_path, origin, listener=listens_with(*pair)) as proxy:
        got = await proxy.talk(start)
    assert status_of(got) == 400
    assert b"https://" in got
    assert fields_of(got, b"connection") == [b"close"]
    assert not origin.heads


@live
@pytest.mark.parametrize(
    "rubbish", [b"\x00" * 40, b"\x16\x03\x01\xff\xff" + b"x" * 70_000, b"\x80\x2e\x01\x00\x02", b"\x16GET /", b"\r\n"]
)
async def test_rubbish_ends_the_connection_and_nothing_else(
    tmp_path: Path, pair: Pair, rubbish: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with over_tls(tmp_path, pair, Origin(named), more="timeouts: {head: 200ms}") as proxy:
        plain = Running(proxy.server, proxy.port, proxy.path)
        assert b"<OPEN>" not in await plain.send(rubbish)
        assert statuses_of(await proxy.get()) == [200]
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]
    assert len([record for record in caplog.records if record.message == "TLS handshake failed"]) == 1


@live
async def test_a_hello_without_end_is_bounded(tmp_path: Path, pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """Handshake messages that begin and go on in record after record."""
    async with over_tls(tmp_path, pair, Origin(named)) as proxy:
        plain = Running(proxy.server, proxy.port, proxy.path)
        record = b"\x16\x03\x01\x40\x00" + b"\x01\x01\x00\x00" + bytes(0x4000 - 4)
        more = b"\x16\x03\x01\x40\x00" + bytes(0x4000)
        assert b"<OPEN>" not in await plain.send(record + more * 20)
        assert statuses_of(await proxy.get()) == [200]
    assert any(record.message == "TLS handshake failed" for record in caplog.records)


@live
async def test_a_handshake_has_the_time_of_a_head_and_a_bare_connect_is_no_failure(
    tmp_path: Path, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    async with over_tls(tmp_path, pair, Origin(named), more="timeouts: {head: 200ms}") as proxy:

        def slow() -> float:
            with Sealed(proxy.port, proxy.context) as client:
                began = time.monotonic()
                client.put(client.hello()[:-1])
                client.socket.settimeout(PATIENCE_S)
                assert client.socket.recv(1) == b""
                return time.monotonic() - began

        assert 0.15 < await asyncio.to_thread(slow) < 2
        with socket.create_connection(("127.0.0.1", proxy.port)):
            pass
        with socket.create_connection(("127.0.0.1", proxy.port)) as silent:
            silent.settimeout(PATIENCE_S)
            assert await asyncio.to_thread(silent.recv, 1) == b""
        assert statuses_of(await proxy.get()) == [200]
    failed = [record for record in caplog.records if record.message == "TLS handshake failed"]
    assert ["not over after 0.2s" in record.__dict__["reason"] for record in failed] == [True]


@live
@pytest.mark.parametrize("cut", [1, 7, 100])
async def test_a_handshake_in_small_pieces_is_the_same(tmp_path: Path, pair: Pair, cut: int) -> None:
    async with over_tls(tmp_path, pair, Origin(named)) as proxy:

        def work(client: Sealed) -> None:
            client.put(client.seal(LAST), cut)
            got, ended = client.read()
            assert (status_of(got), ended) == (200, SAID)

        await beside(work, proxy, cut=cut)


@live
async def test_requests_that_come_with_the_handshakes_last_flight_are_answered(tmp_path: Path, pair: Pair) -> None:
    body = chosen(1).randbytes(200_000)
    request = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    async with over_tls(tmp_path, pair, Origin(body_back)) as proxy:

        def work() -> None:
            with Sealed(proxy.port, proxy.context) as client:
                client.put(client.shake() + client.seal(request))
                got, ended = client.read()
                assert got.endswith(body)
                assert ended == SAID

        await asyncio.to_thread(work)


@live
async def test_a_session_is_resumed(tmp_path: Path, pair: Pair) -> None:
    async with over_tls(tmp_path, pair, Origin(named)) as proxy:
        proxy.context = trusting(pair[0], ssl.TLSVersion.TLSv1_3)

        def work() -> None:
            with Sealed(proxy.port, proxy.context).open() as client:
                client.say(LAST)
                client.read()
                session = client.tls.session
            assert session is not None
            assert session.has_ticket
            with Sealed(proxy.port, proxy.context, session).open() as client:
                client.say(LAST)
                assert statuses_of(client.read()[0]) == [200]
                assert client.tls.session_reused

        await asyncio.to_thread(work)


@live
async def test_who_finds_no_room_is_not_answered_in_plain_text(tmp_path: Path, pair: Pair) -> None:
    async with over_tls(tmp_path, pair, Origin(named), more="limits: {connections: 1}") as proxy:

        def work(client: Sealed) -> None:
            with socket.create_connection(("127.0.0.1", proxy.port)) as second:
                second.settimeout(PATIENCE_S)
                assert second.recv(100) == b""
            client.say(LAST)
            assert statuses_of(client.read()[0]) == [200]

        await beside(work, proxy)


@live
async def test_a_proxy_header_stands_before_the_handshake(tmp_path: Path, pair: Pair) -> None:
    origin = Origin(named)
    trusting_us = ", proxy_protocol: true, trusted_proxies: 127.0.0.0/8"
    async with over_tls(tmp_path, pair, origin, listener=trusting_us) as proxy:

        def work() -> None:
            with Sealed(proxy.port, proxy.context) as client:
                client.put(b"PROXY TCP4 192.0.2.7 192.0.2.1 1000 443\r\n" + client.hello())
                client.open()
                client.say(LAST)
                assert statuses_of(client.read()[0]) == [200]

        await asyncio.to_thread(work)
    assert b"192.0.2.7" in origin.heads[0]


# records


@live
async def test_however_records_are_cut_the_answers_are_the_same(tmp_path: Path, pair: Pair) -> None:
    """Requests in records of any size, whose octets come in packets of any size."""
    origin, chance = Origin(takes), chosen(7)
    big = b"POST /big HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n" + chance.randbytes(50_000)
    head = b"GET /head HTTP/1.1\r\nHost: a\r\n" + b"X: %b\r\n" % (b"x" * 900) * 22 + b"\r\n"
    stream = LENGTH_3 + CHUNKED_3 + big + head + GET + LAST
    async with over_tls(tmp_path, pair, origin) as proxy:
        for size, cut in [(16384, 0), (1, 0), (16384, 16384), (17, 1000), (16384, 5), (3000, 4096), (333, 70_000)]:
            if cut == 5:
                text = LENGTH_3 + CHUNKED_3 + GET + LAST
            elif size == 1:
                text = LENGTH_3 + CHUNKED_3 + LAST
            else:
                text = stream
            origin.messages.clear()

            def work(client: Sealed, text: bytes = text, size: int = size, cut: int = cut) -> None:
                client.put(client.seal(text, size), cut)
                got, ended = client.read()
                assert set(statuses_of(got)) == {200}
                assert ended == SAID

            with no_errors_logged():
                await beside(work, proxy)
            assert b"".join(message.body for message in origin.messages).startswith(b"abcabc")
            assert len(origin.messages) == text.count(b" HTTP/1.1\r\n")
            if text is stream:
                assert big.endswith(origin.messages[2].body)
                assert len(origin.messages[2].body) == 50_000


@live
async def test_octet_by_octet_random_cuts_of_ciphertext(tmp_path: Path, pair: Pair) -> None:
    chance = chosen(11)
    stream = b"".join(case.request for case in list(GOODS.values())[:12]) + LAST
    origin = Origin(takes)
    async with over_tls(tmp_path, pair, origin) as proxy:
        whole: list[list[bytes]] = []
        for _ in range(12):
            origin.messages.clear()

            def work(client: Sealed) -> None:
                raw = client.seal(stream, chance.choice([50, 500, 16384]))
                places = sorted(chance.sample(range(1, len(raw)), 10))
                for start, end in zip([0, *places], [*places, len(raw)], strict=True):
                    client.put(raw[start:end])
                    time.sleep(0.0005)
                assert client.read()[1] == SAID

            await beside(work, proxy)
            whole.append([message.body for message in origin.messages])
        assert all(each == whole[0] for each in whole)
        assert len(whole[0]) >= 12


@live
async def test_the_corpus_of_bad_requests_is_refused_over_tls(tmp_path: Path, pair: Pair) -> None:
    origin = Origin(takes)
    async with over_tls(tmp_path, pair, origin) as proxy:
        heads = dict(list(HEADS.items())[::6])
        chunks = dict(list(CHUNKS.items())[::6])
        with no_errors_logged():
            assert await faults_of_refusals(proxy, origin, heads) == {}
            assert await faults_of_refusals(proxy, origin, chunks, heard=True) == {}


@live
async def test_large_bodies_pass_both_ways(tmp_path: Path, pair: Pair) -> None:
    body = chosen(3).randbytes(3_000_000)
    async with over_tls(tmp_path, pair, Origin(body_back)) as proxy:
        request = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)

        def work(client: Sealed) -> None:
            raw = client.seal(request + body)
            saying = threading.Thread(target=client.put, args=(raw,))
            saying.start()
            got, ended = client.read()
            saying.join()
            assert got.endswith(body)
            assert ended == SAID

        await beside(work, proxy)


@live
async def test_a_record_that_was_changed_on_its_way_ends_the_connection(
    tmp_path: Path, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    origin = Origin(takes)
    async with over_tls(tmp_path, pair, origin) as proxy:

        def work(client: Sealed) -> None:
            client.say(LENGTH_3)
            client.read(b"ok")
            raw = bytearray(client.seal(LENGTH_3))
            raw[-1] ^= 1
            client.put(bytes(raw))
            with pytest.raises(ssl.SSLError, match=r"(?i)bad record mac"):
                client.read()

        await beside(work, proxy)
    assert len(origin.messages) == 1
    assert "bad record mac" in str([record.__dict__.get("reason") for record in caplog.records])
    assert not any(record.exc_info for record in caplog.records)


@live
async def test_renegotiation_is_refused(tmp_path: Path, pair: Pair) -> None:
    async with over_tls(tmp_path, pair, Origin(named)) as proxy:
        process = await asyncio.create_subprocess_exec(
            *["openssl", "s_client", "-connect", f"127.0.0.1:{proxy.port}", "-tls1_2", "-CAfile", str(pair[0])],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            said = b""
            while b"Verify return code" not in said:
                said += await process.stdout.read(4096)
            process.stdin.write(b"R\n")
            process.stdin.write_eof()
            said += await process.stdout.read()
            await process.wait()
        assert b"no renegotiation" in said
        assert statuses_of(await proxy.get()) == [200]


@live
async def test_a_key_update_is_answered_and_requests_go_on(tmp_path: Path, pair: Pair) -> None:
    async with over_tls(tmp_path, pair, Origin(named)) as proxy:
        process = await asyncio.create_subprocess_exec(
            *["openssl", "s_client", "-connect", f"127.0.0.1:{proxy.port}", "-tls1_3", "-CAfile", str(pair[0]), "-msg"],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            said = b""
            while b"Verify return code" not in said:
                said += await process.stdout.read(4096)
            process.stdin.write(b"K\n")
            while b"KEYUPDATE" not in said:
                said += await process.stdout.read(4096)
            process.stdin.write(LAST)
            said += await process.stdout.read()
            await process.wait()
        assert re.search(rb"<<< TLS 1.3, Handshake \[length [0-9a-f]+\], KeyUpdate", said)
        assert b"HTTP/1.1 200 OK" in said


# how a connection ends


@live
async def test_every_orderly_end_is_said(tmp_path: Path, pair: Pair) -> None:
    async with over_tls(tmp_path, pair, Origin(named), more="timeouts: {keepalive: 200ms}") as proxy:

        def asked(request: bytes, status: int) -> Callable[[Sealed], None]:
            def work(client: Sealed) -> None:
                client.say(request)
                got, ended = client.read()
                assert (statuses_of(got), ended) == ([status], SAID)

            return work

        await beside(asked(LAST, 200), proxy)
        await beside(asked(GET, 200), proxy)  # its keep-alive time runs out
        await beside(asked(b"GET / HTTP/1.0\r\n\r\n", 200), proxy)
        await beside(asked(b"BAD\r\n\r\n", 400), proxy)
        await beside(asked(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 5\r\n\r\nabc", 400), proxy)


@live
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_an_answer_delimited_by_its_end_ends_with_a_word(tmp_path: Path, pair: Pair, version: bytes) -> None:
    async def until_close(
        origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000)
        raise EOFError

    async with over_tls(tmp_path, pair, Origin(until_close)) as proxy:

        def work(client: Sealed) -> None:
            client.say(LAST.replace(b"1.1", version))
            got, ended = client.read()
            assert got.count(b"x") >= 100_000
            assert ended == SAID

        await beside(work, proxy)


@live
@pytest.mark.parametrize("framing", [b"Content-Length: 1000\r\n", b"Transfer-Encoding: chunked\r\n"])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_an_answer_that_breaks_off_is_never_said_to_have_ended(
    tmp_path: Path, pair: Pair, framing: bytes, version: bytes
) -> None:
    async def breaks(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n" + b"5\r\nabcde\r\n")
        raise EOFError

    async with over_tls(tmp_path, pair, Origin(breaks)) as proxy:

        def work(client: Sealed) -> None:
            client.say(LAST.replace(b"1.1", version))
            got, ended = client.read()
            assert ended in {CUT, RESET}
            assert statuses_of(got) in ([200], [])

        await beside(work, proxy)


@live
async def test_a_client_that_says_its_end_has_its_answer_first(tmp_path: Path, pair: Pair) -> None:
    async def late(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.1)
        await named(origin, head, reader, writer)

    async with over_tls(tmp_path, pair, Origin(late)) as proxy:

        def both(client: Sealed) -> None:
            client.put(client.seal(GET) + client.notify())
            client.socket.shutdown(socket.SHUT_WR)
            got, ended = client.read()
            assert (statuses_of(got), ended) == ([200], SAID)

        def apart(client: Sealed) -> None:
            client.put(client.seal(GET))
            client.put(client.notify())
            got, ended = client.read()
            assert (statuses_of(got), ended) == ([200], SAID)

        def idle(client: Sealed) -> None:
            client.put(client.notify())
            assert client.read() == (b"", SAID)

        for work in (both, apart, idle):
            await beside(work, proxy)


@live
async def test_a_client_that_ends_within_a_body_is_gone(
    tmp_path: Path, pair: Pair, capfd: pytest.CaptureFixture[str]
) -> None:
    origin, logged = Origin(takes), Logged(capfd)
    start = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc"
    async with over_tls(tmp_path, pair, origin, access_log="json") as proxy:

        def said(client: Sealed) -> None:
            client.put(client.seal(start) + client.notify())
            assert client.read()[0] == b""

        def cut(client: Sealed) -> None:
            client.put(client.seal(start))

        def logged_are(count: int) -> bool:
            return len(logged.statuses()) == count

        for count, work in enumerate((said, cut), 1):
            await beside(work, proxy)
            await proxy.until(partial(logged_are, count))
        assert logged.statuses() == [499, 499]
        assert not origin.messages


# tunnels and flow control


@live
async def test_a_tunnel_passes_and_half_ends_both_ways(tmp_path: Path, pair: Pair) -> None:
    ends = Ends(early=b"early")
    async with over_tls(tmp_path, pair, Origin(ends.answer)) as proxy:
        opened, heard = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def work(client: Sealed) -> None:
            client.put(client.seal(ASK + b"first"))
            assert status_of(client.read(b"early")[0]) == 101
            client.put(client.seal(b"x" * 40_000) + client.notify())
            loop.call_soon_threadsafe(opened.set)
            got, ended = client.read()
            assert got.endswith(b"early" + b"y" * 100_000)
            assert ended == SAID

        async def behind() -> None:
            await opened.wait()
            assert await ends.reader.read(-1) == b"first" + b"x" * 40_000  # its end passes, and ours is still open
            ends.writer.write(b"y" * 100_000)
            await ends.writer.drain()
            ends.over.set()
            heard.set()

        await asyncio.gather(beside(work, proxy), behind())
        assert heard.is_set()


@live
async def test_a_backend_may_end_a_tunnel_first(tmp_path: Path, pair: Pair) -> None:
    ends = Ends()
    async with over_tls(tmp_path, pair, Origin(ends.answer)) as proxy:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()

        def work(client: Sealed) -> None:
            client.say(ASK)
            client.read(b"\r\n\r\n")
            loop.call_soon_threadsafe(ended.set)
            assert client.read()[1] == SAID
            client.say(b"still said")
            client.put(client.notify())

        async def behind() -> None:
            await ended.wait()
            ends.writer.write_eof()
            assert await ends.reader.read(-1) == b"still said"
            ends.over.set()

        await asyncio.gather(beside(work, proxy), behind())


@live
async def test_a_tunnel_that_is_cut_does_not_half_end(tmp_path: Path, pair: Pair) -> None:
    ends = Ends()
    async with over_tls(tmp_path, pair, Origin(ends.answer)) as proxy:

        def work(client: Sealed) -> None:
            client.say(ASK)
            client.read(b"\r\n\r\n")
            client.say(b"half of it")
            time.sleep(0.05)

        await beside(work, proxy)
        assert await ends.reader.read(-1) == b"half of it"
        while not ends.writer.transport.is_closing():  # nobody hears what the backend goes on to say
            ends.writer.write(b"x")
            await asyncio.sleep(0.01)
        ends.over.set()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@live
async def test_a_client_that_does_not_read_stops_the_backend(tmp_path: Path, pair: Pair) -> None:
    total, sent = 200_000_000, 0

    async def pours(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        piece = bytes(100_000)
        while sent < total:
            writer.write(piece)
            sent += len(piece)
            await writer.drain()

    async with over_tls(tmp_path, pair, Origin(pours)) as proxy:

        def stall(client: Sealed) -> None:
            client.say(GET)
            client.read(b"\r\n\r\n")
            before, was = resident_bytes(), -1
            while was != sent:
                was = sent
                time.sleep(0.3)
            assert sent < 30_000_000
            assert resident_bytes() - before < 10_000_000
            got = len(client.received)
            client.received = b""
            client.socket.settimeout(5)
            for _ in range(300):  # and it goes on when the client does
                client.incoming.write(client.socket.recv(1 << 17))
                try:
                    while True:
                        got += len(client.tls.read(65536))
                except ssl.SSLWantReadError:
                    pass
            assert got > 2_000_000
            assert sent > was

        await beside(stall, proxy)


@live
async def test_a_backend_that_does_not_read_stops_the_client(tmp_path: Path, pair: Pair) -> None:
    release = asyncio.Event()

    async def stalls(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await release.wait()
        reader._transport.resume_reading()  # type: ignore[attr-defined]
        await body_taken(reader)
        await named(origin, head, reader, writer)

    size = 60_000_000

    async def body_taken(reader: asyncio.StreamReader) -> None:
        left = size
        while left:
            left -= len(await reader.read(1 << 20))

    async with over_tls(tmp_path, pair, Origin(stalls)) as proxy:
        before, loop = resident_bytes(), asyncio.get_running_loop()

        def work(client: Sealed) -> None:
            raw = client.seal(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
            client.put(raw)
            client.socket.settimeout(0.5)
            left, piece = size, bytes(1 << 16)
            raw = b""
            try:
                while left:
                    raw = raw or client.seal(piece[: min(left, len(piece))])
                    count = client.socket.send(raw)
                    raw = raw[count:]
                    if not raw:
                        left -= min(left, len(piece))
            except TimeoutError:
                pass
            assert left > size / 3
            assert resident_bytes() - before < 30_000_000
            loop.call_soon_threadsafe(release.set)
            client.socket.settimeout(5)
            while left:
                raw = raw or client.seal(piece[: min(left, len(piece))])
                client.socket.sendall(raw)
                raw = b""
                left -= min(left, len(piece))
            assert statuses_of(client.read(b"origin")[0]) == [200]

        await beside(work, proxy)
