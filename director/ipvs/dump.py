"""From the messages of a dump to virtual and real servers, the short way where there is one.

One rule: what `layout` can read is read by it, everything else by `decode`, and both come to equal values
(tests/director/ipvs/test_layout.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from director.core.table import Counters, Foreign, RealCounters, RealRow, VirtualKey
from director.ipvs import attributes as a
from director.ipvs.decode import (
    FAMILY_BY_AF,
    PROTOCOL_BY_NUMBER,
    Service,
    decode_destination,
    decode_service,
    real_row,
    virtual_row,
)
from director.ipvs.encode import pack_address
from director.ipvs.layout import DESTINATION, SERVICE, Layouts
from director.kit.net import Endpoint, IPAddress

Carried = tuple[int, ...] | RealCounters
"""Of a real server, by a layout: active, inactive and persistent connections, address family (no counter, but it
stands there), totals; by the long way: the value itself."""

_ROWS = 4096
"""Rows of real servers that are kept for the next of the same: weights and thresholds make some dozens."""
_ENDPOINTS = 250_000
"""Real servers whose names are kept for the next dump, about 200 bytes each."""
_AF_BYTES = {af: bytes([family]) for af, family in FAMILY_BY_AF.items()}
_NO_COUNTERS = Counters()


@dataclass(slots=True)
class Reals:
    """The real servers of one virtual server in the order of the dump, and what does not fit the model.

    `carried` has one item for each of `endpoints`; either may come twice in a dump that was written under.
    """

    rows: dict[Endpoint, RealRow] = field(default_factory=dict)
    endpoints: list[Endpoint] = field(default_factory=list)
    carried: list[Carried] = field(default_factory=list)
    foreign: list[Foreign] = field(default_factory=list)


class CarriedByKey(Mapping[tuple[VirtualKey, Endpoint], RealCounters]):
    """Counters of the real servers of many virtual servers, made into values when they are asked for."""

    def __init__(self, found: Mapping[VirtualKey, Reals]) -> None:
        self._found = found
        self._looked_up: dict[VirtualKey, dict[Endpoint, Carried]] = {}

    def __getitem__(self, place: tuple[VirtualKey, Endpoint]) -> RealCounters:
        key, real = place
        carried = self._looked_up.get(key)
        if carried is None:
            reals = self._found[key]
            carried = self._looked_up[key] = dict(zip(reals.endpoints, reals.carried, strict=True))
        return _counters(carried[real])

    def __iter__(self) -> Iterator[tuple[VirtualKey, Endpoint]]:
        return ((key, real) for key, reals in self._found.items() for real in reals.rows)

    def __len__(self) -> int:
        return sum(len(reals.rows) for reals in self._found.values())


class Decoder:
    """Reads dumps of one kernel; it remembers how that builds its messages, and rows to use again."""

    def __init__(self) -> None:
        self._services = Layouts(a.NEW_SERVICE, SERVICE)
        self._destinations = Layouts(a.NEW_DEST, DESTINATION)
        self._endpoints: dict[bytes, Endpoint] = {}
        self._rows: dict[tuple[object, ...], RealRow] = {}

    def service(self, body: bytes) -> Service | Foreign:
        """Read one message of a dump of virtual servers. Raises: KernelError."""
        found = self._services.read(body)
        if found is None:
            return decode_service(body)
        af, number, packed, port, name, flags, _, timeout_s, netmask, *totals = found
        if af not in FAMILY_BY_AF or number not in PROTOCOL_BY_NUMBER:
            return decode_service(body)
        endpoint = Endpoint(_address(af, packed), int.from_bytes(port, "big"))
        key = VirtualKey(FAMILY_BY_AF[af], PROTOCOL_BY_NUMBER[number], endpoint)
        row = virtual_row(key, name, flags, timeout_s, netmask)
        return row if isinstance(row, Foreign) else Service(key, row, _totals(totals))

    def destinations(self, key: VirtualKey, bodies: Iterable[bytes]) -> Reals:
        """Read the messages of a dump of the real servers of `key`. Raises: KernelError."""
        reals = Reals()
        carried: Carried = ()
        read, rows, endpoints = self._destinations.read, self._rows, self._endpoints
        found_rows, name, carry = reals.rows, reals.endpoints.append, reals.carried.append
        for body in bodies:
            found = read(body)
            if found is None:
                self._long_way(key, body, reals)
                continue
            row = rows.get(found[2:9]) or self._row(found[2:9])
            at = found[0] + found[1] + _AF_BYTES.get(found[12], b"")
            real = endpoints.get(at) or self._endpoint(at)
            if row is None or real is None:
                self._long_way(key, body, reals)
                continue
            found_rows[real] = row
            name(real)
            if found[9:] != carried:  # most carry nothing
                carried = found[9:]
            carry(carried)
        return reals

    def expect(self, real: Endpoint) -> None:
        """A dump will name `real`: its value can be used for that."""
        packed, af = pack_address(real.address)
        if len(self._endpoints) < _ENDPOINTS:
            self._endpoints[packed + real.port.to_bytes(2, "big") + _AF_BYTES[af]] = real

    def _endpoint(self, at: bytes) -> Endpoint | None:
        """`at`: address, port, and one byte for the family, if that is known."""
        if len(at) != 19:
            return None
        if len(self._endpoints) >= _ENDPOINTS:
            self._endpoints.clear()
        family = at[18]
        address = IPv4Address(at[:4]) if family == 4 else IPv6Address(at[:16])
        real = self._endpoints[at] = Endpoint(address, (at[16] << 8) + at[17])
        return real

    def _row(self, found: tuple[Any, ...]) -> RealRow | None:
        forward, weight, kind, port, flags, upper, lower = found
        row = real_row(forward, weight, kind, int.from_bytes(port, "big"), flags, upper, lower)
        if isinstance(row, str):
            return None
        if len(self._rows) >= _ROWS:
            self._rows.clear()
        self._rows[found] = row
        return row

    def _long_way(self, key: VirtualKey, body: bytes, reals: Reals) -> None:
        destination = decode_destination(body, key)
        if isinstance(destination, Foreign):
            reals.foreign.append(destination)
            return
        reals.rows[destination.real] = destination.row
        reals.endpoints.append(destination.real)
        reals.carried.append(destination.counters)


def _address(af: int, packed: bytes) -> IPAddress:
    if af == a.AF_INET:
        return IPv4Address(int.from_bytes(packed[:4], "big"))
    return IPv6Address(int.from_bytes(packed, "big"))


def _counters(carried: Carried) -> RealCounters:
    if isinstance(carried, RealCounters):
        return carried
    active, inactive, persistent, _, *totals = carried
    return RealCounters(active, inactive, persistent, _totals(totals))


def _totals(found: Sequence[int]) -> Counters:
    return Counters(*found) if any(found) else _NO_COUNTERS
