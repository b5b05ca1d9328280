"""A backend on TCP port 8080: short answers, downloads that take their time, and tunnels that say everything back."""

import socket
import sys
import threading
import time

PIECE = b"x" * 4096
PAUSE_S = 0.1


def head_of(peer: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        got = peer.recv(4096)
        if not got:
            return b""
        head += got
    return head


def serve(peer: socket.socket) -> None:
    with peer:
        while head := head_of(peer):
            target = head.split(b" ", 2)[1]
            if b"upgrade: websocket" in head.lower():
                peer.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
                while said := peer.recv(4096):
                    peer.sendall(said)
                return
            if target.startswith(b"/download/"):
                count = int(target.rpartition(b"/")[2])
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (count * len(PIECE)))
                for _ in range(count):
                    peer.sendall(PIECE)
                    time.sleep(PAUSE_S)
            else:
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def main() -> None:
    with socket.create_server(("", 8080), backlog=256) as listening:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            peer, _ = listening.accept()
            threading.Thread(target=serve, args=(peer,), daemon=True).start()


if __name__ == "__main__":
    main()
