"""A Unix socket that operators ask a program at.

One rule: whoever may open it is its user and group, from the first moment; a socket that a dead process left is
replaced, one that answers, or another kind of file, never is.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from director.kit.errors import HostError

MODE = 0o660
BACKLOG = 64
LONGEST_PATH = 107
"""Bytes (unix(7): sun_path has 108, the last one 0)."""


@contextmanager
def listening(path: Path, program: str = "director") -> Iterator[socket.socket]:
    """A Unix socket at `path`, mode 0660, that connections wait at until somebody answers them.

    One that a dead process left there is replaced; one that answers, or another kind of file, is not. `program` is
    what the one that asks for it is called.
    Raises: HostError when it cannot be had.
    """
    listener = open_at(path, program)
    try:
        with listener:
            yield listener
    finally:
        path.unlink(missing_ok=True)


def open_at(path: Path, program: str = "director", another: str = "give this one another --socket") -> socket.socket:
    """The same for who closes it, and removes `path`, by themselves. `another` is what helps where it is taken.

    Raises: HostError when it cannot be had.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        _bind(listener, path, program, another)
    except OSError as error:
        listener.close()
        advice = ": run as root" if error.errno in {errno.EACCES, errno.EPERM} else ""
        raise HostError(f"could not open the admin socket {path}: {error.strerror or error}{advice}") from error
    except BaseException:
        listener.close()
        raise
    return listener


def _bind(listener: socket.socket, path: Path, program: str, another: str) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if path.is_socket():
        if answers(path):
            raise HostError(f"another {program} answers on {path}: stop it first, or {another}")
        path.unlink(missing_ok=True)
    elif path.exists():
        raise HostError(f"{path} is in the way of the admin socket: it is no socket, so {another}")
    listener.bind(str(path))
    try:
        path.chmod(MODE)  # before listen(): nobody can connect with the mode that bind gave it
        listener.listen(BACKLOG)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def answers(path: Path) -> bool:
    """Whether somebody listens at `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(1.0)
        try:
            peer.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # too busy to accept (EAGAIN), or of another kind: somebody is there
            return True
    return True
