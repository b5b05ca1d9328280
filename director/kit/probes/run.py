"""Runs a check once.

One rule: whatever the peer does, the answer is a `ProbeResult` within the check's timeout.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import time
from typing import assert_never

from director.kit.checks.check import Check
from director.kit.checks.http import HttpProbe
from director.kit.checks.tcp import TcpProbe
from director.kit.duration import format_duration
from director.kit.errors import ProbeError
from director.kit.health import ProbeResult
from director.kit.net import Endpoint
from director.kit.probes.http import describe_tls_error, probe_http
from director.kit.probes.tcp import probe_tcp

_OUR_OWN = {
    errno.EMFILE: "raise its limit of open files (LimitNOFILE=)",
    errno.ENFILE: "raise fs.file-max",
    errno.ENOBUFS: "give it more memory",
    errno.ENOMEM: "give it more memory",
}
"""Failures that a server has no part in, and what to do."""


async def run_check(check: Check) -> ProbeResult:
    """Probe `check.target` once.

    Raises: ProbeError when this host lacks what a probe takes, and nothing else but CancelledError.
    """
    started_at = time.monotonic()
    try:
        async with asyncio.timeout(check.timing.timeout_s):
            ok, reason = await _run(check)
    except TimeoutError:
        ok, reason = False, f"no answer within {format_duration(check.timing.timeout_s)}"
    except OSError as error:
        if error.errno in _OUR_OWN:
            raise ProbeError(f"{describe_os_error(error)} on this host: {_OUR_OWN[error.errno]}") from error
        ok, reason = False, describe_os_error(error)
        if error.errno == errno.EADDRNOTAVAIL:
            if not _is_unaddressed(check.target):
                what = f"{reason} on this host: no local port is left for {check.target}"
                raise ProbeError(f"{what}: widen net.ipv4.ip_local_port_range") from error
            reason += ": this host has no address to reach it from, give it one"
    return ProbeResult(ok, reason, time.monotonic() - started_at)


def _is_unaddressed(target: Endpoint) -> bool:
    """Whether this host has no address to reach `target` from. Sends nothing, and does not block.

    TCP says EADDRNOTAVAIL for that and for a want of ports alike. UDP looks for its address in the same way, and has
    ports of its own (net/ipv6/addrconf.c, ipv6_dev_get_saddr; net/ipv4/inet_hashtables.c, __inet_hash_connect).
    """
    family = socket.AF_INET6 if target.address.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
            asking.connect((str(target.address), target.port))
    except OSError as error:
        return error.errno == errno.EADDRNOTAVAIL
    return False


async def _run(check: Check) -> tuple[bool, str]:
    match check.probe:
        case TcpProbe():
            return await probe_tcp(check.target)
        case HttpProbe() as probe:
            return await probe_http(check.target, probe)
        case _:
            assert_never(check.probe)


def describe_os_error(error: OSError) -> str:
    """The system's words for its errno, without asyncio's and aiohttp's around them.

    >>> describe_os_error(ConnectionRefusedError(111, "Connect call failed ('10.0.0.1', 80)"))
    'connection refused'
    """
    inner = getattr(error, "os_error", error)  # aiohttp keeps the one it has met
    if isinstance(inner, ssl.SSLError):
        return describe_tls_error(inner)
    known = (error.errno or 0) > 0 and not isinstance(inner, socket.gaierror)
    text = os.strerror(error.errno or 0) if known else str(error)
    if not text:
        text = "connection reset by peer" if isinstance(error, ConnectionResetError) else type(error).__name__
    return text[:1].lower() + text[1:]
