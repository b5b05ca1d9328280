"""Which probe a check is, and one run of it.

One rule: whatever the peer does, the answer is a `ProbeResult` within the check's timeout.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from director.kit.checks.base import Tls
from director.kit.checks.check import Check
from director.kit.checks.http import HttpProbe
from director.kit.checks.tcp import TcpProbe
from director.kit.duration import format_duration
from director.kit.errors import ProbeError
from director.kit.health import ProbeResult
from director.kit.probes.dialogue import Dialogue
from director.kit.probes.failures import failure
from director.kit.probes.http import probe_http
from director.kit.probes.tcp import TCP
from director.kit.probes.wire import converse


def dialogue_of(check: Check, lasting: bool = False) -> tuple[Dialogue, Tls | None] | None:
    """A new dialogue for `check`, and the TLS it begins with; None for a probe that `run_alone` knows.

    `lasting`: one that leaves the connection open where it can (`Lasting`).
    """
    match check.probe:
        case TcpProbe():
            return TCP, None
        case _:
            return None


async def run_alone(check: Check) -> ProbeResult:
    """Run a probe that is a coroutine; the caller gives it its time.

    Raises: OSError, which counts against the server; ProbeError, which does not.
    """
    match check.probe:
        case HttpProbe() as probe:
            return ProbeResult(*await probe_http(check.target, probe))
        case _:
            raise AssertionError(f"{check} is held as a dialogue")


async def run_check(check: Check) -> ProbeResult:
    """Probe `check.target` once.

    Raises: ProbeError when this host lacks what a probe takes, and nothing else but CancelledError.
    """
    held = dialogue_of(check)
    return await (run_in_time(check) if held is None else converse(check, *held))


async def run_in_time(check: Check) -> ProbeResult:
    """`run_alone` within the check's timeout, its OSErrors told as what they amount to.

    Raises: ProbeError when this host lacks what a probe takes, and nothing else but CancelledError.
    """
    started_at = time.monotonic()
    try:
        async with asyncio.timeout(check.timing.timeout_s):
            result = await run_alone(check)
    except TimeoutError:
        result = ProbeResult(False, f"no answer within {format_duration(check.timing.timeout_s)}")
    except OSError as error:
        met = failure(error, check)
        if isinstance(met, ProbeError):
            raise met from error
        result = met
    return replace(result, duration_s=time.monotonic() - started_at)
