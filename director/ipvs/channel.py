"""One generic netlink socket: requests out, answers in, each within a time.

One rule: every receive ends, by an answer or by a timeout, and a channel whose answers are in doubt is
closed, so that a late answer is never taken for another request's.
"""

from __future__ import annotations

import errno
import math
import socket
import struct
from contextlib import suppress
from types import TracebackType
from typing import Self

from director.ipvs import attributes as a
from director.ipvs import tlv
from director.kit.errors import KernelError

Received = list[tuple[int, int, int, bytes]]
"""Type, flags, sequence and body of each message."""

RECEIVE_BUFFER_BYTES = 8 * 1024 * 1024
"""Room for the errors of some thousand failed requests, each about 1 KiB with the kernel's own overhead."""
DATAGRAM_BYTES = 64 * 1024
"""Above what the kernel puts into one datagram of a dump (32 KiB: net/netlink/af_netlink.c, netlink_recvmsg)."""


class RefusedError(KernelError):
    """The kernel answered a request with an errno."""

    def __init__(self, code: int, said: str) -> None:
        super().__init__(f"the kernel answered {tlv.error_name(code)}" + (f": {said}" if said else ""))
        self.code = code


class LostError(KernelError):
    """Answers did not fit into the receive buffer and are gone (ENOBUFS)."""


class Channel:
    """A generic netlink socket of one network namespace (the calling thread's when it was made).

    `timeout_s` bounds the wait for each datagram.
    """

    def __init__(self, timeout_s: float) -> None:
        """Raises: KernelError when this kernel or container has no generic netlink."""
        self._sequence = 0
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, a.NETLINK_GENERIC)
        except OSError as error:
            raise KernelError(f"no generic netlink here: {error}; a container must allow AF_NETLINK sockets") from error
        try:
            self._set_up(timeout_s)
        except OSError as error:
            self._socket.close()
            raise KernelError(f"cannot set up a netlink socket: {error}") from error

    def _set_up(self, timeout_s: float) -> None:
        # The kernel's own timeouts spare the poll that settimeout() puts before each receive.
        part_s, whole_s = math.modf(timeout_s)
        limit = struct.pack("@ll", int(whole_s), int(part_s * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
        except PermissionError:  # the first request will say it better
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        for option in (a.NETLINK_CAP_ACK, a.NETLINK_EXT_ACK):  # from 4.3 and 4.12 on; comforts, both
            with suppress(OSError):
                self._socket.setsockopt(a.SOL_NETLINK, option, 1)
        self._socket.bind((0, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        return self._socket.fileno() >= 0

    def close(self) -> None:
        self._socket.close()

    def reserve(self, count: int) -> int:
        """The first of `count` sequence numbers in a row, which wrap at 2**32."""
        first = self._sequence
        self._sequence = (self._sequence + count) & 0xFFFFFFFF
        return first

    def ask(self, kind: int, request: bytes, *, dump: bool = False) -> list[bytes]:
        """Send one request of message type `kind` and return the bodies of its answers.

        Raises: RefusedError; KernelError, which also closes the channel.
        """
        sequence = self.reserve(1)
        flags = a.NLM_F_REQUEST | (a.NLM_F_DUMP if dump else a.NLM_F_ACK)
        try:
            self.send(tlv.message(kind, flags, sequence, request))
            return self._answers(kind, sequence)
        except RefusedError:
            raise
        except KernelError:
            self.close()
            raise

    def _answers(self, kind: int, sequence: int) -> list[bytes]:
        bodies: list[bytes] = []
        while True:
            datagram = self._datagram()
            alike, end = tlv.alike(datagram, kind, sequence)
            bodies += alike
            for found, flags, answered, body in tlv.messages(datagram, end):
                if answered != sequence:
                    continue
                if found in (a.NLMSG_ERROR, a.NLMSG_DONE):
                    answer = tlv.acknowledgement(flags, body)
                    if answer.errno:
                        raise RefusedError(answer.errno, answer.message)
                    return bodies
                if found == kind:
                    bodies.append(body)

    def send(self, data: bytes) -> None:
        """Send requests; the kernel has worked through them when this returns. Raises: KernelError."""
        try:
            self._socket.sendto(data, (0, 0))
        except OSError as error:
            raise KernelError(f"cannot send to the kernel: {error}; try again") from error

    def receive(self, *, wait: bool = True) -> Received:
        """The messages of one datagram; none where nothing is left and `wait` is false.

        Raises: LostError; KernelError after `timeout_s`, or when the answer is malformed.
        """
        return list(tlv.messages(self._datagram(wait=wait)))

    def _datagram(self, *, wait: bool = True) -> bytes:
        """One datagram; empty where nothing is left and `wait` is false. Raises: LostError; KernelError."""
        while True:
            try:
                data, _, flags, sender = self._socket.recvmsg(DATAGRAM_BYTES, 0, 0 if wait else socket.MSG_DONTWAIT)
            except BlockingIOError:
                if not wait:
                    return b""
                raise KernelError("the kernel did not answer in time; try again") from None
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    raise LostError("the kernel's answers did not fit the receive buffer; read again") from error
                raise KernelError(f"cannot receive from the kernel: {error}; try again") from error
            if sender[0] != 0:  # another process, not the kernel
                continue
            if flags & socket.MSG_TRUNC:
                raise KernelError(f"the kernel's answer exceeds {DATAGRAM_BYTES} bytes; report this")
            return data


_SO_RCVBUFFORCE = 33  # include/uapi/asm-generic/socket.h; Python's socket module has no name for it
