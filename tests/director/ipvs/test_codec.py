"""The codec: what is encoded decodes to the same value, and nothing that arrives breaks the decoder."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.core.diff import AddReal, AddVirtual, Change, EditReal, EditVirtual, RemoveReal, RemoveVirtual
from director.core.table import (
    Counters,
    Forward,
    Protocol,
    RealCounters,
    RealRow,
    VirtualEntry,
    VirtualKey,
    VirtualRow,
)
from director.ipvs import attributes as a
from director.ipvs import encode, tlv
from director.ipvs.decode import (
    Destination,
    Foreign,
    Service,
    decode_destination,
    decode_family,
    decode_service,
    decode_version,
)
from director.kit.errors import KernelError
from director.kit.net import Endpoint
from tests.director.ipvs import strategies
from tests.director.ipvs.dumps import destination_dump, service_dump, u32

pytestmark = pytest.mark.unit

KEY = VirtualKey.of(Protocol.TCP, ip_address("10.0.0.1"), 80)
KEY6 = VirtualKey.of(Protocol.TCP, ip_address("2001:db8::1"), 80)
REAL = Endpoint(ip_address("10.0.0.2"), 80)
ROW, REAL_ROW = VirtualRow("rr"), RealRow(Forward.NAT, 1)
ALL_CHANGES: list[tuple[Change, int]] = [
    (AddVirtual(KEY, ROW), a.NEW_SERVICE),
    (EditVirtual(KEY, ROW, ROW), a.SET_SERVICE),
    (RemoveVirtual(KEY, VirtualEntry(ROW)), a.DEL_SERVICE),
    (AddReal(KEY, REAL, REAL_ROW), a.NEW_DEST),
    (EditReal(KEY, REAL, REAL_ROW, REAL_ROW), a.SET_DEST),
    (RemoveReal(KEY, REAL, REAL_ROW), a.DEL_DEST),
]


@given(strategies.keyed_rows, strategies.counters)
def test_service_decodes_to_what_was_encoded(keyed: tuple[VirtualKey, VirtualRow], counters: Counters) -> None:
    assert decode_service(service_dump(*keyed, counters)) == Service(*keyed, counters)


@given(strategies.keyed_rows)
def test_request_for_a_service_decodes_to_its_change(keyed: tuple[VirtualKey, VirtualRow]) -> None:
    assert decode_service(encode.encode(AddVirtual(*keyed))) == Service(*keyed, Counters())


@given(strategies.keys(), strategies.endpoints, strategies.real_rows, strategies.real_counters)
def test_destination_decodes_to_what_was_encoded(
    key: VirtualKey, real: Endpoint, row: RealRow, counters: RealCounters
) -> None:
    assert decode_destination(destination_dump(real, row, counters), key) == Destination(real, row, counters)


@pytest.mark.parametrize(("change", "command"), ALL_CHANGES, ids=lambda value: type(value).__name__)
def test_change_has_its_command_and_its_key(change: Change, command: int) -> None:
    found, attributes = tlv.generic_body(encode.encode(change))
    assert found == command
    service = tlv.attributes(attributes[a.CMD_SERVICE])
    assert (service[a.SVC_ADDR], service[a.SVC_PORT]) == (ip_address("10.0.0.1").packed + bytes(12), b"\0\x50")
    assert (a.SVC_SCHED_NAME in service) is (command in (a.NEW_SERVICE, a.SET_SERVICE))
    assert (a.CMD_DEST in attributes) is (command in (a.NEW_DEST, a.SET_DEST, a.DEL_DEST))


@pytest.mark.parametrize("change", [change for change, _ in ALL_CHANGES[3:5]], ids=["add", "edit"])
def test_real_server_is_always_sent_whole(change: Change) -> None:
    _, attributes = tlv.generic_body(encode.encode(change))
    sent = set(tlv.attributes(attributes[a.CMD_DEST]))
    assert sent >= {a.DEST_FWD_METHOD, a.DEST_WEIGHT, a.DEST_U_THRESH, a.DEST_L_THRESH, a.DEST_ADDR_FAMILY}


@given(st.lists(strategies.changes(), max_size=60), st.integers(0, 2**32 - 1), st.integers(64, 2048))
def test_batches_hold_all_changes_in_order(changes: list[Change], first: int, limit_bytes: int) -> None:
    requests = [(change, encode.encode(change)) for change in changes]
    sequences: list[int] = []
    sent: list[Change] = []
    bodies: list[bytes] = []
    for batch in encode.batches(requests, 29, first, limit_bytes):
        parts = list(tlv.messages(batch.data))
        assert len(batch.data) <= limit_bytes or len(parts) == 1
        assert [kind for kind, _, _, _ in parts] == [29] * len(parts)
        assert [bool(flags & a.NLM_F_ACK) for _, flags, _, _ in parts] == [False] * (len(parts) - 1) + [True]
        assert batch.last == parts[-1][2]
        sequences += [sequence for _, _, sequence, _ in parts]
        sent += [batch.changes[sequence] for _, _, sequence, _ in parts]
        bodies += [body for _, _, _, body in parts]
    assert sequences == [(first + index) % 2**32 for index in range(len(changes))]
    assert sent == changes
    assert bodies == [body for _, body in requests]


@pytest.mark.parametrize(
    "change",
    [
        AddReal(KEY, REAL, RealRow(Forward.NAT, -1)),
        AddReal(KEY, REAL, RealRow(Forward.NAT, 2**32)),
        AddReal(KEY, Endpoint(REAL.address, 65536), REAL_ROW),
        AddVirtual(KEY, VirtualRow("rr", persistence_s=2**32)),
        AddVirtual(KEY, VirtualRow("rr", persistence_s=1, persistence_prefix=33)),
        AddVirtual(KEY6, VirtualRow("rr", persistence_s=1, persistence_prefix=-1)),
        AddVirtual(KEY, VirtualRow("r\u00fcckw\u00e4rts")),
    ],
)
def test_value_that_does_not_fit_is_a_kernel_error(change: Change) -> None:
    with pytest.raises(KernelError, match=r"cannot (add|create) .*10\.0\.0\.1:80|\[2001:db8::1\]:80"):
        encode.encode(change)


def test_prefix_without_persistence_is_the_whole_address() -> None:
    for key, full in ((KEY, 32), (KEY6, 128)):
        found = decode_service(service_dump(key, VirtualRow("rr", persistence_prefix=24), Counters()))
        assert isinstance(found, Service)
        assert found.row == VirtualRow("rr", persistence_prefix=full)


def test_ipv4_mask_is_in_network_order_and_ipv6_prefix_in_the_hosts() -> None:
    row = VirtualRow("rr", persistence_s=300, persistence_prefix=24)
    assert struct.pack("=HH", 8, a.SVC_NETMASK) + b"\xff\xff\xff\0" in encode.service(KEY, row)
    assert struct.pack("=HHI", 8, a.SVC_NETMASK, 24) in encode.service(KEY6, row)


def _service_with(kind: int, value: bytes) -> bytes:
    """A dump of KEY with persistence in which one attribute is replaced (a later one of a type holds)."""
    return service_dump(KEY, VirtualRow("rr", persistence_s=9), Counters(), tlv.attribute(kind, value))


@pytest.mark.parametrize(
    ("body", "what", "reason", "key"),
    [
        (_service_with(a.SVC_PROTOCOL, struct.pack("=H", 132)), "sctp 10.0.0.1:80", "sctp", None),
        (_service_with(a.SVC_PROTOCOL, struct.pack("=H", 99)), "protocol 99 10.0.0.1:80", "protocol 99", None),
        (_service_with(a.SVC_AF, struct.pack("=H", 7)), "a virtual server", "address family is 7", None),
        (_service_with(a.SVC_PE_NAME, b"sip\0"), "tcp 10.0.0.1:80", "persistence engine sip", KEY),
        (_service_with(a.SVC_FLAGS, struct.pack("=II", 0x42, 0)), "tcp 10.0.0.1:80", "unknown flags 0x40", KEY),
        (_service_with(a.SVC_TIMEOUT, bytes(4)), "tcp 10.0.0.1:80", "a timeout of 0", KEY),
        (_service_with(a.SVC_NETMASK, b"\xff\0\xff\0"), "tcp 10.0.0.1:80", "holes", KEY),
    ],
)
def test_service_the_model_cannot_hold_is_foreign(body: bytes, what: str, reason: str, key: VirtualKey | None) -> None:
    found = decode_service(body)
    assert isinstance(found, Foreign)
    assert (found.what, found.key, found.real) == (what, key, None)
    assert reason in found.reason


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (u32(a.DEST_FWD_METHOD, 5), "forwarding method is 5"),
        (u32(a.DEST_FWD_METHOD, 2) + tlv.attribute(a.DEST_TUN_TYPE, b"\1"), "gue"),
        (u32(a.DEST_FWD_METHOD, 2) + tlv.attribute(a.DEST_TUN_TYPE, b"\2"), "gre"),
        (u32(a.DEST_FWD_METHOD, 2) + tlv.attribute(a.DEST_TUN_TYPE, b"\7"), "type 07"),
        (u32(a.DEST_FWD_METHOD, 2) + tlv.attribute(a.DEST_TUN_FLAGS, b"\1\0"), "flags 0100"),
        (tlv.attribute(a.DEST_ADDR_FAMILY, struct.pack("=H", 7)), "address family is 7"),
    ],
)
def test_destination_the_model_cannot_hold_is_foreign(extra: bytes, reason: str) -> None:
    found = decode_destination(destination_dump(REAL, REAL_ROW, RealCounters(), extra), KEY)
    assert isinstance(found, Foreign)
    assert found.key == KEY
    assert reason in found.reason


def test_tunnel_attributes_of_a_server_without_tunnel_mean_nothing() -> None:
    body = destination_dump(REAL, REAL_ROW, RealCounters(), tlv.attribute(a.DEST_TUN_TYPE, b"\1"))
    assert decode_destination(body, KEY) == Destination(REAL, REAL_ROW, RealCounters())


DECODERS: list[Callable[[bytes], object]] = [
    decode_service,
    lambda body: decode_destination(body, KEY),
    lambda body: decode_destination(body, KEY6),
    decode_version,
    decode_family,
    lambda body: list(tlv.messages(body)),
    tlv.attributes,
    lambda body: tlv.acknowledgement(0, body),
    lambda body: tlv.acknowledgement(a.NLM_F_ACK_TLVS, body),
    lambda body: tlv.acknowledgement(a.NLM_F_ACK_TLVS | a.NLM_F_CAPPED, body),
]
SAMPLES = [
    service_dump(KEY, VirtualRow("mh", persistence_s=5), Counters(1, 2, 3, 4, 5)),
    service_dump(VirtualKey(6, mark=9), ROW, Counters()),
    destination_dump(REAL, REAL_ROW, RealCounters(1, 2, 3, Counters())),
    destination_dump(Endpoint(ip_address("::1"), 1), RealRow(Forward.TUN, 1), RealCounters()),
]


@given(st.binary(max_size=400))
def test_any_bytes_are_a_value_or_a_kernel_error(body: bytes) -> None:
    for decode in DECODERS:
        with suppress(KernelError):
            decode(body)


@given(st.sampled_from(SAMPLES), st.data())
def test_damaged_message_is_a_value_or_a_kernel_error(body: bytes, data: st.DataObject) -> None:
    damaged = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(damaged[: data.draw(st.integers(0, len(body)))])
    for whole in (bytes(damaged), cut):
        for decode in DECODERS:
            with suppress(KernelError):
                decode(whole)


@pytest.mark.parametrize("length", [0, 1, 3, 9, 0xFFFF])
def test_attribute_length_is_never_trusted(length: int) -> None:
    with pytest.raises(KernelError, match=f"an attribute of {length} bytes where 8 are left"):
        tlv.attributes(struct.pack("=HHI", length, 1, 0))


@pytest.mark.parametrize("length", [0, 15, 21, 0xFFFFFFFF])
def test_message_length_is_never_trusted(length: int) -> None:
    with pytest.raises(KernelError, match=f"a message of {length} bytes where 20 are left"):
        list(tlv.messages(struct.pack("=IHHIII", length, 29, 0, 1, 0, 0)))


def test_last_attribute_may_lack_its_padding() -> None:
    assert tlv.attributes(struct.pack("=HHB", 5, 1, 7)) == {1: b"\7"}


def test_acknowledgement_carries_the_kernels_words() -> None:
    request = tlv.message(29, 5, 1, tlv.generic(1, 1, tlv.attribute(1, b"abc")))
    words = tlv.attribute(a.NLMSGERR_ATTR_MSG, b"no such thing\0")
    refused = struct.pack("=i", -22)
    whole = tlv.acknowledgement(a.NLM_F_ACK_TLVS, refused + request + words)
    capped = tlv.acknowledgement(a.NLM_F_ACK_TLVS | a.NLM_F_CAPPED, refused + request[:16] + words)
    assert whole == capped == tlv.Acknowledgement(22, "no such thing")
    assert tlv.acknowledgement(0, refused + request) == tlv.Acknowledgement(22)
