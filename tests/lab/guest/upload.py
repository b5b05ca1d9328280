"""Uploads to port 8080 of each address at once: `python upload.py BYTES LIMIT_S ADDRESS...`.

Prints a JSON list of the addresses that took it within the limit.
"""

import json
import socket
import sys
import threading


def main() -> None:
    size, limit_s = int(sys.argv[1]), float(sys.argv[2])
    taken: list[str] = []

    def upload(address: str) -> None:
        try:
            with socket.create_connection((address, 8080), limit_s) as peer:
                peer.sendall(size.to_bytes(4, "big") + b"x" * size)
                if peer.recv(5, socket.MSG_WAITALL) == b"taken":
                    taken.append(address)
        except OSError:
            pass

    threads = [threading.Thread(target=upload, args=(address,)) for address in sys.argv[3:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.stdout.write(json.dumps(sorted(taken)))


if __name__ == "__main__":
    main()
