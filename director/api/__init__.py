"""The daemon's admin socket: HTTP and JSON over a Unix socket, mode 0660."""

from pathlib import Path

SOCKET = Path("/run/director/director.sock")

# The inode of a network namespace: in requests the asking one's, in answers the director's. A socket's path is
# the same in every network namespace of a host.
NAMESPACE_HEADER = "Director-Namespace"
