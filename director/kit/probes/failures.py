"""What went wrong with a probe, in words: the server's failure, or this host's lack.

One rule: what a server has no part in is a ProbeError, and never counts against it.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl

from director.kit.checks.check import Check
from director.kit.errors import ProbeError
from director.kit.health import ProbeResult
from director.kit.net import Endpoint

_OUR_OWN = {
    errno.EMFILE: "raise its limit of open files (LimitNOFILE=)",
    errno.ENFILE: "raise fs.file-max",
    errno.ENOBUFS: "give it more memory",
    errno.ENOMEM: "give it more memory",
}
"""Failures that a server has no part in, and what to do."""


def failure(error: OSError, check: Check) -> ProbeResult | ProbeError:
    """What `error` on the way to `check.target` amounts to."""
    number = error.errno or 0
    if number in _OUR_OWN:
        return ProbeError(f"{describe_os_error(error)} on this host: {_OUR_OWN[number]}")
    reason = describe_os_error(error)
    if number == errno.EADDRNOTAVAIL:
        if not _is_unaddressed(check.target):
            what = f"{reason} on this host: no local port is left for {check.target}"
            return ProbeError(f"{what}: widen net.ipv4.ip_local_port_range")
        reason += ": this host has no address to reach it from, give it one"
    return ProbeResult(False, reason, errno=max(0, number))


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


def describe_tls_error(error: ssl.SSLError) -> str:
    """OpenSSL's word for what went wrong, without its codes around it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    text = getattr(error, "reason", None) or error.strerror or str(error) or type(error).__name__
    return f"TLS: {text.lower().replace('_', ' ')}"
