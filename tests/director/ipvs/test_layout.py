"""The short way through a dump: it gives what the long way gives, and takes no header on trust."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.core.table import (
    Counters,
    Forward,
    Protocol,
    RealCounters,
    RealRow,
    VirtualKey,
    VirtualRow,
)
from director.ipvs import attributes as a
from director.ipvs import tlv
from director.ipvs.decode import Destination, decode_destination, decode_service
from director.ipvs.dump import CarriedByKey, Decoder
from director.ipvs.layout import DESTINATION, SERVICE, Layouts
from director.kit.errors import KernelError
from director.kit.net import Endpoint
from tests.director.ipvs import strategies
from tests.director.ipvs.dumps import Build, destination_dump, service_dump, u32
from tests.director.ipvs.test_captured import CAPTURED

pytestmark = pytest.mark.unit

KEY = VirtualKey.of(Protocol.TCP, ip_address("10.0.0.1"), 80)
A, B = Endpoint(ip_address("10.0.0.2"), 80), Endpoint(ip_address("2001:db8::2"), 80)
ROW, NAT = VirtualRow("wlc"), RealRow(Forward.NAT, 1)
USED = RealCounters(1, 2, 3, Counters(4, 5, 6, 7, 8))
builds = st.sampled_from(Build)


def long_way(body: bytes, key: VirtualKey = KEY) -> object:
    try:
        return decode_destination(body, key)
    except KernelError as error:
        return str(error)


def short_way(decoder: Decoder, body: bytes, key: VirtualKey = KEY) -> object:
    """What `Decoder` makes of one message, in the long way's terms."""
    try:
        found = decoder.destinations(key, [body])
    except KernelError as error:
        return str(error)
    if found.foreign:
        assert not found.rows
        return found.foreign[0]
    ((real, row),) = found.rows.items()
    return Destination(real, row, CarriedByKey({key: found})[key, real])


@given(st.lists(st.tuples(strategies.endpoints, strategies.real_rows(), strategies.real_counters, builds), max_size=8))
def test_real_servers_by_either_way_are_equal(
    reals: list[tuple[Endpoint, RealRow, RealCounters, Build]],
) -> None:
    decoder = Decoder()
    for real, row, counters, build in reals:
        body = destination_dump(real, row, counters, build=build)
        assert short_way(decoder, body) == long_way(body)


@given(st.lists(st.tuples(strategies.keyed_rows, strategies.counters, builds), max_size=8))
def test_virtual_servers_by_either_way_are_equal(
    services: list[tuple[tuple[VirtualKey, VirtualRow], Counters, Build]],
) -> None:
    decoder = Decoder()
    for (key, row), counters, build in services:
        body = service_dump(key, row, counters, build=build)
        assert decoder.service(body) == decode_service(body)


@pytest.mark.parametrize("title", [title for title in CAPTURED if title.startswith(("service", "destination"))])
def test_captured_message_by_either_way_is_equal(title: str) -> None:
    body, decoder = CAPTURED[title], Decoder()
    if title.startswith("service"):
        assert decoder.service(body) == decode_service(body)
    else:
        assert short_way(decoder, body) == long_way(body)


@pytest.mark.parametrize("title", [title for title in CAPTURED if title.startswith("destination")])
def test_real_kernels_real_servers_have_a_layout(title: str) -> None:
    assert Layouts(a.NEW_DEST, DESTINATION).read(CAPTURED[title]) is not None


@pytest.mark.parametrize("build", [Build.PLAIN, Build.PADDED, Build.NEW])
def test_messages_of_todays_kernels_have_a_layout(build: Build) -> None:
    assert Layouts(a.NEW_DEST, DESTINATION).read(destination_dump(A, NAT, USED, build=build)) is not None
    assert Layouts(a.NEW_SERVICE, SERVICE).read(service_dump(KEY, ROW, Counters(), build=build)) is not None


def test_old_kernels_messages_go_the_long_way() -> None:
    layouts = Layouts(a.NEW_DEST, DESTINATION)
    body = destination_dump(A, NAT, USED, build=Build.OLD)
    assert layouts.read(body) is None
    assert layouts.read(destination_dump(A, NAT, USED)) is not None
    assert short_way(Decoder(), body) == Destination(A, NAT, USED)


