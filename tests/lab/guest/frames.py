"""Tells which TCP packets with SYN come in: `python frames.py [PORT ...]`; it also listens on these ports.

One rule: only what came in by an Ethernet interface for this host counts, so that a tunnel's packet is told once, with
what is inside. A line of JSON each: at, network, macs (from, to), outer (addresses, or null), packet (address:port).
"""

import json
import socket
import struct
import sys
from typing import Any

ETHERNET, FOR_US = 1, 0  # linux/if_arp.h, linux/if_packet.h
TCP, IPIP = 6, 4
SO_TIMESTAMPNS = 35


def ipv4(packet: bytes) -> tuple[int, list[str], bytes]:
    """Protocol, addresses and payload."""
    length = (packet[0] & 15) * 4
    return packet[9], [socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])], packet[length:]


def told(frame: bytes) -> dict[str, Any] | None:
    """What a frame holds, or None where it is no SYN."""
    if frame[12:14] != b"\x08\x00":
        return None
    protocol, addresses, payload = ipv4(frame[14:])
    outer = None
    if protocol == IPIP:
        outer = addresses
        protocol, addresses, payload = ipv4(payload)
    if protocol != TCP or not payload[13] & 2:
        return None
    ports = struct.unpack_from("!HH", payload)
    return {
        "macs": [frame[6:12].hex(":"), frame[0:6].hex(":")],
        "outer": outer,
        "packet": [f"{address}:{port}" for address, port in zip(addresses, ports, strict=True)],
    }


listening = [socket.create_server(("0.0.0.0", int(port))) for port in sys.argv[1:]]
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
sys.stdout.write("ready\n")
sys.stdout.flush()
while True:
    frame, ancillary, _, (interface, _, kind, hardware, _) = wire.recvmsg(2048, 64)
    if kind == FOR_US and hardware == ETHERNET and (found := told(frame)) is not None:
        seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
        sys.stdout.write(json.dumps({"at": seconds * 10**9 + nanoseconds, "network": interface, **found}) + "\n")
        sys.stdout.flush()
