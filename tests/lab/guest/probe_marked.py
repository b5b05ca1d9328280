"""Asks who answers, each from a socket with a mark: `python probe_marked.py JSON`, all at the same time.

JSON is a list of [kind, mark, source, address, port]; prints a JSON list of names, or why there is none.
"""

import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

LIMIT_S = 1.0


def ask(kind: str, mark: int, source: str, address: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as peer:
        peer.settimeout(LIMIT_S)
        if mark:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        if source:
            peer.bind((source, 0))
        try:
            peer.connect((address, port))
            peer.send(b"who")
            return peer.recv(100).decode()
        except TimeoutError:
            return "nobody"
        except OSError as error:
            return str(error.strerror)


def main() -> None:
    asked = json.loads(sys.argv[1])
    with ThreadPoolExecutor(len(asked)) as pool:
        json.dump(list(pool.map(lambda each: ask(*each), asked)), sys.stdout)


if __name__ == "__main__":
    main()
