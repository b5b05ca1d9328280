"""The agent: the one process that drives the lab's kernel, for one owner, from the first command to its end.

One rule: it never waits for anything but its poll. The doorbell carries only the numbers of commands one way
and short answers the other; a command itself is a file in the shared folder. At the doorbell's end of file the
owner is gone, and so is everything here.
"""

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import NoReturn

from director.lab.guest import jobs, machine, syscalls
from director.lab.guest.commands import Commands
from director.lab.guest.layout import Layout, Place

PRELOADED = (
    *("ip_vs", *(f"ip_vs_{name}" for name in ("rr", "wrr", "lc", "wlc", "sh", "dh", "mh", "sed", "nq", "fo", "ovf"))),
    *("bridge", "veth", "dummy", "ipip", "tcp_diag"),
    *("iptable_filter", "iptable_nat", "iptable_mangle", "xt_ipvs", "xt_mark", "xt_tcpudp", "xt_conntrack"),
)
"""Modules that labs often need, at a few ms each; others load by themselves, at half a second each."""

_Order = Mapping[str, object]


class Agent:
    """The state of the agent: the layout, and the commands that run in it."""

    def __init__(self, folder: str, doorbell: int, keep: Sequence[str], forker: list[str]) -> None:
        self._folder = folder
        self._keep = keep
        self._doorbell = doorbell
        self._unread = b""
        self._home = Place.current()
        self._layout: Layout | None = None
        self._poll = select.epoll()
        self._commands = Commands(folder, self._poll, self.answer, forker)
        self._wakeup, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(write_end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        self._poll.register(self._wakeup, select.EPOLLIN)
        self._poll.register(doorbell, select.EPOLLIN)

    def serve(self) -> None:
        """Answer until the owner is gone."""
        while True:
            for fd, _ in self._poll.poll(self._commands.until_next_deadline_s()):
                if fd == self._doorbell:
                    if not self._hear():
                        return
                elif fd == self._wakeup:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wakeup, 4096)
                else:
                    self._commands.ready(fd)
            self._commands.reap()
            self._commands.stop_late()

    def answer(self, message: dict[str, object]) -> None:
        """Send one line, kept far below what the serial line holds."""
        line = memoryview((json.dumps(message) + "\n").encode())
        while line:
            line = line[os.write(self._doorbell, line) :]

    def _hear(self) -> bool:
        try:
            data = os.read(self._doorbell, 4096)
        except OSError:
            return False
        if not data:
            return False
        *numbers, self._unread = (self._unread + data).split(b"\n")
        for number in numbers:
            if number == b"quit":
                return False
            self._obey(int(number))
        return True

    def _obey(self, number: int) -> None:
        path = f"{self._folder}/{number}.order"
        try:
            with open(path) as file:
                order = json.load(file)
            reply = getattr(self, "do_" + order["do"])(number, order)
        except (OSError, KeyError, ValueError) as error:
            reply = {"error": f"{type(error).__name__}: {error}"[:600]}
        if reply is not None:
            self.answer({"job": number, **reply})

    def do_lay_out(self, _number: int, order: _Order) -> _Order:
        if self._layout is not None:
            raise OSError("a layout stands already: leave it before the next")
        self._layout = Layout(order["topology"], self._home, self._run_ip, self._keep)  # type: ignore[arg-type]
        self._layout.build()
        return {}

    def do_clear(self, _number: int, _order: _Order) -> _Order:
        killed = 0
        if self._layout is not None:
            self._commands.leave()
            for _ in range(50):
                found = jobs.kill_inside(self._layout.identities())
                killed += found
                self._commands.reap()
                if not found and not self._commands.any_forked():
                    break
                time.sleep(0.01)
            self._layout.remove()
            self._layout = None
        return {"killed": killed}

    def do_run(self, number: int, order: _Order) -> None:
        """Start a command; the answer follows when it ends, and for a background command one at the start too."""
        self._commands.start(number, order, self._standing())

    def do_signal(self, _number: int, order: _Order) -> _Order:
        job = self._commands.find(order["target"])
        if job is None:
            return {"sent": False}
        number = int(order["signal"])  # type: ignore[call-overload]
        if order["to"] == "tree":
            jobs.kill_tree(job.pid)
        elif order["to"] == "group":
            os.killpg(job.pid, number)
        else:
            os.kill(job.pid, number)
        return {"sent": True}

    def do_flush(self, _number: int, order: _Order) -> _Order:
        job = self._commands.find(order["target"])
        for stream in job.streams if job else ():
            stream.pump()
            stream.flush()
        return {}

    def do_write(self, number: int, order: _Order) -> _Order:
        path = str(order["path"])
        with open(f"{self._folder}/{number}.in", "rb") as file:
            data = file.read()
        with self._standing().inside(str(order["host"])):
            os.makedirs(path.rpartition("/")[0] or "/", exist_ok=True)
            partial = f"{path}.partial"
            with open(partial, "wb") as file:
                file.write(data)
                os.fchmod(file.fileno(), int(order["mode"]))  # type: ignore[call-overload]
            os.rename(partial, path)
        return {}

    def do_read(self, number: int, order: _Order) -> _Order:
        """Copy a file, in pieces: files of /proc refuse a read of megabytes."""
        pieces: list[bytes] = []
        with self._standing().inside(str(order["host"])), open(str(order["path"]), "rb", buffering=0) as file:
            while piece := file.read(jobs.CHUNK_BYTES):
                pieces.append(piece)
                if len(pieces) * jobs.CHUNK_BYTES > 2 * jobs.OUTPUT_LIMIT_BYTES:
                    break
        data = b"".join(pieces)
        if len(data) > jobs.OUTPUT_LIMIT_BYTES:
            raise OSError(f"{order['path']} is larger than {jobs.OUTPUT_LIMIT_BYTES} bytes")
        with open(f"{self._folder}/{number}.out", "wb") as file:
            file.write(data)
        return {"kept": [len(data)]}

    def do_cable(self, _number: int, order: _Order) -> _Order:
        with self._standing().inside_switch():
            self._run_ip(f"link set {order['port']} {order['state']}")
        return {}

    def _standing(self) -> Layout:
        if self._layout is None:
            raise OSError("no layout stands: its hosts are gone")
        return self._layout

    def _run_ip(self, batch: str) -> None:
        read_end, write_end = os.pipe()
        stream = jobs.Stream(f"{self._folder}/ip.err")
        os.write(write_end, batch.encode())
        os.close(write_end)
        try:
            pid = jobs.spawn(["ip", "-batch", "-"], dict(os.environ), f"/proc/self/fd/{read_end}", [stream])
        finally:
            os.close(read_end)
        _, status = os.waitpid(pid, 0)
        complaint = os.read(stream.pipe, 4096).decode(errors="replace") if status else ""
        stream.close()
        if status:
            raise OSError(f"ip failed: {complaint.strip()}")


