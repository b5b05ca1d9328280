"""Takes uploads on TCP port 8080, both families: reads a 4-byte length and that many bytes, answers "taken"."""

import socket
import sys
import threading


def serve(peer: socket.socket) -> None:
    with peer:
        left = int.from_bytes(peer.recv(4, socket.MSG_WAITALL), "big")
        while left:
            chunk = peer.recv(min(left, 65536))
            if not chunk:
                return
            left -= len(chunk)
        peer.sendall(b"taken")


def main() -> None:
    with socket.create_server(("::", 8080), family=socket.AF_INET6, backlog=64, dualstack_ipv6=True) as listening:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            peer, _ = listening.accept()
            threading.Thread(target=serve, args=(peer,), daemon=True).start()


if __name__ == "__main__":
    main()
