"""Runs a check once.

One rule: whatever the peer does, the answer is a `ProbeResult` within the check's timeout.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import assert_never

from director.kit.health import ProbeResult
from director.kit.probes.http import probe_http
from director.kit.probes.tcp import probe_tcp
from director.kit.probespec import Check, HttpProbe, TcpProbe


async def run_check(check: Check) -> ProbeResult:
    """Probe `check.target` once. Raises nothing but CancelledError."""
    started_at = time.monotonic()
    try:
        async with asyncio.timeout(check.timing.timeout_s):
            ok, reason = await _run(check)
    except TimeoutError:
        ok, reason = False, f"no answer within {check.timing.timeout_s:g}s"
    except OSError as error:
        ok, reason = False, describe_os_error(error)
    return ProbeResult(ok, reason, time.monotonic() - started_at)


async def _run(check: Check) -> tuple[bool, str]:
    match check.probe:
        case TcpProbe():
            return await probe_tcp(check.target)
        case HttpProbe() as probe:
            return await probe_http(check.target, probe)
        case _:
            assert_never(check.probe)


def describe_os_error(error: OSError) -> str:
    """The system's words for its errno, without asyncio's and aiohttp's around them."""
    text = os.strerror(error.errno) if error.errno else str(error) or type(error).__name__
    return text[:1].lower() + text[1:]
