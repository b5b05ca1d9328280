"""Tells its name to whoever asks on port 80, TCP and UDP over IPv4 and IPv6: `python name_server.py NAME`.

A UDP answer comes from the address that was asked, also where that is one of many.
"""

import socket
import sys
import threading
from contextlib import suppress

SOL_IP, IP_PKTINFO = 0, 8


def udp(name: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taking:
        taking.setsockopt(SOL_IP, IP_PKTINFO, 1)
        taking.bind(("", 80))
        while True:
            _, extra, _, client = taking.recvmsg(100, 100)
            asked = extra[0][2][8:12]  # ipi_addr of struct in_pktinfo
            taking.sendmsg([name], [(SOL_IP, IP_PKTINFO, bytes(4) + asked + bytes(4))], 0, client)


def main() -> None:
    name = sys.argv[1].encode()
    threading.Thread(target=udp, args=(name,), daemon=True).start()
    with socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True) as taking:
        print("ready", flush=True)  # noqa: T201
        while True:
            client, _ = taking.accept()
            with client, suppress(ConnectionError):  # a probe may only connect, and reset
                client.recv(100)
                client.send(name)


if __name__ == "__main__":
    main()
