"""Asks a virtual server over and over who answers: `python ask_names.py tcp|udp ADDRESS PORT COUNT [SOURCE]`.

Each time from a new socket. Prints a JSON list of names; an attempt without an answer within 2 s is null.
"""

import json
import socket
import sys


def tcp(address: tuple[str, int], source: tuple[str, int] | None) -> str:
    with socket.create_connection(address, 2.0, source) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while chunk := peer.recv(65536):
            answer += chunk
    return str(json.loads(answer.partition(b"\r\n\r\n")[2])["server"])


def udp(address: tuple[str, int], source: tuple[str, int] | None) -> str:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as peer:
        peer.settimeout(2.0)
        if source:
            peer.bind(source)
        peer.sendto(b"who", address)
        return peer.recvfrom(2048)[0].decode()


def main() -> None:
    ask = {"tcp": tcp, "udp": udp}[sys.argv[1]]
    address = (sys.argv[2], int(sys.argv[3]))
    source = (sys.argv[5], 0) if len(sys.argv) > 5 else None
    names: list[str | None] = []
    for _ in range(int(sys.argv[4])):
        try:
            names.append(ask(address, source))
        except OSError:
            names.append(None)
    sys.stdout.write(json.dumps(names))


if __name__ == "__main__":
    main()