@pytest.mark.parametrize(
    "body",
    [
        service_dump(VirtualKey(4, mark=7), ROW, Counters()),
        service_dump(KEY, VirtualRow("rr", persistence_s=9, engine="sip"), Counters()),
        service_dump(KEY, ROW, Counters(), u32(a.SVC_TIMEOUT, 7)),
        service_dump(KEY, ROW, Counters(), tlv.attribute(a.SVC_PE_NAME, b"sip\0")),
        service_dump(KEY, ROW, Counters(), build=Build.OLD),
    ],
    ids=["mark", "engine", "twice", "engine at the end", "old"],
)
def test_other_virtual_servers_go_the_long_way(body: bytes) -> None:
    assert Layouts(a.NEW_SERVICE, SERVICE).read(body) is None
    assert Decoder().service(body) == decode_service(body)


SAMPLES = [destination_dump(A, NAT, USED, build=build) for build in Build]


@given(st.sampled_from(SAMPLES), st.data())
def test_damaged_message_by_either_way_is_equal(body: bytes, data: st.DataObject) -> None:
    """Also after a layout was learned from the sound one."""
    decoder = Decoder()
    assert short_way(decoder, body) == long_way(body)
    damaged = bytearray(body)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    whole = bytes(damaged)
    cut = whole[: data.draw(st.integers(0, len(body)))]
    for found in (whole, cut):
        assert short_way(decoder, found) == long_way(found)
        assert short_way(Decoder(), found) == long_way(found)


def test_no_header_bit_is_taken_on_trust() -> None:
    """Whichever bit of a length or type is wrong: the message is not read by the layout of the sound one."""
    sound = destination_dump(A, NAT, USED)
    layouts = Layouts(a.NEW_DEST, DESTINATION)
    assert layouts.read(sound) is not None
    (layout,) = layouts.of_length(len(sound))
    places = [0, *_headers(sound, a.GENL_HEADER_BYTES, len(sound))]
    assert len(places) > 100
    for place in places:
        for bit in range(8):
            damaged = bytearray(sound)
            damaged[place] ^= 1 << bit
            assert layout.read(bytes(damaged)) is None
            assert short_way(Decoder(), bytes(damaged)) == long_way(bytes(damaged))


def _headers(body: bytes, position: int, end: int) -> list[int]:
    """The places of the attributes' headers, of those too that are nested in what is asked for."""
    places: list[int] = []
    while position < end:
        length, kind = struct.unpack_from("=HH", body, position)
        places += range(position, position + 4)
        if kind & a.NLA_F_NESTED and kind & a.NLA_TYPE_MASK != a.DEST_STATS:
            places += _headers(body, position + 4, position + length)
        position += (length + 3) & ~3
    return places


def test_lengths_that_never_fit_are_looked_at_once_each_and_not_without_end() -> None:
    layouts = Layouts(a.NEW_DEST, DESTINATION)
    for size in range(100):
        assert layouts.read(bytes(size)) is None
    sound = destination_dump(A, NAT, USED)
    assert layouts.read(sound) is None  # it has seen enough of what is not the kernel's; `decode` reads it
    assert Decoder().destinations(KEY, [sound]).rows == {A: NAT}


@given(st.lists(st.tuples(strategies.endpoints, strategies.real_rows()), max_size=8, unique_by=lambda each: each[0]))
def test_what_was_written_is_read_as_the_same_value(reals: list[tuple[Endpoint, RealRow]]) -> None:
    decoder = Decoder()
    for real, _ in reals:
        decoder.expect(real)
    found = decoder.destinations(KEY, [destination_dump(real, row, USED) for real, row in reals])
    assert list(found.rows.items()) == reals
    assert all(here is there for here, (there, _) in zip(found.rows, reals, strict=True))


def test_entry_that_comes_twice_is_one_with_its_last_counters() -> None:
    bodies = [destination_dump(A, NAT, RealCounters()), destination_dump(B, NAT, USED), destination_dump(A, NAT, USED)]
    found = Decoder().destinations(KEY, bodies)
    carried = CarriedByKey({KEY: found})
    assert list(found.rows) == [A, B]
    assert (len(carried), carried[KEY, A], carried[KEY, B]) == (2, USED, USED)


def test_counters_of_what_is_not_there_are_missing() -> None:
    carried = CarriedByKey({KEY: Decoder().destinations(KEY, [destination_dump(A, NAT, USED)])})
    assert dict(carried) == {(KEY, A): USED}
    assert carried.get((KEY, B)) is None
    assert carried.get((VirtualKey(4, mark=1), A)) is None
