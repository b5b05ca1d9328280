"""Changes to what is sent: requests joined into batches, each found again by its number.

One rule: only the last request of a batch asks for an acknowledgement, and it is one that the kernel answers.

The kernel works through a batch before the send returns, and reports an error whether or not it was asked to
(net/netlink/af_netlink.c, netlink_rcv_skb). So the last one's answer means that every error before it has been
delivered, unless the receive says ENOBUFS.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from director.core.diff import Change, StartSync, StopSync
from director.ipvs import attributes as a
from director.ipvs import tlv
from director.ipvs.encode import get_info

BATCH_BYTES = 64 * 1024
"""Requests of one send: well below the default send buffer (208 KiB, above which a send is EMSGSIZE), and below what
the C library takes from the kernel anew each time (128 KiB: mallopt(3), M_MMAP_THRESHOLD)."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests of one send, numbered from `first` on; `last` may be that of no change."""

    data: bytes
    changes: list[Change]
    first: int
    last: int

    def change(self, sequence: int) -> Change | None:
        """The change of the request with this number; None where it is none of them."""
        place = (sequence - self.first) & 0xFFFFFFFF
        return self.changes[place] if place < len(self.changes) else None


def batches(
    requests: Iterable[tuple[Change, bytes]], family: int, sequence: int, limit_bytes: int = BATCH_BYTES
) -> Iterator[Batch]:
    """Join encoded changes into batches, numbered from `sequence` on; each takes a number more than it has changes."""
    changes: list[Change] = []
    bodies: list[bytes] = []
    size = 0
    for change, body in requests:
        length = a.NLMSG_HEADER_BYTES + len(body)
        if bodies and size + length > limit_bytes:
            yield _join(changes, bodies, family, sequence)
            sequence = (sequence + len(changes) + 1) & 0xFFFFFFFF
            changes, bodies, size = [], [], 0
        changes.append(change)
        bodies.append(body)
        size += length
    if bodies:
        yield _join(changes, bodies, family, sequence)


def _join(changes: list[Change], bodies: list[bytes], family: int, first: int) -> Batch:
    if isinstance(changes[-1], StartSync | StopSync):
        # A sync daemon's thread that is stopped before it ran ends with EINTR (kthread_stop), and the kernel answers
        # nothing to that (netlink_rcv_skb): a request that it does answer comes after it.
        bodies = [*bodies, get_info()]
    last = (first + len(bodies) - 1) & 0xFFFFFFFF
    head, flags, size = tlv.MESSAGE.pack, a.NLM_F_REQUEST, a.NLMSG_HEADER_BYTES
    parts = [
        head(size + len(body), family, flags, sequence & 0xFFFFFFFF, 0) + body
        for sequence, body in enumerate(bodies[:-1], first)
    ]
    parts.append(tlv.message(family, flags | a.NLM_F_ACK, last, bodies[-1]))
    return Batch(b"".join(parts), changes, first, last)
