"""Sends HTTP requests one after another, each over a connection of its own, and tells of each on stdout.

Runs on the lab's client as a plain script: Python's own library only, and a socket rather than http.client,
since a user-mode kernel charges for every system call.

    python traffic.py SECONDS PAUSE_S ADDRESS HOST PATH [ADDRESS HOST PATH ...]

It asks for each target in turn until SECONDS are over. One JSON object a line: `at` is the monotonic time of the start.
"""

import json
import socket
import sys
import time

TIMEOUT_S = 2.0


def ask(address: str, host: str, path: str) -> tuple[int, bytes]:
    """Status and body of one GET. Raises: OSError, ValueError."""
    with socket.create_connection((address, 80), TIMEOUT_S) as peer:
        peer.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while chunk := peer.recv(65536):
            answer += chunk
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator:
        raise ValueError("the answer was cut off")
    return int(head.split(b" ", 2)[1]), body


def main() -> None:
    seconds, pause_s = float(sys.argv[1]), float(sys.argv[2])
    words = sys.argv[3:]
    targets = [words[index : index + 3] for index in range(0, len(words), 3)]
    end_at = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end_at:
        address, host, path = targets[number % len(targets)]
        number += 1
        at = time.monotonic()
        told = {"at": at, "url": f"http://{host}{path}", "to": address, "ok": False}
        try:
            status, body = ask(address, host, path)
            told |= {"ok": status == 200, "status": status}
            told |= json.loads(body) if status == 200 else {"error": f"status {status}: {body[:80].decode()}"}
        except (OSError, ValueError) as error:
            told["error"] = str(error) or type(error).__name__
        told["took_s"] = round(time.monotonic() - at, 6)
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        time.sleep(pause_s)


if __name__ == "__main__":
    main()
