"""The dns probe against dnsmasq, and against peers that lie, flood, are silent or refuse."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.kit.checks.dns import DnsCheckSection, DnsProbe
from director.kit.health import ProbeResult
from director.kit.probes.dns import MOST_ANSWER_BYTES, MOST_RECORDS, DnsDialogue, judge_packet, make_question
from director.kit.probes.run import run_check
from tests.director.kit.probes.datagrams import Answer, check_on, free_port, serving
from tests.director.kit.probes.network import BLACK_HOLE, Beside

pytestmark = pytest.mark.unit

NAME = "www.example.test."
ZONE = (
    "--host-record=www.example.test,192.0.2.1,2001:db8::1",
    "--host-record=www.example.test,192.0.2.2",
    "--mx-host=example.test,mail.example.test,10",
    "--txt-record=example.test,hello there",
    "--cname=alias.example.test,www.example.test",
    "--local=/example.test/",
)


@pytest.fixture(scope="module")
def dnsmasq() -> Iterator[int]:
    """The port of a real DNS server, over UDP and TCP."""
    program = shutil.which("dnsmasq", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    assert program is not None, "make packages installs dnsmasq-base"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
    command = (
        program,
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--pid-file=",
        "--user=root",
        f"--port={port}",
        "--listen-address=127.0.0.1",
        "--bind-interfaces",
        *ZONE,
    )
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            deadline_at = time.monotonic() + 10
            while time.monotonic() < deadline_at:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                assert server.poll() is None
            yield port
        finally:
            server.terminate()


def _section(**keys: object) -> DnsProbe:
    return DnsCheckSection.model_validate({"type": "dns", "name": NAME, **keys}).probe()


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize(
    ("keys", "ok", "reason"),
    [
        ({}, True, "NOERROR, 192.0.2.1, 192.0.2.2 A"),
        ({"record": "aaaa"}, True, "NOERROR, 2001:db8::1 AAAA"),
        ({"name": "alias.example.test"}, True, "NOERROR, 192.0.2.1, 192.0.2.2 A"),
        ({"name": "WWW.Example.Test"}, True, "NOERROR, 192.0.2.1, 192.0.2.2 A"),
        ({"recursion": False}, True, "NOERROR, 192.0.2.1, 192.0.2.2 A"),
        ({"expect": {"answer": "192.0.2.2"}}, True, "NOERROR, 192.0.2.1, 192.0.2.2 A"),
        ({"expect": {"answer": ["192.0.2.9", "192.0.2.1"]}}, True, "NOERROR, 192.0.2.1, 192.0.2.2 A"),
        (
            {"expect": {"answer": ["192.0.2.9", "192.0.2.1"], "match": "all"}},
            False,
            "NOERROR, 192.0.2.1, 192.0.2.2 A, expected all of 192.0.2.1, 192.0.2.9",
        ),
        ({"expect": {"answer": "192.0.2.9"}}, False, "NOERROR, 192.0.2.1, 192.0.2.2 A, expected 192.0.2.9"),
        (
            {"name": "example.test", "record": "MX", "expect": {"answer": "10 MAIL.example.test"}},
            True,
            "NOERROR, 10 mail.example.test. MX",
        ),
        (
            {"name": "example.test", "record": "TXT", "expect": {"answer": '"hello there"'}},
            True,
            'NOERROR, "hello there" TXT',
        ),
        ({"name": "no.example.test"}, False, "NXDOMAIN, expected NOERROR"),
        ({"name": "no.example.test", "expect": {"rcode": ["NXDOMAIN"]}}, True, "NXDOMAIN"),
        ({"name": "example.test", "record": "AAAA"}, False, "NOERROR, but no AAAA record of example.test."),
        ({"name": "example.test", "record": "AAAA", "expect": {"rcode": "NOERROR"}}, True, "NOERROR"),
        ({"name": "elsewhere.example"}, False, "REFUSED, expected NOERROR"),
    ],
)
def test_real_server(dnsmasq: int, transport: str, keys: dict[str, object], ok: bool, reason: str) -> None:
    probe = _section(**{"transport": transport, **keys})
    result = asyncio.run(run_check(check_on(dnsmasq, probe)))
    assert (result.ok, result.reason) == (ok, reason)


def test_both_loops(dnsmasq: int, runner: asyncio.Runner) -> None:
    assert runner.run(run_check(check_on(dnsmasq, DnsProbe(NAME)))).ok
    assert runner.run(run_check(check_on(dnsmasq, DnsProbe(NAME, tcp=True)))).ok


def _ask(answer: Answer, probe: DnsProbe | None = None, timeout_s: float = 5.0) -> ProbeResult:
    async def story() -> ProbeResult:
        async with serving(answer) as (port, _):
            return await run_check(check_on(port, probe or DnsProbe(NAME), timeout_s))

    return asyncio.run(story())


def _good(packet: bytes, change: Callable[[dns.message.Message], None] = lambda _: None) -> bytes:
    answer = dns.message.make_response(dns.message.from_wire(packet))
    answer.answer.append(dns.rrset.from_text(NAME, 60, "IN", "A", "192.0.2.1"))
    change(answer)
    return answer.to_wire()


def test_refused_silent_and_black_holed(beside_router: Beside) -> None:
    refused = asyncio.run(run_check(check_on(free_port(), DnsProbe(NAME))))
    assert (refused.ok, refused.reason) == (False, "port unreachable, says 127.0.0.1")
    silent = _ask(lambda _: [], timeout_s=0.2)
    assert (silent.ok, silent.reason) == (False, "no answer within 200ms")
    gone = beside_router(lambda: asyncio.run(run_check(check_on(53, DnsProbe(NAME), 0.2, BLACK_HOLE))))
    assert (gone.ok, gone.reason) == (False, "no answer within 200ms")
    gone = beside_router(lambda: asyncio.run(run_check(check_on(53, DnsProbe(NAME, tcp=True), 0.2, BLACK_HOLE))))
    assert (gone.ok, gone.reason) == (False, "no answer within 200ms")


def _another_question(answer: dns.message.Message) -> None:
    answer.question = dns.message.make_query("other.test", "A").question


def _no_response(answer: dns.message.Message) -> None:
    answer.flags &= ~dns.flags.QR


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (lambda q: b"\xff\xff garbage that is no DNS", "a message with another id"),
        (lambda q: b"", "'', which is no DNS message"),
        (lambda q: q[:2], "which is no DNS message"),
        (lambda q: q[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + b"\xff" * 40, "which is no DNS message ("),
        (lambda q: q[:2] + b"\x81\x80" + b"\xff" * 40, "a message of 65535 questions"),
        (lambda q: bytes([q[0] ^ 1]) + _good(q)[1:], "a message with another id"),
        (lambda q: _good(q, _another_question), "a message that answers another question"),
        (lambda q: _good(q, _no_response), "a message that answers another question"),
        (lambda q: q[:2] + bytes(MOST_ANSWER_BYTES), f"more than {MOST_ANSWER_BYTES}"),
    ],
)
def test_what_is_no_answer_is_ignored_until_the_answer(packet: Callable[[bytes], bytes], why: str) -> None:
    assert _ask(lambda q: [packet(q), _good(q)]).reason == "NOERROR, 192.0.2.1 A"
    alone = _ask(lambda q: [packet(q)], timeout_s=0.2)
    assert not alone.ok
    assert alone.reason.startswith("no answer within 200ms; 2 packets were ignored, the last: ")
    assert why in alone.reason
    assert alone.reason.isprintable()


def test_a_flood_of_wrong_ids_takes_little_and_keeps_nobody_waiting(runner: asyncio.Runner) -> None:
    async def story() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("127.0.0.1", 0))
            server.settimeout(5)
            turns = 0
            ended = asyncio.Event()

            def flood() -> None:
                question, client = server.recvfrom(512)
                lie = bytes([question[0] ^ 1]) + _good(question)[1:]
                while not ended.is_set():
                    with contextlib.suppress(OSError):
                        server.sendto(lie, client)

            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.to_thread(flood))
                probing = group.create_task(run_check(check_on(server.getsockname()[1], DnsProbe(NAME), 0.5)))
                began_at, cpu_at = time.monotonic(), time.thread_time()
                while not probing.done():
                    await asyncio.sleep(0.005)
                    turns += 1
                took_s, cpu_s = time.monotonic() - began_at, time.thread_time() - cpu_at
                ended.set()
            assert probing.result().reason.startswith("no answer within 500ms; ")
            assert probing.result().reason.endswith("packets were ignored, the last: a message with another id")
            assert took_s < 2
            assert turns > 5  # others had their turns
            assert cpu_s < 0.3

    runner.run(story())


def test_truncated_answer_says_what_to_do() -> None:
    def cut(answer: dns.message.Message) -> None:
        answer.answer.clear()
        answer.flags |= dns.flags.TC

    result = _ask(lambda q: [_good(q, cut)])
    assert not result.ok
    assert result.reason == f"NOERROR, but no A record of {NAME} (truncated: use `transport: tcp`)"


def test_servfail_without_a_question_is_an_answer() -> None:
    def fail(answer: dns.message.Message) -> None:
        answer.answer.clear()
        answer.question.clear()
        answer.set_rcode(dns.rcode.SERVFAIL)

    assert _ask(lambda q: [_good(q, fail)]).reason == "SERVFAIL, expected NOERROR"


def test_chain_without_an_end_is_no_answer() -> None:
    def loop(answer: dns.message.Message) -> None:
        answer.answer = [dns.rrset.from_text(NAME, 60, "IN", "CNAME", NAME)]

    assert _ask(lambda q: [_good(q, loop)]).reason == f"NOERROR, but no A record of {NAME}"


# tcp


@contextlib.asynccontextmanager
async def _stream(answer: Callable[[bytes], bytes | None]) -> AsyncIterator[int]:
    """`answer` gets a question and gives all bytes of the answer, after which the connection ends; None: never."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            question = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
            said = answer(question)
            if said is None:
                await reader.read()
            else:
                writer.write(said)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
    await asyncio.sleep(0.01)


