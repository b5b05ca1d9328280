"""Questions and answers byte by byte; that real hosts understand them is the lab's matter."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from director.doctor.wire import advertised, arp_answer, arp_request, echo_answer, solicitation

pytestmark = pytest.mark.unit

MAC = bytes.fromhex("020900000021")
FOUR, SIX = IPv4Address("10.9.0.100"), IPv6Address("fd09::1:2:3")


def test_arp_request_asks_everybody_in_its_senders_name() -> None:
    frame = arp_request(FOUR, MAC, IPv4Address("10.9.0.2"))
    assert frame.hex() == "ffffffffffff020900000021080600010800060400010209000000210a0900020000000000000a090064"
    assert arp_request(FOUR, MAC, None)[28:32] == bytes(4)
    assert arp_answer(frame) is None, "a question is no answer"


def test_arp_answer_says_who_has_what() -> None:
    frame = bytes.fromhex("020900000002020900000021080600010800060400020209000000210a0900640209000000020a090002")
    assert arp_answer(frame) == (FOUR, "02:09:00:00:00:21")
    assert arp_answer(frame + bytes(18)) == (FOUR, "02:09:00:00:00:21"), "padded to 60 bytes"
    assert arp_answer(frame[:41]) is None


def test_solicitation_goes_to_the_group_of_the_addresses_last_bits() -> None:
    message, group = solicitation(SIX, MAC)
    assert group == "ff02::1:ff02:3"
    assert (message[0], message[8:24], message[24:]) == (135, SIX.packed, b"\x01\x01" + MAC)


def test_advertisement_says_who_has_what() -> None:
    message = struct.pack("!BBHI16sBB6s", 136, 0, 0, 0, SIX.packed, 2, 1, MAC)
    assert advertised(message) == (SIX, "02:09:00:00:00:21")
    assert advertised(message[:24]) is None, "without a link-layer address"
    assert advertised(solicitation(SIX, MAC)[0]) is None


REQUEST = {4: struct.pack("!BBHHH", 8, 0, 0, 7, 1), 6: struct.pack("!BBHHH", 128, 0, 0, 7, 1)}
HEADER = {4: bytes([0x45]) + bytes(15) + FOUR.packed, 6: bytes(24) + SIX.packed}
OUTER = {4: bytes([0x45]) + bytes(19), 6: b""}


def reply(version: int, mark: int) -> bytes:
    return OUTER[version] + struct.pack("!BBHHH", 0 if version == 4 else 129, 0, 0, mark, 1)


def exceeded(version: int, inside: bytes) -> bytes:
    return OUTER[version] + struct.pack("!BBHI", 11 if version == 4 else 3, 0, 0, 0) + HEADER[version] + inside


@pytest.mark.parametrize("version", [4, 6])
def test_an_echo_arrives_is_turned_away_or_is_somebody_elses(version: int) -> None:
    address = FOUR if version == 4 else SIX
    assert echo_answer(reply(version, 7), version, 7, address) is True
    assert echo_answer(exceeded(version, REQUEST[version]), version, 7, address) is False
    for message in (reply(version, 8), exceeded(version, REQUEST[version])[:-3], b"", bytes([0x45])):
        assert echo_answer(message, version, 7, address) is None
    assert echo_answer(exceeded(version, REQUEST[version]), version, 8, address) is None
    other = ip_address("10.9.0.101") if version == 4 else ip_address("fd09::1")
    assert echo_answer(exceeded(version, REQUEST[version]), version, 7, other) is None
