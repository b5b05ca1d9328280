"""The agent's end of the line to the forker (director.lab.guest.forker).

One rule: nothing here waits.
"""

import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence

from director.lab.guest import jobs

ORDER_BYTES = 1 << 14
"""The longest order; a longer one is for exec."""


class Forker:
    """A running forker; `line` is readable when `hear` has something to tell.

    Raises: OSError when it cannot be started.
    """

    def __init__(self, argv: list[str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        self.line = self._socket.fileno()
        self.has_served = False
        actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)]
        with theirs:
            self.pid = os.posix_spawn(argv[0], argv, dict(os.environ), file_actions=actions, setsid=True)

    def ask(self, number: int, order: Mapping[str, object], fds: Sequence[int]) -> bool:
        """Have an order run with the descriptors `fds`; False when it is too long for the line, or nobody is there."""
        message = json.dumps({"job": number, "argv": order["argv"], "env": order["env"]}).encode()
        if len(message) > ORDER_BYTES:
            return False
        try:
            socket.send_fds(self._socket, [message], fds)
        except OSError:
            return False
        return True

    def hear(self) -> Iterator[Mapping[str, int]]:
        """What it has said since. Raises: EOFError when it is gone."""
        while True:
            try:
                text = self._socket.recv(4096)
            except BlockingIOError:
                return
            except OSError:
                text = b""
            if not text:
                raise EOFError
            self.has_served = True
            yield json.loads(text)

    def close(self) -> None:
        """End it, and all it has forked."""
        jobs.kill_tree(self.pid)
        self._socket.close()
