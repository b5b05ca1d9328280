"""A Debian machine with systemd, booted in the user-mode kernel from a tree, and hosts around it.

One rule: it always ends, with its processes and its folder, however its owner ends (director.lab.keeper).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from director.lab import folder as folders
from director.lab.bytecode import PROJECT
from director.lab.channel import Channel
from director.lab.errors import KernelLostError
from director.lab.hosts import Lab
from director.lab.kernels import Keeper, uml_command
from director.lab.topology import load

_INIT = Path(__file__).with_name("guest") / "init.py"
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
}


class Machine:
    """A machine whose agent answers; systemd may still be starting what it starts.

    `mounts` are folders that it sees, read-only, below /run/lab by their names; the project is there anyway.

    Raises: KernelLostError when it does not come up, with its console.
    """

    def __init__(self, tree: Path, mounts: Mapping[str, Path], memory: str = "1G", boot_limit_s: float = 90.0) -> None:
        folders.sweep()
        seen = {"project": str(PROJECT), **{name: str(path) for name, path in mounts.items()}}
        told = {"tree": str(tree), "mounts": seen, "environment": ENVIRONMENT}
        ours, theirs = socket.socketpair()
        self._keeper = Keeper(told, lambda folder: uml_command(folder, theirs, memory, str(_INIT), str(folder)), theirs)
        self.folder = self._keeper.folder
        self.console = self._keeper.console_tail
        self._channel = Channel(ours, self.folder, self.console)
        started_at = time.monotonic()
        try:
            self._channel.wait(self._channel.ready, self._channel.ready.ended, boot_limit_s)
        except KernelLostError:
            self.close()
            raise
        self.boot_s = time.monotonic() - started_at

    def lay_out(self, topology: Path) -> Lab:
        """Hosts around the machine, which is the host `machine` of the topology."""
        return Lab(self._channel, load(topology), ENVIRONMENT)

    def close(self) -> None:
        """End it; a second call does nothing."""
        self._channel.close()
        self._keeper.close()

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
