"""Answers over TCP and UDP with a name and the client's address as seen here: `python peer_names.py NAME PORT`."""

import contextlib
import socket
import sys
import threading
from ipaddress import IPv6Address


def answer(name: str, peer: str) -> bytes:
    address = IPv6Address(peer)
    return f"{name} sees {address.ipv4_mapped or address}".encode()


def bound(kind: socket.SocketKind, port: int) -> socket.socket:
    server = socket.socket(socket.AF_INET6, kind)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(("::", port))
    return server


def udp(name: str, server: socket.socket) -> None:
    while True:
        client = server.recvfrom(2048)[1]
        with contextlib.suppress(OSError):  # there may be no way back
            server.sendto(answer(name, client[0]), client)


def main() -> None:
    name, port = sys.argv[1], int(sys.argv[2])
    streams, datagrams = bound(socket.SOCK_STREAM, port), bound(socket.SOCK_DGRAM, port)
    streams.listen()
    threading.Thread(target=udp, args=(name, datagrams), daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        peer, client = streams.accept()
        with peer:
            peer.sendall(answer(name, client[0]))


if __name__ == "__main__":
    main()
