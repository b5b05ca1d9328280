"""The daemon's admin socket: HTTP and JSON over a Unix socket, mode 0660."""

from pathlib import Path

SOCKET = Path("/run/director/director.sock")
