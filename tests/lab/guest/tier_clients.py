"""Clients of a VIP, all at once, until SIGTERM: new connections, connections that are kept, downloads and tunnels.

Each line is what became of one of them: `{"kind": ..., "ok": ..., "via": ...}`.
"""

import json
import signal
import socket
import sys
import threading
import time

ADDRESS, DOWNLOADED, TUNNEL_S = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
PIECE_BYTES = 4096
over = threading.Event()
writing = threading.Lock()


def tell(kind: str, ok: bool, **more: object) -> None:
    with writing:
        sys.stdout.write(json.dumps({"kind": kind, "ok": ok, "at": time.time(), **more}) + "\n")
        sys.stdout.flush()


def answer(peer: socket.socket, asked: bytes) -> tuple[bytes, bytes]:
    """The head of the answer, and what came behind it."""
    peer.sendall(asked)
    got = b""
    while b"\r\n\r\n" not in got:
        more = peer.recv(65536)
        if not more:
            raise OSError(f"the end came after {got!r}")
        got += more
    head, _, rest = got.partition(b"\r\n\r\n")
    return head, rest


def connected() -> socket.socket:
    peer = socket.create_connection((ADDRESS, 80), 10)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peer


def short() -> None:
    with connected() as peer:
        head, _ = answer(peer, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        tell("short", head.startswith(b"HTTP/1.1 200"), head=head.decode()[:40])
    time.sleep(0.05)


def kept() -> None:
    with connected() as peer:
        while not over.is_set():
            head, rest = answer(peer, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            while len(rest) < 2 and b" 200 " in head:
                rest += peer.recv(100)
            tell("kept", head.startswith(b"HTTP/1.1 200"), head=head.decode()[:40])
            if b"connection: close" in head.lower():
                return
            time.sleep(0.1)


def download() -> None:
    with connected() as peer:
        head, rest = answer(peer, b"GET /download/%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % DOWNLOADED)
        size = len(rest)
        while more := peer.recv(65536):
            size += len(more)
        tell("download", head.startswith(b"HTTP/1.1 200") and size == DOWNLOADED * PIECE_BYTES, size=size)


def tunnel() -> None:
    with connected() as peer:
        asked = (
            b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\n"
        )
        head, _ = answer(peer, asked + b"Sec-WebSocket-Version: 13\r\n\r\n")
        ok = head.startswith(b"HTTP/1.1 101")
        ends_at = time.monotonic() + TUNNEL_S
        while ok and time.monotonic() < ends_at:
            peer.sendall(b"said")
            ok = peer.recv(4, socket.MSG_WAITALL) == b"said"
            time.sleep(0.1)
        tell("tunnel", ok, head=head.decode()[:40])


def again_and_again(what: object) -> None:
    while not over.is_set():
        try:
            what()  # type: ignore[operator] # one of those above
        except OSError as error:
            tell(what.__name__, False, error=repr(error))  # type: ignore[attr-defined] # the same


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    threads = [threading.Thread(target=again_and_again, args=(what,)) for what in (short, kept, kept, download, tunnel)]
    threads += [threading.Thread(target=again_and_again, args=(what,)) for what in (download, tunnel)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
