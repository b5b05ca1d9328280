"""Asks peer_names.py through virtual servers: `python ask_peers.py tcp:ADDRESS:PORT udp:ADDRESS:PORT@FROM ...`.

FROM is a port of the client's own, for the same flow again. Prints a JSON object of answers; one that did not come
within 1 s is null.
"""

import json
import socket
import sys

LIMIT_S = 1.0


def ask(protocol: str, address: str, port: int, source: int) -> str:
    if protocol == "tcp":
        with socket.create_connection((address, port), LIMIT_S) as peer:
            return peer.recv(2048).decode()
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.settimeout(LIMIT_S)
        peer.bind(("", source))
        peer.connect((address, port))
        peer.send(b"who")
        return peer.recv(2048).decode()


def main() -> None:
    answers: dict[str, str | None] = {}
    for wanted in sys.argv[1:]:
        protocol, _, rest = wanted.partition(":")
        target, _, source = rest.partition("@")
        address, _, port = target.rpartition(":")
        try:
            answers[wanted] = ask(protocol, address, int(port), int(source or 0))
        except OSError:
            answers[wanted] = None
    sys.stdout.write(json.dumps(answers))


if __name__ == "__main__":
    main()
