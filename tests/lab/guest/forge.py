"""Sends forged IPv4 packets, or says which came: `python forge.py send INTERFACE MAC JSON`, `python forge.py watch`.

JSON is a list of [protocol, source, sport, destination, dport, tag]; tcp is a mere SYN, its sequence number the tag, as
is a datagram's payload. `watch` prints the tag of each packet that is delivered to this host, once it has said `ready`.
"""

import json
import select
import socket
import struct
import sys


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def packet(kind: str, source: str, sport: int, destination: str, dport: int, tag: int) -> bytes:
    ends = socket.inet_aton(source) + socket.inet_aton(destination)
    if kind == "tcp":
        number, body = 6, struct.pack("!HHIIBBHHH", sport, dport, tag, 0, 5 << 4, 2, 1000, 0, 0)
        summed = checksum(ends + struct.pack("!BBH", 0, number, len(body)) + body)
        body = body[:16] + struct.pack("!H", summed) + body[18:]
    else:
        number, body = 17, struct.pack("!HHHHI", sport, dport, 12, 0, tag)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, number, 0) + ends
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def send(interface: str, mac: str, wanted: list[tuple[str, str, int, str, int, int]]) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as wire:
        for each in wanted:
            wire.sendto(packet(*each), (interface, 0x0800, 0, 0, bytes.fromhex(mac.replace(":", ""))))


def watch() -> None:
    """A raw socket gets a copy of what is delivered here, after routing and the packet filter's INPUT."""
    taking = [socket.socket(socket.AF_INET, socket.SOCK_RAW, number) for number in (6, 17)]
    print("ready", flush=True)  # noqa: T201
    while True:
        for each in select.select(taking, [], [])[0]:
            data = each.recv(2048)[20:]
            at = 4 if each is taking[0] else 8
            if len(data) >= at + 4:
                print(struct.unpack("!I", data[at : at + 4])[0], flush=True)  # noqa: T201


if __name__ == "__main__":
    if sys.argv[1] == "watch":
        watch()
    else:
        send(sys.argv[2], sys.argv[3], json.loads(sys.argv[4]))