def _framed(data: bytes) -> bytes:
    return struct.pack("!H", len(data)) + data


@pytest.mark.parametrize(
    ("answer", "ok", "reason"),
    [
        (lambda q: _framed(_good(q)), True, "NOERROR, 192.0.2.1 A"),
        (lambda q: b"HTTP/1.1 400 Bad Request\r\n\r\n", False, "answered with a message with another id"),
        (lambda q: _framed(b""), False, "answered with '', which is no DNS message"),
        (lambda q: b"", False, "connection closed before an answer"),
        (lambda q: _framed(_good(q))[:-1], False, "connection closed before an answer"),
        (lambda q: None, False, "no answer within 300ms"),
        (
            lambda q: b"\xff\xff" + q[:2] + b"\x00" * 20,
            False,
            f"answered with a message of 65535 bytes, more than {MOST_ANSWER_BYTES}",
        ),
    ],
)
def test_tcp(answer: Callable[[bytes], bytes | None], ok: bool, reason: str) -> None:
    async def story() -> ProbeResult:
        async with _stream(answer) as port:
            return await run_check(check_on(port, DnsProbe(NAME, tcp=True), 0.3))

    result = asyncio.run(story())
    assert result.ok is ok
    if "Bad Request" not in str(answer):
        assert result.reason == reason or "which is no DNS message" in result.reason


