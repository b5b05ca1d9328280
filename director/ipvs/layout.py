"""Where values stand in the messages of a dump, learned from one message and true for all that are built like it.

One rule: a layout reads a message only where every header in it is, bit for bit, the one that stood there in the
message it was learned from. So no length is trusted, and what is built in another way is left to `decode`.

The kernel fills in attributes in one order (net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_genl_fill_service and
ip_vs_genl_fill_dest): from one real server to the next only values differ, and the padding before 64-bit counters.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from struct import Struct
from typing import Any, Final, Literal

from director.ipvs import attributes as a

_ORDER: Final[Literal["little", "big"]] = "little" if sys.byteorder == "little" else "big"
_HEADER = Struct("=HH")
_LENGTHS = 64
"""Of messages of one form that are looked at: schedulers' names and padding make a handful."""
_OF_LENGTH = 8

Form = Mapping[int, "str | Form | None"]
"""What is wanted of a message, in the kernel's order: by attribute, its value's code for `struct` (`s`: as long as it
is), or what is wanted in it; None is an attribute that must not be there."""

_STATS64: Form = {
    a.STATS_CONNS: "Q",
    a.STATS_INPKTS: "Q",
    a.STATS_OUTPKTS: "Q",
    a.STATS_INBYTES: "Q",
    a.STATS_OUTBYTES: "Q",
}
SERVICE: Form = {
    a.CMD_SERVICE: {
        a.SVC_AF: "H",
        a.SVC_PROTOCOL: "H",
        a.SVC_ADDR: "16s",
        a.SVC_PORT: "2s",
        a.SVC_SCHED_NAME: "s",
        a.SVC_FLAGS: "II",
        a.SVC_TIMEOUT: "I",
        a.SVC_NETMASK: "4s",
        a.SVC_STATS64: _STATS64,
        a.SVC_FWMARK: None,
        a.SVC_PE_NAME: None,
    }
}
DESTINATION: Form = {
    a.CMD_DEST: {
        a.DEST_ADDR: "16s",
        a.DEST_PORT: "2s",
        a.DEST_FWD_METHOD: "I",
        a.DEST_WEIGHT: "I",
        a.DEST_TUN_TYPE: "B",
        a.DEST_TUN_PORT: "2s",
        a.DEST_TUN_FLAGS: "H",
        a.DEST_U_THRESH: "I",
        a.DEST_L_THRESH: "I",
        a.DEST_ACTIVE_CONNS: "I",
        a.DEST_INACT_CONNS: "I",
        a.DEST_PERSIST_CONNS: "I",
        a.DEST_ADDR_FAMILY: "H",
        a.DEST_STATS64: _STATS64,
    }
}


class Layout:
    """One way in which messages of one command and one length are built."""

    __slots__ = ("_heads", "_mask", "_struct")

    def __init__(self, body: bytes, heads: bytes, values: list[tuple[int, str]]) -> None:
        """`heads` has ones where headers stand in `body`; `values` are the wanted ones' places and codes."""
        self._mask = int.from_bytes(heads, _ORDER)
        self._heads = int.from_bytes(body, _ORDER) & self._mask
        code, end = "=", 0
        for place, part in values:
            code += f"{place - end}x{part}"
            end = place + Struct(f"={part}").size
        self._struct = Struct(f"{code}{len(body) - end}x")

    def read(self, body: bytes) -> tuple[Any, ...] | None:
        """The wanted values of `body`, which has this layout's length; None where it is built in another way."""
        return self._struct.unpack(body) if int.from_bytes(body, _ORDER) & self._mask == self._heads else None


class Layouts:
    """The layouts of one command's messages, learned as messages come; `form` says what is wanted of them."""

    def __init__(self, command: int, form: Form) -> None:
        self._command = command
        self._form = form
        self._by_length: dict[int, list[Layout]] = {}
        self._others: set[int] = set()

    def read(self, body: bytes) -> tuple[Any, ...] | None:
        """The wanted values of `body` in the form's order; None where they are not all there, in that order.

        Then `decode` reads it, or finds it malformed.
        """
        known = self._by_length.get(len(body), [])
        for layout in known:
            found = layout.read(body)
            if found is not None:
                return found
        if (
            len(body) in self._others
            or len(self._by_length) + len(self._others) >= _LENGTHS
            or len(known) >= _OF_LENGTH
        ):
            return None
        learned = self._learn(body)
        if learned is None:  # and so are, most likely, others like it: one look at each length will do
            self._others.add(len(body))
            return None
        self._by_length[len(body)] = [*known, learned]
        return learned.read(body)

    def of_length(self, length: int) -> tuple[Layout, ...]:
        """What was learned of messages of `length` bytes."""
        return tuple(self._by_length.get(length, ()))

    def _learn(self, body: bytes) -> Layout | None:
        if len(body) < a.GENL_HEADER_BYTES or body[0] != self._command:
            return None
        heads = bytearray(len(body))
        heads[0] = 0xFF
        values: list[tuple[int, str]] = []
        is_known = _walk(body, a.GENL_HEADER_BYTES, len(body), self._form, heads, values)
        return Layout(body, bytes(heads), values) if is_known else None


def _walk(body: bytes, position: int, end: int, form: Form, heads: bytearray, values: list[tuple[int, str]]) -> bool:
    """Mark the headers from `position` to `end` and note the wanted values; whether they are as `form` says."""
    due = [kind for kind, wanted in form.items() if wanted is not None]
    while position < end:
        if end - position < a.NLA_HEADER_BYTES:
            return False
        length, kind = _HEADER.unpack_from(body, position)
        start, stop = position + a.NLA_HEADER_BYTES, position + length
        if length < a.NLA_HEADER_BYTES or stop > end:
            return False
        heads[position:start] = b"\xff\xff\xff\xff"
        kind &= a.NLA_TYPE_MASK
        position += (length + 3) & ~3
        if kind not in form:
            continue
        wanted = form[kind]
        if wanted is None or not due or due.pop(0) != kind:
            return False
        if isinstance(wanted, str):
            code = f"{stop - start}s" if wanted == "s" else wanted
            if Struct(f"={code}").size != stop - start:
                return False
            values.append((start, code))
        elif not _walk(body, start, stop, wanted, heads, values):
            return False
    return not due
