"""A question in a datagram, and the packets that come back until one of them is its answer.

One rule: packets that are no answer cost their sender more than us: they are counted, and looked at ever more rarely.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from director.kit.checks.check import Check
from director.kit.duration import format_duration
from director.kit.errors import ProbeError
from director.kit.health import ProbeResult
from director.kit.probes.icmperrors import hear_errors, told
from director.kit.probes.sockets import bind_source, set_mark, source_of

MOST_BYTES = 65535
AT_ONCE = 64
"""So many packets that are no answer are looked at as they come; further ones with a rest before each."""
REST_S = 0.01

Judge = Callable[[bytes], ProbeResult | str]
"""What a packet amounts to; a string says why it is ignored."""


def open_datagram(check: Check, kind: int = socket.SOCK_DGRAM, protocol: int = 0) -> socket.socket:
    """A socket that exchanges packets with `check.target` alone, by the check's route.

    Raises: OSError, or ProbeError when the source address or the mark cannot be had here.
    """
    address, mark, source = check.target.address, check.route.mark, source_of(check)
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    peer = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
    try:
        if mark:
            set_mark(peer, mark)
        if source is not None:
            bind_source(peer, source)
        hear_errors(peer)
        peer.connect((str(address), check.target.port))
    except BaseException:
        peer.close()
        raise
    return peer


class Asked:
    """A question, and what came back so far that was no answer.

    `is_ours` tells from the beginning of the packet that an ICMP error message quotes whether it is about the question.
    """

    def __init__(
        self,
        peer: socket.socket,
        question: bytes,
        judge: Judge,
        timeout_s: float,
        is_ours: Callable[[bytes], bool] = lambda _: True,
    ) -> None:
        self._peer = peer
        self._question = question
        self._judge = judge
        self._timeout_s = timeout_s
        self._is_ours = is_ours
        self._ignored = 0
        self._why = ""

    async def answer(self, times: int = 2) -> ProbeResult | None:
        """Send the question, `times` times with equal pauses; None when no answer has come within the timeout.

        Raises: OSError; ProbeError when this host itself keeps the question back.
        """
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        for nth in range(1, times + 1):
            try:
                async with asyncio.timeout_at(began_at + self._timeout_s * nth / times):
                    return await self._send(loop) or await self._hear(loop)
            except TimeoutError as error:
                if error.errno:  # the system's own
                    raise
        return None

    async def _send(self, loop: asyncio.AbstractEventLoop) -> ProbeResult | None:
        try:
            await loop.sock_sendall(self._peer, self._question)
        except PermissionError as error:  # net/ipv4/ip_output.c: netfilter's DROP on the way out
            raise ProbeError("this host's own packet filter drops the probe: let it out") from error
        except OSError as error:  # about the one that was sent before
            judged = told(self._peer, error, self._is_ours)
            return judged if isinstance(judged, ProbeResult) else None
        return None

    async def _hear(self, loop: asyncio.AbstractEventLoop) -> ProbeResult:
        while True:
            # A packet that is there is given without a turn of the loop: a flood must not keep others from theirs.
            await asyncio.sleep(0 if self._ignored < AT_ONCE else REST_S)
            try:
                judged = self._judge(await loop.sock_recv(self._peer, MOST_BYTES))
            except OSError as error:
                judged = told(self._peer, error, self._is_ours)
            if isinstance(judged, ProbeResult):
                return judged
            self._ignored += 1
            self._why = judged

    def silence(self) -> str:
        """The reason for a result without an answer."""
        text = f"no answer within {format_duration(self._timeout_s)}"
        if not self._ignored:
            return text
        many = f"{self._ignored} packets were ignored, the last" if self._ignored > 1 else "a packet was ignored"
        return f"{text}; {many}: {self._why}"
