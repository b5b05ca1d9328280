"""A Debian machine with systemd, booted in the user-mode kernel from a tree, and hosts around it.

One rule: it always ends, with its processes and its folder, however its owner ends (director.lab.keeper).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from director.lab import folder as folders
from director.lab.bytecode import PROJECT
from director.lab.channel import Channel
from director.lab.errors import KernelLostError
from director.lab.hosts import Lab
from director.lab.topology import load

_PYTHON = os.path.realpath(sys.executable)
_INIT = Path(__file__).with_name("guest") / "init.py"
_CLOSE_S = 25.0
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
        self.folder, self._lock = folders.make_folder()
        seen = {"project": str(PROJECT), **{name: str(path) for name, path in mounts.items()}}
        told = {"tree": str(tree), "mounts": seen, "environment": ENVIRONMENT}
        (self.folder / "machine.json").write_text(json.dumps(told), encoding="utf-8")
        ours, theirs = socket.socketpair()
        command = [
            *(folders.UML, f"mem={memory}", "rootfstype=hostfs", "rootflags=/", "ro", "quiet", "loglevel=3"),
            *("panic=-1", "con=null", "con0=null,fd:1", "con1=null", "ssl=null", f"ssl0=fd:{theirs.fileno()}"),
            *(f"uml_dir={self.folder}", f"init={_PYTHON}", "--", "-SEsB", str(_INIT), str(self.folder)),
        ]
        code = f"import sys; sys.path.insert(0, {str(PROJECT)!r}); from director.lab.keeper import main; main()"
        self._keeper = subprocess.Popen(
            [_PYTHON, "-S", "-E", "-c", code, str(os.getpid()), str(self.folder), str(theirs.fileno()), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[theirs.fileno(), self._lock],
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(self.folder), "HOME": str(self.folder)},
        )
        theirs.close()
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

    def console(self, lines: int = 40) -> str:
        """The last lines of the kernel's console."""
        try:
            text = (self.folder / "console").read_text(errors="replace")
        except OSError:
            return "(there is no console)"
        return "its console's last lines:\n" + "\n".join(text.splitlines()[-lines:])

    def close(self) -> None:
        """End it; a second call does nothing."""
        self._channel.close()
        if self._keeper.stdin is not None and not self._keeper.stdin.closed:
            self._keeper.stdin.close()
            try:
                self._keeper.wait(_CLOSE_S)
            except subprocess.TimeoutExpired:
                self._keeper.kill()
                self._keeper.wait(5.0)
            os.close(self._lock)
            if self.folder.exists():
                folders.sweep()

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
