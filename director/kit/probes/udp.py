"""The udp probe: a datagram, and what comes back."""

from __future__ import annotations

import errno
from functools import lru_cache

from director.kit.checks.check import Check
from director.kit.checks.payload import shown_bytes
from director.kit.checks.udp import UdpProbe
from director.kit.health import ProbeResult
from director.kit.pattern import Pattern, compile_pattern
from director.kit.probes.datagrams import Asked, open_datagram

OUTPUT_BYTES = 256


async def probe_udp(check: Check, probe: UdpProbe) -> ProbeResult:
    """Send, wait for a reply, and judge it; silence lasts until the timeout.

    Raises: OSError, ProbeError.
    """
    with open_datagram(check) as peer:
        asked = Asked(peer, probe.send, lambda reply: judge_reply(probe, reply), check.timing.timeout_s)
        answer = await asked.answer()
    if answer is not None:
        return answer
    if probe.silence_ok:
        return ProbeResult(True, f"{asked.silence()}, which is good (silence: up)")
    return ProbeResult(False, asked.silence(), errno=errno.ETIMEDOUT)


def judge_reply(probe: UdpProbe, reply: bytes) -> ProbeResult:
    """Whether a reply is as expected.

    >>> judge_reply(UdpProbe(b"ping", pattern="^po"), b"pong").reason
    'reply of 4 bytes'
    """
    said = reply[:OUTPUT_BYTES]
    if not reply.startswith(probe.begins):
        reason = f"reply {shown_bytes(reply)} does not begin with {shown_bytes(probe.begins)}"
        return ProbeResult(False, reason, output=said)
    if probe.pattern is not None and _compiled(probe.pattern).search(reply) is None:
        return ProbeResult(False, f"reply {shown_bytes(reply)} does not match {probe.pattern!r}", output=said)
    return ProbeResult(True, f"reply of {len(reply)} bytes", output=said)


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> Pattern:
    return compile_pattern(pattern)
