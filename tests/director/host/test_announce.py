"""The frames, byte by byte, and what an Announcer says when it cannot send."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.host.announce import (
    ARP_REPLY,
    ARP_REQUEST,
    gratuitous_arp,
    internet_checksum,
    neighbour_advertisement,
)

pytestmark = pytest.mark.unit

MAC = bytes.fromhex("1626bc0d0d28")


def test_gratuitous_request_leaves_target_mac_zero() -> None:
    assert gratuitous_arp(IPv4Address("192.0.2.10"), MAC, ARP_REQUEST).hex(" ") == (
        "ff ff ff ff ff ff 16 26 bc 0d 0d 28 08 06 "  # broadcast, from us, ARP
        "00 01 08 00 06 04 00 01 "  # Ethernet, IPv4, lengths 6 and 4, request
        "16 26 bc 0d 0d 28 c0 00 02 0a "  # sender
        "00 00 00 00 00 00 c0 00 02 0a"  # target
    )


def test_gratuitous_reply_names_our_mac_as_target() -> None:
    frame = gratuitous_arp(IPv4Address("192.0.2.10"), MAC, ARP_REPLY)
    assert frame[20:22].hex() == "0002"
    assert frame[22:].hex(" ") == "16 26 bc 0d 0d 28 c0 00 02 0a 16 26 bc 0d 0d 28 c0 00 02 0a"


def test_advertisement_is_the_one_that_tcpdump_found_correct() -> None:
    """Captured from a veth pair, where tcpdump -vv said `icmp6 sum ok`, `hlim 255`, `Flags [override]`."""
    assert neighbour_advertisement(IPv6Address("2001:db8::10"), MAC).hex(" ") == (
        "33 33 00 00 00 01 16 26 bc 0d 0d 28 86 dd "
        "60 00 00 00 00 20 3a ff 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 10 "
        "ff 02 00 00 00 00 00 00 00 00 00 00 00 00 00 01 "
        "88 00 1b b2 20 00 00 00 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 10 "
        "02 01 16 26 bc 0d 0d 28"
    )


@pytest.mark.parametrize(("router", "flags"), [(False, 0x20), (True, 0xA0)])
def test_router_flag_follows_the_host(router: bool, flags: int) -> None:
    assert neighbour_advertisement(IPv6Address("2001:db8::10"), MAC, router=router)[58] == flags


@given(st.ip_addresses(v=6), st.binary(min_size=6, max_size=6), st.booleans())
def test_advertisement_checksum_agrees_with_arithmetic_modulo_65535(
    address: IPv6Address, mac: bytes, router: bool
) -> None:
    """Another way to the same sum: as 2**16 is 1 modulo 65535, a number is its words' sum there.

    A correct packet's words, pseudo-header included, are then 0 modulo 65535 (RFC 1071, 1).
    """
    frame = neighbour_advertisement(address, mac, router=router)
    source_and_target, message = frame[22:54], frame[54:]
    pseudo = source_and_target + len(message).to_bytes(4, "big") + (58).to_bytes(4, "big")
    assert int.from_bytes(pseudo + message, "big") % 0xFFFF == 0
    assert len(frame) == 86


@given(st.binary(max_size=64))
def test_checksum_makes_the_whole_sum_to_zero(data: bytes) -> None:
    even = data + b"\0" * (len(data) % 2)
    assert internet_checksum(even + internet_checksum(data).to_bytes(2, "big")) == 0
