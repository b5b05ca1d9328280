"""A kernel for hosts: which one, its boot, and its end.

One rule: two kinds, one agent and one protocol, so that nothing above this file knows which kernel it got.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from director.lab import folder as folders
from director.lab import topology as topologies
from director.lab.bytecode import PROJECT, compile_all
from director.lab.channel import Channel
from director.lab.errors import KernelLostError, KernelUnavailableError
from director.lab.hosts import Lab
from director.lab.topology import Topology

MEMORY = "1G"
"""Of the user-mode kernel; its memory file takes only what is touched."""

_AGENT = Path(__file__).with_name("guest") / "__main__.py"
_PYTHON = os.path.realpath(sys.executable)
_CLOSE_S = 25.0
_IMPORTED_WHEN_NEEDED = ("pyroute2", "rich.console", "rich.table", "rich.text", "yaml._yaml")
_FIRST_USES = "director.lab.guest.first_uses"
_IN_VAIN = "nfnetlink-subsys-10"
"""What a kernel asks modprobe for when somebody tries nftables. The user-mode kernel's nf_tables knows no IP, and where
it is loaded, whoever looks at rules asks iptables-nft too: 1 s a command of director. `modprobe nf_tables` loads it."""
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


class Kernel:
    """A booted kernel: `kind` is `uml` or `host`, and `reason` says why it was chosen."""

    def __init__(self, kind: str, reason: str, channel: Channel, keeper: Keeper) -> None:
        self.kind = kind
        self.reason = reason
        self.release = str(channel.ready.answer.get("release"))
        self.folder = keeper.folder
        self._channel = channel
        self._keeper = keeper

    def lay_out(self, topology: Topology | Path | None = None) -> Lab:
        """Hosts as in `topology` (a file, or loaded; none: the lab's own); one layout at a time.

        Raises: TopologyError; LabError when they cannot be laid out.
        """
        if not isinstance(topology, Topology):
            topology = topologies.load(topology or topologies.DEFAULT)
        return Lab(self._channel, topology, environment())

    def shell(self, lab: Lab, say: Callable[[str], None] = _say, ask: Callable[[str], str] = input) -> None:
        """A prompt on the lab's hosts, until end of file; `say` writes text as it is, `ask` reads a line."""
        from director.lab.shell import converse

        converse(lab, say, ask)

    def console(self) -> str:
        """The last lines of the kernel's console."""
        return self._keeper.console_tail()

    def close(self) -> None:
        """End the kernel and everything on it; a second call does nothing."""
        self._channel.close()
        self._keeper.close()

    def __enter__(self) -> Kernel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def boot_kernel(wanted: str, *, timeout_s: float, ipvs: bool) -> Kernel:
    """What `director.lab.boot` promises."""
    kind, reason = choose(wanted, ipvs=ipvs)
    folders.sweep()
    compile_all()
    ours, theirs = socket.socketpair()
    machine = {"environment": environment(), "programs": _programs(), "forker": _forker_command()}
    command = _uml_command if kind == "uml" else _host_command
    keeper = Keeper(machine, lambda folder: command(folder, theirs), theirs)
    channel = Channel(ours, keeper.folder, keeper.console_tail)
    kernel = None
    try:
        channel.wait(channel.ready, channel.ready.ended, timeout_s)
        kernel = Kernel(kind, reason, channel, keeper)
    except KernelLostError as error:
        raise KernelLostError(f"the {kind} kernel did not come up in {timeout_s:g} s: {error}") from None
    finally:
        if kernel is None:
            channel.close()
            keeper.close()
    return kernel


def choose(wanted: str, *, ipvs: bool = True) -> tuple[str, str]:
    """Which kernel, `host` or `uml`, and why.

    Raises: KernelUnavailableError, with what to do.
    """
    if wanted not in ("auto", "host", "uml"):
        raise KernelUnavailableError(f"there is no kernel {wanted!r}: use auto, host or uml")
    if wanted == "uml":
        _require_uml("it was asked for")
        return "uml", "asked for"
    missing = _missing_on_host(ipvs)
    if wanted == "host":
        if missing:
            raise KernelUnavailableError(f"this machine's kernel cannot be used: {missing}")
        return "host", "asked for"
    if not missing:
        return "host", "this machine's own kernel has IPVS"
    _require_uml(missing)
    return "uml", f"not this machine's own: {missing}"


def environment() -> dict[str, str]:
    """The environment of every command: the project's programs first on PATH."""
    return {
        "PATH": f"{Path(sys.prefix) / 'bin'}:/run/lab/bin:{_SYSTEM_PATH}",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "PYTHONPATH": str(PROJECT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }


class Keeper:
    """The process that keeps a kernel (director.lab.keeper), and the folder they share.

    It runs what `command` makes of the folder; `machine` is told to the agent, who holds the other end of `bell`.
    """

    def __init__(
        self, machine: Mapping[str, object], command: Callable[[Path], list[str]], bell: socket.socket
    ) -> None:
        self.folder, self._lock = folders.make_folder()
        (self.folder / "machine.json").write_text(json.dumps(machine), encoding="utf-8")
        code = f"import sys; sys.path.insert(0, {str(PROJECT)!r}); from director.lab.keeper import main; main()"
        self._process = subprocess.Popen(
            [
                _PYTHON,
                "-S",
                "-E",
                "-c",
                code,
                str(os.getpid()),
                str(self.folder),
                str(bell.fileno()),
                *command(self.folder),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[bell.fileno(), self._lock],
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(self.folder), "HOME": str(self.folder)},
        )
        bell.close()

    def console_tail(self, lines: int = 30) -> str:
        """The last lines of the kernel's console."""
        try:
            text = (self.folder / "console").read_text(errors="replace")
        except OSError:
            return "(there is no console)"
        return "its console's last lines:\n" + "\n".join(text.splitlines()[-lines:])

    def close(self) -> None:
        """End it; a second call does nothing."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
            try:
                self._process.wait(_CLOSE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(5.0)
            os.close(self._lock)
            if self.folder.exists():
                folders.sweep()


def _uml_command(folder: Path, bell: socket.socket) -> list[str]:
    return uml_command(folder, bell, MEMORY, str(_AGENT), "uml", str(folder), "-", ":".join(_needed()))


def uml_command(folder: Path, bell: socket.socket, memory: str, *init: str) -> list[str]:
    """The words of a user-mode kernel whose first program is this Python with `init`, a script and its arguments."""
    return [
        *(folders.UML, f"mem={memory}", "rootfstype=hostfs", "rootflags=/", "ro", "quiet", "loglevel=3", "panic=-1"),
        *("con=null", "con0=null,fd:1", "con1=null", "ssl=null", f"ssl0=fd:{bell.fileno()}"),
        *(f"uml_dir={folder}", f"init={_PYTHON}", "--", "-SEsB", *init),
    ]


def _host_command(folder: Path, bell: socket.socket) -> list[str]:
    unshare = ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child=SIGKILL"]
    return [*unshare, _PYTHON, "-SEsB", str(_AGENT), "host", str(folder), str(bell.fileno()), ":".join(_needed())]


def _needed() -> list[str]:
    """The folders that the project's programs are made of, outermost first; hosts must see them."""
    found = {os.path.realpath(path) for path in (PROJECT, sys.prefix, sys.base_prefix)}
    return sorted(path for path in found if not any(path.startswith(f"{other}/") for other in found))


def _programs() -> dict[str, str]:
    def script(python: str, module: str, call: str) -> str:
        path = f"import sys; sys.path.insert(0, {str(PROJECT)!r})"
        return f"#!{python}\n{path}\nfrom {module} import main\nsys.exit({call})\n"

    python = sys.executable
    modules = script(f"{_PYTHON} -SEsB", "director.lab.guest.modules", "main(sys.argv[1:])")
    return {
        "director": script(python, "director.__main__", "main()"),
        "l7proxy": script(python, "l7proxy.__main__", "main()"),
        "insmods": modules,
        "modprobe": f'#!/bin/sh\ncase "$*" in *{_IN_VAIN}*) exit 0;; esac\nexec "${{0%/*}}/insmods" "$@"\n',
    }


def _forker_command() -> list[str]:
    """A Python to fork from: it has all of director but the lab, and what that imports or makes only when needed."""
    package = PROJECT / "director"
    files = [path.relative_to(PROJECT).with_suffix("") for path in package.rglob("*.py")]
    modules = [".".join(path.parts) for path in files if path.parts[1] != "lab" and not path.name.startswith("__")]
    wanted = ["director.__main__", *sorted(modules), *_IMPORTED_WHEN_NEEDED, _FIRST_USES]
    programs = {"director": "director.__main__:main"}
    code = f"import sys; del sys.path[0]; from director.lab.guest.forker import main; main({programs}, {wanted})"
    return [sys.executable, "-c", code]


def _require_uml(because: str) -> None:
    if shutil.which(folders.UML) is None:
        raise KernelUnavailableError(
            f"a user-mode kernel is needed ({because}), and {folders.UML} is not here: apt-get install user-mode-linux"
        )


def _missing_on_host(ipvs: bool) -> str:
    """What keeps hosts off this machine's own kernel; empty if nothing does."""
    if os.geteuid() != 0:
        return "namespaces need root; run as root"
    if shutil.which("unshare") is None:
        return "unshare is missing; apt-get install util-linux"
    if ipvs and not Path("/proc/net/ip_vs").exists():
        with contextlib.suppress(OSError):
            subprocess.run(["modprobe", "-q", "ip_vs"], check=False, timeout=20, stderr=subprocess.DEVNULL)
        if not Path("/proc/net/ip_vs").exists():
            return "its kernel has no IPVS (no module ip_vs)"
    return ""