# hostile bytes


@given(st.binary(max_size=600))
def test_any_packet_is_judged_or_ignored_with_a_reason(data: bytes) -> None:
    probe = DnsProbe(NAME)
    question = make_question(probe)
    for packet in (data, question.id.to_bytes(2) + data, question.to_wire()[:2] + b"\x81\x80" + data):
        judged = judge_packet(probe, question, packet)
        text = judged.reason if isinstance(judged, ProbeResult) else judged
        assert text.isprintable()
        assert len(text) < 500


@given(st.data())
def test_any_change_of_a_good_answer_is_judged(data: st.DataObject) -> None:
    probe = DnsProbe(NAME, answers=("192.0.2.1",))
    question = make_question(probe)
    packet = bytearray(_good(question.to_wire()))
    for _ in range(data.draw(st.integers(1, 6))):
        packet[data.draw(st.integers(2, len(packet) - 1))] = data.draw(st.integers(0, 255))
    judged = judge_packet(probe, question, bytes(packet))
    assert isinstance(judged, str | ProbeResult)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=20))
def test_any_stream_ends_in_a_result_or_waits(pieces: list[bytes]) -> None:
    dialogue = DnsDialogue(DnsProbe(NAME))
    assert isinstance(dialogue.opened(), bytes)
    for piece in pieces:
        step = dialogue.heard(piece)
        assert step == b"" or isinstance(step, ProbeResult)
        if step:
            return
    assert not dialogue.ended().ok


@given(st.integers(1, 200))
def test_a_good_answer_may_come_in_pieces(size: int) -> None:
    dialogue = DnsDialogue(DnsProbe(NAME))
    opened = dialogue.opened()
    assert isinstance(opened, bytes)
    wire = _framed(_good(opened[2:]))
    steps = [dialogue.heard(wire[at : at + size]) for at in range(0, len(wire), size)]
    assert steps[:-1] == [b""] * (len(steps) - 1)
    assert isinstance(steps[-1], ProbeResult)
    assert steps[-1].ok


def test_the_worst_answer_takes_bounded_time() -> None:
    """As many records as are looked at, all of whose names point to the longest name there is."""
    probe = DnsProbe(NAME)
    question = make_question(probe)
    wire = question.to_wire()
    pointer = struct.pack("!H", 0xC000 | len(wire))
    longest = b"\x01a" * 126 + b"\x00" + struct.pack("!HHIH", 1, 1, 1, 4) + bytes(4)
    records = (pointer + struct.pack("!HHIH", 5, 1, 1, 2) + pointer) * (MOST_RECORDS - 1)
    packet = wire[:2] + struct.pack("!HHHHH", 0x8180, 1, MOST_RECORDS, 0, 0) + wire[12:] + longest + records
    assert len(packet) <= MOST_ANSWER_BYTES
    began_at = time.process_time()
    assert isinstance(judge_packet(probe, question, packet), ProbeResult)
    assert time.process_time() - began_at < 2


def test_more_records_than_are_looked_at_are_no_answer() -> None:
    question = make_question(DnsProbe(NAME))
    packet = question.to_wire()
    many = packet[:6] + struct.pack("!H", MOST_RECORDS + 1) + packet[8:]
    assert judge_packet(DnsProbe(NAME), question, many) == "a message of 65 records, more than 64"
