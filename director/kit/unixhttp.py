"""HTTP over a Unix socket, for the client; imported only when something is asked, for it takes its time."""

from __future__ import annotations

import http.client
import socket
from http.client import HTTPException
from pathlib import Path

__all__ = ["HTTPException", "UnixConnection"]


class UnixConnection(http.client.HTTPConnection):
    """A connection to the server that listens at `path`; `host` is what it is called in requests."""

    def __init__(self, path: Path, timeout_s: float, host: str = "director") -> None:
        super().__init__(host, timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
