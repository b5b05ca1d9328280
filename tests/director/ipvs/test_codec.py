"""The codec: what is encoded decodes to the same value, and nothing that arrives breaks the decoder."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.core.diff import (
    AddReal,
    AddVirtual,
    Change,
    EditReal,
    EditVirtual,
    RemoveReal,
    RemoveVirtual,
    SetTimeouts,
    StartSync,
    StopSync,
)
from director.core.table import (
    Counters,
    Foreign,
    Forward,
    Protocol,
    RealCounters,
    RealRow,
    SyncDaemon,
    SyncRole,
    Timeouts,
    Tunnel,
    TunnelFlags,
    TunnelKind,
    VirtualEntry,
    VirtualKey,
    VirtualRow,
)
from director.ipvs import attributes as a
from director.ipvs import encode, tlv
from director.ipvs.batch import batches
from director.ipvs.decode import (
    Destination,
    Service,
    decode_daemon,
    decode_destination,
    decode_family,
    decode_service,
    decode_timeouts,
    decode_version,
)
from director.ipvs.dump import Decoder
from director.kit.errors import KernelError
from director.kit.net import Endpoint
from tests.director.ipvs import strategies
from tests.director.ipvs.dumps import Build, daemon_dump, destination_dump, service_dump, u32

pytestmark = pytest.mark.unit

KEY = VirtualKey.of(Protocol.TCP, ip_address("10.0.0.1"), 80)
KEY6 = VirtualKey.of(Protocol.TCP, ip_address("2001:db8::1"), 80)
REAL = Endpoint(ip_address("10.0.0.2"), 80)
ROW, REAL_ROW = VirtualRow("rr"), RealRow(Forward.NAT, 1)
DAEMON = SyncDaemon(SyncRole.MASTER, "eth0", 7, maxlen=1400)
GUE = Tunnel(TunnelKind.GUE, 6080, TunnelFlags.CHECKSUM)
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


@given(strategies.keys(), strategies.endpoints, strategies.real_rows(), strategies.real_counters)
def test_destination_decodes_to_what_was_encoded(
    key: VirtualKey, real: Endpoint, row: RealRow, counters: RealCounters
) -> None:
    assert decode_destination(destination_dump(real, row, counters), key) == Destination(real, row, counters)


@given(strategies.daemons)
def test_sync_daemon_decodes_to_what_was_encoded(daemon: SyncDaemon) -> None:
    assert decode_daemon(daemon_dump(daemon)) == daemon
    found, attributes = tlv.generic_body(encode.encode(StartSync(daemon)))
    assert found == a.NEW_DAEMON
    assert decode_daemon(tlv.generic(found, 1, tlv.nested(a.CMD_DAEMON, attributes[a.CMD_DAEMON]))) == daemon


@given(strategies.timeouts)
def test_timeouts_decode_to_what_was_encoded(timeouts: Timeouts) -> None:
    assert decode_timeouts(encode.encode(SetTimeouts(None, timeouts))) == timeouts


def test_sync_daemon_is_stopped_by_role_and_interface() -> None:
    found, attributes = tlv.generic_body(encode.encode(StopSync(DAEMON)))
    assert found == a.DEL_DAEMON
    sent = tlv.attributes(attributes[a.CMD_DAEMON])
    assert (tlv.number(sent, a.DAEMON_STATE, 4), sent[a.DAEMON_MCAST_IFN]) == (a.STATE_MASTER, b"eth0\0")


def test_bound_that_nobody_asked_for_is_left_to_the_kernel() -> None:
    _, attributes = tlv.generic_body(encode.encode(StartSync(SyncDaemon(SyncRole.BACKUP, "eth0"))))
    assert a.DAEMON_SYNC_MAXLEN not in tlv.attributes(attributes[a.CMD_DAEMON])


@pytest.mark.parametrize("last", [StartSync(DAEMON), StopSync(DAEMON)], ids=["start", "stop"])
def test_batch_that_ends_with_a_sync_daemon_ends_with_a_request_that_is_answered(last: Change) -> None:
    changes = [AddVirtual(KEY, ROW), last]
    (batch,) = batches([(change, encode.encode(change)) for change in changes], 29, 2**32 - 1)
    parts = list(tlv.messages(batch.data))
    assert [(sequence, bool(flags & a.NLM_F_ACK)) for _, flags, sequence, _ in parts] == [
        (2**32 - 1, False),
        (0, False),
        (1, True),
    ]
    assert (batch.last, parts[-1][3]) == (1, encode.get_info())
    assert [batch.change(number) for number in (2**32 - 1, 0, 1)] == [*changes, None]


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
    sent: list[tuple[Change, bytes]] = []
    due = first
    for batch in batches(requests, 29, first, limit_bytes):
        parts = list(tlv.messages(batch.data))
        assert [kind for kind, _, _, _ in parts] == [29] * len(parts)
        assert [bool(flags & a.NLM_F_ACK) for _, flags, _, _ in parts] == [False] * (len(parts) - 1) + [True]
        assert batch.last == parts[-1][2]
        assert batch.change(parts[-1][2]) is not None or parts.pop()[3] == encode.get_info()
        assert sum(len(body) + 16 for _, _, _, body in parts) <= limit_bytes or len(parts) == 1
        assert all((sequence - due) % 2**32 < 2 * len(requests) for _, _, sequence, _ in parts)
        due = (batch.last + 1) % 2**32
        found = [(batch.change(sequence), body) for _, _, sequence, body in parts]
        sent += [(change, body) for change, body in found if change is not None]
        assert len(found) == len(batch.changes)
    assert sent == requests


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
        AddReal(KEY, REAL, RealRow(Forward.TUN, 1, tunnel=Tunnel(port=65536))),
    ],
)
def test_value_that_does_not_fit_is_a_kernel_error(change: Change) -> None:
    with pytest.raises(KernelError, match=r"cannot (add|create) .*10\.0\.0\.1:80|\[2001:db8::1\]:80"):
        encode.encode(change)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (SetTimeouts(None, Timeouts(2**32, 0, 0)), "cannot set the timeouts"),
        (StartSync(SyncDaemon(SyncRole.BACKUP, "lan", -1)), "cannot start the sync backup on lan"),
        (StartSync(SyncDaemon(SyncRole.BACKUP, "lan", ttl=256)), "cannot start the sync backup on lan"),
    ],
)
def test_value_of_the_namespace_that_does_not_fit_is_a_kernel_error(change: Change, what: str) -> None:
    with pytest.raises(KernelError, match=f"{what}.*does not fit the kernel's field"):
        encode.encode(change)


def test_prefix_without_persistence_means_nothing() -> None:
    for key in (KEY, KEY6):
        found = decode_service(service_dump(key, VirtualRow("rr", persistence_prefix=24), Counters()))
        assert isinstance(found, Service)
        assert found.row == VirtualRow("rr")


@pytest.mark.parametrize(("key", "full"), [(KEY, 32), (KEY6, 128)], ids=["IPv4", "IPv6"])
def test_prefix_of_the_whole_address_is_each_client_alone(key: VirtualKey, full: int) -> None:
    found = decode_service(service_dump(key, VirtualRow("rr", persistence_s=9, persistence_prefix=full), Counters()))
    assert isinstance(found, Service)
    assert found.row == VirtualRow("rr", persistence_s=9)


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
        (_service_with(a.SVC_PROTOCOL, struct.pack("=H", 50)), "esp 10.0.0.1:80", "esp", None),
        (_service_with(a.SVC_PROTOCOL, struct.pack("=H", 99)), "protocol 99 10.0.0.1:80", "protocol 99", None),
        (_service_with(a.SVC_AF, struct.pack("=H", 7)), "a virtual server", "address family is 7", None),
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
        (u32(a.DEST_FWD_METHOD, 2) + tlv.attribute(a.DEST_TUN_TYPE, b"\7"), "type 7"),
        (u32(a.DEST_FWD_METHOD, 2) + tlv.attribute(a.DEST_TUN_FLAGS, struct.pack("=H", 5)), "flags 0x5"),
        (tlv.attribute(a.DEST_ADDR_FAMILY, struct.pack("=H", 7)), "address family is 7"),
    ],
)
def test_destination_the_model_cannot_hold_is_foreign(extra: bytes, reason: str) -> None:
    found = decode_destination(destination_dump(REAL, REAL_ROW, RealCounters(), extra), KEY)
    assert isinstance(found, Foreign)
    assert found.key == KEY
    assert reason in found.reason


def test_sync_daemon_in_an_unknown_state_is_foreign() -> None:
    found = decode_daemon(daemon_dump(DAEMON, u32(a.DAEMON_STATE, 4)))
    assert isinstance(found, Foreign)
    assert "state is 4" in found.reason


def test_sync_daemon_of_an_old_kernel_has_the_only_group_there_was() -> None:
    told = u32(a.DAEMON_STATE, 1) + tlv.attribute(a.DAEMON_MCAST_IFN, b"eth0\0") + u32(a.DAEMON_SYNC_ID, 7)
    found = decode_daemon(tlv.generic(a.NEW_DAEMON, 1, tlv.nested(a.CMD_DAEMON, told)))
    assert found == SyncDaemon(SyncRole.MASTER, "eth0", 7)


def test_tunnel_port_is_in_network_order() -> None:
    body = encode.destination(REAL, RealRow(Forward.TUN, 1, tunnel=GUE))
    assert struct.pack("=HH", 6, a.DEST_TUN_PORT) + (6080).to_bytes(2, "big") in body


def test_tunnel_is_sent_with_tun_only() -> None:
    nat = encode.destination(REAL, RealRow(Forward.NAT, 1, tunnel=GUE))
    assert nat == encode.destination(REAL, REAL_ROW)
    plain = tlv.attributes(encode.destination(REAL, RealRow(Forward.TUN, 1))[a.NLA_HEADER_BYTES :])
    assert plain[a.DEST_TUN_TYPE] == bytes([a.TUNNEL_IPIP])


def test_old_kernel_has_no_tunnels_of_a_kind() -> None:
    body = destination_dump(REAL, RealRow(Forward.TUN, 1, tunnel=GUE), RealCounters(), build=Build.OLD)
    assert decode_destination(body, KEY) == Destination(REAL, RealRow(Forward.TUN, 1), RealCounters())


def test_tunnel_attributes_of_a_server_without_tunnel_mean_nothing() -> None:
    body = destination_dump(REAL, REAL_ROW, RealCounters(), tlv.attribute(a.DEST_TUN_TYPE, b"\1"))
    assert decode_destination(body, KEY) == Destination(REAL, REAL_ROW, RealCounters())


DECODERS: list[Callable[[bytes], object]] = [
    decode_service,
    lambda body: decode_destination(body, KEY),
    lambda body: decode_destination(body, KEY6),
    decode_version,
    decode_family,
    decode_timeouts,
    decode_daemon,
    lambda body: Decoder().service(body),
    lambda body: Decoder().destinations(KEY, [body]),
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
    destination_dump(Endpoint(ip_address("::1"), 1), RealRow(Forward.TUN, 1, tunnel=GUE), RealCounters()),
    daemon_dump(DAEMON),
    encode.encode(SetTimeouts(None, Timeouts(1, 2, 3))),
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


@given(
    st.lists(st.tuples(st.sampled_from((29, 30)), st.sampled_from((2, 3)), st.integers(6, 7), st.binary(max_size=9))),
    st.binary(max_size=20),
)
def test_messages_that_are_alike_and_the_rest_are_all_messages(
    parts: list[tuple[int, int, int, bytes]], tail: bytes
) -> None:
    def outcome(datagram: bytes, position: int) -> list[bytes] | str:
        try:
            return [body for _, _, _, body in tlv.messages(datagram, position)]
        except KernelError as error:
            return str(error)

    padded = [(kind, flags, sequence, body + bytes(-len(body) % 4)) for kind, flags, sequence, body in parts]
    datagram = b"".join(tlv.message(*part) for part in padded) + tail
    alike, end = tlv.alike(datagram, 29, 7)
    rest, every = outcome(datagram, end), outcome(datagram, 0)
    assert every == (alike + rest if isinstance(rest, list) else rest)
    heads = [(*part[:3], len(part[3])) for part in padded]
    assert all(head == heads[0] for head in heads[: len(alike)])
    assert not alike or heads[0][0] == 29
    assert not alike or heads[0][2] == 7


def test_dump_is_alike_to_its_end() -> None:
    body = destination_dump(REAL, REAL_ROW, RealCounters())
    datagram = tlv.message(29, 2, 7, body) * 70 + tlv.message(a.NLMSG_DONE, 2, 7, bytes(4))
    assert tlv.alike(datagram, 29, 7) == ([body] * 70, 70 * (16 + len(body)))
