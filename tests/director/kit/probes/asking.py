"""One probe of a port of this host."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

from director.kit.checks.base import Timing
from director.kit.checks.check import Check, Probe
from director.kit.health import ProbeResult
from director.kit.net import Endpoint
from director.kit.probes.run import run_check

LOOPBACK = ip_address("127.0.0.1")


def ask(port: int, probe: Probe, timeout_s: float = 5.0) -> ProbeResult:
    """What a probe of 127.0.0.1 comes to."""
    return asyncio.run(run_check(Check(Endpoint(LOOPBACK, port), probe, Timing(timeout_s=timeout_s))))


def said(port: int, probe: Probe, timeout_s: float = 5.0) -> tuple[bool, str]:
    """Whether it is good, and why."""
    result = ask(port, probe, timeout_s)
    return result.ok, result.reason
