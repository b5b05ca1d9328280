"""Answers each UDP datagram with a name: `python udp_names.py NAME PORT`, on IPv4 and IPv6."""

import socket
import sys


def main() -> None:
    name, port = sys.argv[1].encode(), int(sys.argv[2])
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(("::", port))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            server.sendto(name, server.recvfrom(2048)[1])


if __name__ == "__main__":
    main()
