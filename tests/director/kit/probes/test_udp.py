"""The udp probe against peers that answer, are silent, refuse, flood, or say something else."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.kit.checks.base import Route
from director.kit.checks.udp import UdpProbe
from director.kit.errors import ProbeError
from director.kit.health import ProbeResult
from director.kit.probes.run import run_check
from director.kit.probes.udp import judge_reply
from tests.director.kit.probes.datagrams import DIRECT, Answer, check_on, free_port, serving
from tests.director.kit.probes.network import (
    BLACK_HOLE,
    BLACK_HOLE6,
    FILTERED_PORT,
    MARK_WITHOUT_A_WAY,
    PROHIBITED,
    ROUTER,
    ROUTER6,
    UNREACHABLE,
    UNREACHABLE6,
    Beside,
)

pytestmark = pytest.mark.unit

PING = UdpProbe(b"ping")


async def _ask(
    answer: Answer, probe: UdpProbe = PING, timeout_s: float = 5.0, host: str = "127.0.0.1", route: Route = DIRECT
) -> tuple[ProbeResult, list[bytes]]:
    async with serving(answer, host) as (port, peer):
        return await run_check(check_on(port, probe, timeout_s, host, route)), peer.heard


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_reply(runner: asyncio.Runner, host: str) -> None:
    result, heard = runner.run(_ask(lambda _: [b"pong"], host=host))
    assert (result.ok, result.reason, result.output) == (True, "reply of 4 bytes", b"pong")
    assert heard == [b"ping"]
    assert 0 < result.duration_s < 5


def test_empty_reply_is_one(runner: asyncio.Runner) -> None:
    result, _ = runner.run(_ask(lambda _: [b""]))
    assert (result.ok, result.reason) == (True, "reply of 0 bytes")


def test_largest_reply_is_bounded_in_what_is_kept(runner: asyncio.Runner) -> None:
    result, _ = runner.run(_ask(lambda _: [b"x" * 65507]))
    assert (result.ok, result.reason, len(result.output)) == (True, "reply of 65507 bytes", 256)


@pytest.mark.parametrize(
    ("probe", "reply", "reason"),
    [
        (UdpProbe(b"x", pattern="^po"), b"pong", ""),
        (UdpProbe(b"x", pattern="^po"), b"nopong", "reply 'nopong' does not match '^po'"),
        (UdpProbe(b"x", begins=b"\x24\x01"), b"\x24\x01\xff", ""),
        (UdpProbe(b"x", begins=b"\x24"), b"\xffgarbage\r\n", r"reply '\xffgarbage\r\n' does not begin with '$'"),
        (UdpProbe(b"x", begins=b"po", pattern="g$"), b"pong", ""),
        (UdpProbe(b"x", begins=b"p"), b"", "reply '' does not begin with 'p'"),
    ],
)
def test_reply_is_judged(probe: UdpProbe, reply: bytes, reason: str) -> None:
    result, _ = asyncio.run(_ask(lambda _: [reply], probe))
    assert result.ok is not bool(reason)
    assert result.reason == (reason or f"reply of {len(reply)} bytes")


@pytest.mark.parametrize("silence_ok", [False, True])
def test_refused_is_a_failure_at_once_whatever_silence_means(runner: asyncio.Runner, silence_ok: bool) -> None:
    port = free_port()
    result = runner.run(run_check(check_on(port, UdpProbe(b"x", silence_ok=silence_ok))))
    assert (result.ok, result.errno) == (False, errno.ECONNREFUSED)
    assert result.reason == "port unreachable, says 127.0.0.1"
    assert result.duration_s < 2


def test_silence(runner: asyncio.Runner) -> None:
    result, heard = runner.run(_ask(lambda _: [], timeout_s=0.2))
    assert (result.ok, result.reason, result.errno) == (False, "no answer within 200ms", errno.ETIMEDOUT)
    assert heard == [b"ping", b"ping"]  # networks lose datagrams
    assert 0.19 <= result.duration_s < 2


def test_silence_can_be_good(runner: asyncio.Runner) -> None:
    result, _ = runner.run(_ask(lambda _: [], UdpProbe(b"ping", silence_ok=True), timeout_s=0.1))
    assert (result.ok, result.reason) == (True, "no answer within 100ms, which is good (silence: up)")


def test_a_lost_datagram_is_sent_again(runner: asyncio.Runner) -> None:
    async def story() -> None:
        lost: list[bytes] = []

        def answer(data: bytes) -> list[bytes]:
            lost.append(data)
            return [b"pong"] if len(lost) == 2 else []

        result, _ = await _ask(answer, timeout_s=0.4)
        assert result.ok
        assert 0.15 < result.duration_s < 0.4

    runner.run(story())


def test_source_and_wrong_source() -> None:
    result, _ = asyncio.run(_ask(lambda _: [b"x"], route=Route(source=ip_address("127.0.0.9"))))
    assert result.ok
    with pytest.raises(ProbeError, match=r"source address 192\.0\.2\.9 of probes is not on this host: add it"):
        asyncio.run(_ask(lambda _: [b"x"], route=Route(source=ip_address("192.0.2.9"))))


def test_mark_is_on_the_packets(beside_router: Beside) -> None:
    def probe(mark: int) -> ProbeResult:
        return asyncio.run(run_check(check_on(9, PING, 5.0, ROUTER, Route(mark=mark))))

    assert beside_router(lambda: probe(0)).reason == f"port unreachable, says {ROUTER}"
    assert beside_router(lambda: probe(MARK_WITHOUT_A_WAY)).reason == "no route to host"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (UNREACHABLE, f"host unreachable, says {ROUTER}"),
        (PROHIBITED, f"administratively prohibited, says {ROUTER}"),
        (BLACK_HOLE, "no answer within 200ms"),
        (UNREACHABLE6, f"no route, says {ROUTER6}"),
        (BLACK_HOLE6, "no answer within 200ms"),
    ],
)
def test_what_a_router_says(beside_router: Beside, target: str, reason: str) -> None:
    result = beside_router(lambda: asyncio.run(run_check(check_on(9, PING, 0.2, target))))
    assert (result.ok, result.reason) == (False, reason)
    assert result.errno


def test_own_packet_filter_is_not_the_servers_fault(beside_router: Beside) -> None:
    with pytest.raises(ProbeError, match="this host's own packet filter drops the probe: let it out"):
        beside_router(lambda: asyncio.run(run_check(check_on(FILTERED_PORT, PING, 0.5, ROUTER))))


def test_packets_of_strangers_are_no_reply(runner: asyncio.Runner) -> None:
    async def story() -> ProbeResult:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger,
        ):
            silent.bind(("127.0.0.1", 0))
            async with asyncio.TaskGroup() as group:
                probing = group.create_task(run_check(check_on(silent.getsockname()[1], PING, 0.3)))
                _, probed_from = await asyncio.to_thread(silent.recvfrom, 100)
                stranger.sendto(b"pong", probed_from)
            return probing.result()

    assert runner.run(story()).reason == "no answer within 300ms"


def test_descriptors_are_given_back() -> None:
    async def story() -> None:
        async with serving(lambda _: [b"x"]) as (port, _):
            before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
            for _ in range(20):
                await run_check(check_on(port, PING))
            assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208

    asyncio.run(story())


def test_cancelled_probe_leaves_nothing(runner: asyncio.Runner) -> None:
    async def story() -> None:
        async with serving(lambda _: []) as (port, _):
            before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await run_check(check_on(port, PING, 30.0))
            assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208

    runner.run(story())


@given(st.binary(max_size=300), st.binary(max_size=4))
def test_any_reply_is_judged_in_one_short_line(reply: bytes, begins: bytes) -> None:
    result = judge_reply(UdpProbe(b"x", pattern="a|^$", begins=begins), reply)
    assert result.ok is (reply.startswith(begins) and (b"a" in reply or not reply))
    assert result.reason.isprintable()
    assert len(result.reason) < 400


def test_judging_takes_no_time_to_speak_of() -> None:
    began_at = time.process_time()
    for _ in range(1000):
        judge_reply(UdpProbe(b"x", pattern="(a+)+$"), b"a" * 60000 + b"b")
    assert time.process_time() - began_at < 20
