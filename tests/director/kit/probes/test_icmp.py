"""The icmp probe: on the loopback address, beside a router, with each kind of socket, and without any right."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.kit.checks.base import Route
from director.kit.checks.icmp import IcmpProbe
from director.kit.health import ProbeResult
from director.kit.probes import icmp
from director.kit.probes.icmp import Echo, checksum
from director.kit.probes.icmperrors import describe_message
from director.kit.probes.run import run_check
from tests.director.kit.probes.datagrams import DIRECT, check_on
from tests.director.kit.probes.network import (
    BLACK_HOLE,
    BLACK_HOLE6,
    MARK_WITHOUT_A_WAY,
    PROHIBITED,
    ROUTER,
    ROUTER6,
    UNREACHABLE,
    UNREACHABLE6,
    Beside,
)

pytestmark = pytest.mark.unit

PING_GROUPS = Path("/proc/sys/net/ipv4/ping_group_range")


async def _echo(host: str, size: int = 56, timeout_s: float = 5.0, route: Route = DIRECT) -> ProbeResult:
    return await run_check(check_on(0, IcmpProbe(size), timeout_s, host, route))


@pytest.fixture(params=["raw socket", "ping socket"])
def beside(request: pytest.FixtureRequest, beside_router: Beside) -> Beside:
    """With a raw socket, which root may have, or a ping socket, where a sysctl of the namespace lets everybody."""

    def choose(groups: str) -> None:
        PING_GROUPS.write_text(groups)

    beside_router(lambda: choose("0 2147483647" if request.param == "ping socket" else "1 0"))
    request.addfinalizer(lambda: beside_router(lambda: choose("1 0")))  # noqa: PT021 -- a yield would have no other use
    return beside_router


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", ROUTER, ROUTER6])
@pytest.mark.parametrize("size", [8, 57, 9000])
def test_reply(beside: Beside, host: str, size: int) -> None:
    result = beside(lambda: asyncio.run(_echo(host, size)))
    assert (result.ok, result.reason) == (True, f"echo of {size} bytes")
    assert 0 < result.duration_s < 5


def test_both_loops(beside_router: Beside, runner: asyncio.Runner) -> None:
    assert beside_router(lambda: runner.run(_echo(ROUTER))).ok
    assert beside_router(lambda: runner.run(_echo(UNREACHABLE))).reason == f"host unreachable, says {ROUTER}"


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        (UNREACHABLE, f"host unreachable, says {ROUTER}"),
        (PROHIBITED, f"administratively prohibited, says {ROUTER}"),
        (UNREACHABLE6, f"no route, says {ROUTER6}"),
        (BLACK_HOLE, "no answer within 200ms"),
        (BLACK_HOLE6, "no answer within 200ms"),
    ],
)
def test_what_does_not_answer(beside: Beside, host: str, reason: str) -> None:
    result = beside(lambda: asyncio.run(_echo(host, timeout_s=0.2)))
    assert (result.ok, result.reason) == (False, reason)
    assert result.errno


def test_route_is_taken(beside: Beside) -> None:
    assert beside(lambda: asyncio.run(_echo(ROUTER, route=Route(mark=MARK_WITHOUT_A_WAY)))).reason == "no route to host"
    assert beside(lambda: asyncio.run(_echo(ROUTER, route=Route(source=ip_address("10.9.0.2"))))).ok


def test_many_at_once_are_told_apart(beside: Beside) -> None:
    async def story() -> list[ProbeResult]:
        hosts = [ROUTER, UNREACHABLE, "127.0.0.1", ROUTER6] * 15
        return await asyncio.gather(*(_echo(host, size) for size, host in enumerate(hosts, 8)))

    results = beside(lambda: asyncio.run(story()))
    for number, result in enumerate(results):
        said = f"host unreachable, says {ROUTER}" if number % 4 == 1 else f"echo of {number + 8} bytes"
        assert result.reason == said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take rights away")
def test_without_the_right_it_says_what_to_do() -> None:
    script = (
        "import asyncio\n"
        "from director.kit.errors import ProbeError\n"
        "from director.kit.probes.run import run_check\n"
        "from director.kit.checks.icmp import IcmpProbe\n"
        "from tests.director.kit.probes.datagrams import check_on\n"
        "try:\n"
        "    print(asyncio.run(run_check(check_on(0, IcmpProbe()))))\n"
        "except ProbeError as error:\n"
        "    print('ours:', error)\n"
    )
    groups = PING_GROUPS.read_text().split()
    if int(groups[0]) <= int(groups[1]):
        pytest.skip("this host lets everybody send echoes")
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", script]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path.cwd())
    assert done.stdout.startswith("ours: this process may not send ICMP echoes: run as root, or with CAP_NET_RAW"), done


# the messages themselves


def test_request_has_a_right_checksum() -> None:
    assert checksum(Echo(4, b"abc", 7).packet()) == 0


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (b"", "too short"),
        (b"\x00\x00\x00", "too short"),
        (bytes([8, 0, 0, 0, 0, 7, 0, 1]) + b"data", "ICMP type 8 code 0"),
        (bytes([0, 0, 0, 0, 0, 8, 0, 1]) + b"data", "a reply to another request"),
        (bytes([0, 0, 0, 0, 0, 7, 0, 2]) + b"data", "a reply to another request"),
        (bytes([0, 0, 0, 0, 0, 7, 0, 1]) + b"dat", "a reply with other data than were sent"),
    ],
)
def test_what_is_no_reply(packet: bytes, why: str) -> None:
    judged = Echo(4, b"data", 7).judge(packet)
    assert isinstance(judged, str)
    assert why in judged


@given(st.binary(max_size=100), st.sampled_from([4, 6]))
def test_no_bytes_but_the_reply_are_one(packet: bytes, version: int) -> None:
    echo = Echo(version, b"data", 7)
    reply = bytes([0 if version == 4 else 129, 0]) + packet[:2].ljust(2, b"\0") + bytes([0, 7, 0, 1]) + b"data"
    assert isinstance(echo.judge(packet), str) or packet == reply
    assert isinstance(echo.judge(reply), ProbeResult)
    assert isinstance(echo.is_in(packet), bool)
    assert isinstance(icmp.without_header(packet), bytes)


@given(st.integers(0, 255), st.integers(0, 255), st.sampled_from([2, 3]), st.binary(max_size=30))
def test_every_error_message_has_words(kind: int, code: int, origin: int, offender: bytes) -> None:
    assert describe_message(origin, kind, code, offender)