def main(kind: str, folder: str, doorbell: str, keep: str) -> NoReturn:
    """Prepare the machine, say that it is ready, serve, and end it. `keep` is a list of paths, with colons."""
    try:
        agent = _prepare(kind, folder, doorbell, keep.split(":"))
        agent.serve()
    except BaseException:  # the console is all that is left to say it
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        raise
    finally:
        if kind == "uml":
            syscalls.power_off()
    os._exit(0)


def _prepare(kind: str, folder: str, doorbell: str, keep: Sequence[str]) -> Agent:
    if kind == "uml":
        machine.prepare_uml(folder, keep)
        bell = os.open("/dev/ttyS0", os.O_RDWR | os.O_NOCTTY)
        machine.make_raw(bell)
    else:
        machine.prepare_namespaces(folder, keep)
        bell = int(doorbell)
        os.set_inheritable(bell, False)
    with open(f"{machine.SHARED}/machine.json") as file:
        told = json.load(file)
    os.environ.clear()
    os.environ.update(told["environment"])
    syscalls.unshare(syscalls.CLONE_FS)  # the kernel's init shares its root with kernel threads; setns wants its own
    machine.write_programs(told["programs"])
    if kind == "uml":
        machine.load_modules(PRELOADED)
    agent = Agent(machine.SHARED, bell, keep, told["forker"])
    agent.answer({"job": 0, "release": os.uname().release, "ip_vs": os.path.exists("/proc/net/ip_vs")})
    return agent
