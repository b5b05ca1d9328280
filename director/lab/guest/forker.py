"""The forker: a Python that has imported the project once, and becomes one of its commands by forking.

One rule: what runs here cannot tell that it was not started by exec: namespaces, session, signals, descriptors,
environment, streams, exit code are those of a start. In the user-mode kernel a start costs 0.6-2.5 s, a fork 0.1 s.

Each message is one packet of JSON. From the agent: an order, with the descriptors that `_prepare` takes. To the
agent: `started` from the command itself, `ended` from its parent.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import select
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import NoReturn

from director.lab.guest import syscalls
from director.lab.guest.forks import ORDER_BYTES

_MAX_FDS = 8

Order = Mapping[str, object]


def main(programs: Mapping[str, str], modules: Sequence[str]) -> None:
    """Import `modules`, then serve the agent at the other end of standard input until it leaves.

    `programs` says what the first word of a command calls, as `module:function`; `python` is not among them.
    """
    for name in modules:
        with contextlib.suppress(Exception):  # the command that needs it will say what is wrong with it
            importlib.import_module(name)
    if len(os.listdir("/proc/self/task")) != 1:
        raise RuntimeError("a module starts a thread when it is imported, which a fork would lose")
    line = socket.socket(fileno=os.dup(0))
    child_ended, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    gc.collect()
    gc.freeze()  # a collection in a command would touch every page, and a page touched is a page copied
    _serve(line, child_ended, programs)


def _serve(line: socket.socket, child_ended: int, programs: Mapping[str, str]) -> None:
    numbers: dict[int, object] = {}  # of the commands that run, by process id
    poll = select.poll()
    poll.register(line, select.POLLIN)
    poll.register(child_ended, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == child_ended:
                os.read(child_ended, 4096)
                continue
            text, fds, _, _ = socket.recv_fds(line, ORDER_BYTES, _MAX_FDS)
            if not text:
                return
            order = json.loads(text)
            pid = os.fork()
            if not pid:
                _become(order, fds, line, programs)
            for each in fds:
                os.close(each)
            numbers[pid] = order["job"]
        while numbers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            line.send(json.dumps({"job": numbers.pop(pid), "ended": os.waitstatus_to_exitcode(status)}).encode())


def _become(order: Order, fds: Sequence[int], line: socket.socket, programs: Mapping[str, str]) -> NoReturn:
    """In the child: turn into the command, and end as it ends."""
    try:
        call = _prepare(order, fds, line, programs)
    except BaseException:  # noqa: BLE001 - said where the command's errors go, or on the console
        import traceback

        traceback.print_exc()
        os._exit(126)
    _finish(_exit_code(call))


def _prepare(
    order: Order, fds: Sequence[int], line: socket.socket, programs: Mapping[str, str]
) -> Callable[[], object]:
    """What is left to call. `fds` are input, output, errors, the folder, and the host's namespaces."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, fd in enumerate(fds[:3]):
        os.dup2(fd, number)
    for fd in fds[4:]:
        syscalls.enter(fd)
    os.fchdir(fds[3])
    argv: list[str] = order["argv"]  # type: ignore[assignment]
    env: Mapping[str, str] = order["env"]  # type: ignore[assignment]
    os.environ.clear()
    os.environ.update(env)
    syscalls.set_name(argv[0])
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = _stream(number, name, getattr(sys, f"__{name}__"))
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    line.send(json.dumps({"job": order["job"], "started": os.getpid()}).encode())
    line.close()
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    return _program(argv, programs)


def _program(argv: list[str], programs: Mapping[str, str]) -> Callable[[], object]:
    """One of `programs`, or `python -c CODE` or `python -m MODULE`, with the arguments and the path it expects."""
    if argv[0] in programs:
        found = shutil.which(argv[0]) or argv[0]
        sys.argv = [found, *argv[1:]]
        sys.path.insert(0, os.path.dirname(found))
        name, _, function = programs[argv[0]].partition(":")
        return lambda: getattr(importlib.import_module(name), function)()  # noqa: PLW0108 - an import is its own to fail
    sys.argv = [argv[1], *argv[3:]]
    main_module = sys.modules["__main__"] = ModuleType("__main__")
    if argv[1] == "-m":
        import runpy

        sys.path.insert(0, os.getcwd())
        return lambda: runpy._run_module_as_main(argv[2])  # type: ignore[attr-defined]
    sys.path.insert(0, "")
    return lambda: exec(compile(argv[2], "<string>", "exec"), main_module.__dict__)  # noqa: S102 - what -c is for


def _stream(fd: int, name: str, like: io.TextIOWrapper) -> io.TextIOWrapper:
    """A standard stream as Python opens it at its start (create_stdio of Python/pylifecycle.c)."""
    unbuffered = like.write_through
    binary = open(fd, "wb" if fd else "rb", buffering=0 if unbuffered and fd else -1, closefd=False)  # noqa: SIM115
    by_line = not unbuffered and (fd == 2 or binary.isatty())
    stream = io.TextIOWrapper(binary, like.encoding, like.errors, "\n", by_line, unbuffered)
    setattr(getattr(binary, "raw", binary), "name", f"<{name}>")  # noqa: B010 - read-only by its type alone
    setattr(stream, "mode", "w" if fd else "r")  # noqa: B010
    return stream


def _exit_code(call: Callable[[], object]) -> int:
    """What Python would exit with (Py_RunMain of Modules/main.c); negative for the signal that ends it."""
    try:
        call()
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return (stop.code or 0) & 0xFF
        sys.stderr.write(f"{stop.code}\n")
        return 1
    except BaseException as error:  # noqa: BLE001 - the end of the program
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _finish(code: int) -> NoReturn:
    """What can be seen of Py_FinalizeEx from outside; freeing memory would only copy its pages first."""
    import atexit
    import threading

    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except (OSError, ValueError):
            code = 120
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)
