"""Runs a program of the operator's: for probes, for quorum hooks, for notifications.

One rule: it never holds up or harms the director. No shell; an unprivileged user, who gains no privilege by it
(setpriv(1)); a session of its own, which is killed at the timeout and also after the program's end; and what it prints
is bounded.

Callers bound how many run at one time. A descendant that makes a session of its own survives, and holds up nobody.
"""

from __future__ import annotations

import asyncio
import errno
import os
import pwd
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache

from director.kit.duration import format_duration
from director.kit.errors import HostError
from director.kit.scriptfiles import command_problems

__all__ = ["ScriptError", "ScriptOutcome", "command_problems", "run_script"]

NOBODY = "nobody"
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C"}
DIES_WITHIN_S = 1.0  # of SIGKILL; what sleeps in the kernel for longer is left to it
LAST_BYTES = 1024 * 1024  # the most that a pipe holds (fs.pipe-max-size)
AT_ONCE_BYTES = 64 * 1024
TRIED_WITHIN_S = 5.0
_PASSING = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
REST_S = 0.005  # between two reads of what is thrown away: at most 13 MB/s of it, so that a flood takes no time of ours

_PRIVILEGES = (
    ("--no-new-privs", "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all"),
    ("--no-new-privs", "--inh-caps=-all", "--ambient-caps=-all"),
    ("--no-new-privs",),  # a process without capabilities of its own has none to take away
)
_CAP_SETPCAP = 8  # linux/capability.h
_KEPT_BY_PYTHON = {signal.SIGPIPE, signal.SIGXFSZ}  # subprocess resets what Python itself ignores


class ScriptError(HostError):
    """It could not be run at all, for want of something that the operator can mend."""


@dataclass(frozen=True, slots=True)
class ScriptOutcome:
    """How a program ended: by itself, by a signal, or at the timeout (then both are None).

    `stdout` and `stderr` are its first bytes.
    """

    exit_code: int | None
    signal: int | None
    timed_out: bool
    stdout: bytes
    stderr: bytes
    duration_s: float

    @property
    def ok(self) -> bool:
        """Whether it ended by itself, with exit code 0."""
        return self.exit_code == 0

    def __str__(self) -> str:
        """What happened, and the first line that it printed, on standard error if there was one."""
        if self.timed_out:
            how = f"timed out after {format_duration(round(self.duration_s, 3))}"
        elif self.signal is not None:
            how = f"killed by {_signal_name(self.signal)}"
        else:
            how = f"exit code {self.exit_code}"
        lines = (self.stderr or self.stdout).decode(errors="replace").strip().splitlines()
        said = "".join(c if c.isprintable() else "?" for c in lines[0][:200]) if lines else ""
        return f"{how}: {said}" if said else how


async def run_script(
    command: tuple[str, ...],
    *,
    user: str | None = None,
    environment: Mapping[str, str] | None = None,
    input: bytes = b"",  # noqa: A002 -- subprocess's name for it
    timeout_s: float,
    most_bytes: int = 4096,
) -> ScriptOutcome:
    """Run `command` as `user` (None: nobody; a director that is not root: as itself), `input` on its standard input.

    `environment` is added to a PATH and LANG=C; `most_bytes` are kept of standard output, and of standard error.
    Raises: ScriptError when it cannot be started, or was not looked up within `timeout_s`.
    """
    try:
        async with asyncio.timeout(timeout_s):
            # In a thread: a user directory or a network file system may take its time.
            words, identity = await asyncio.to_thread(_prepared, command, user, _keeps_signals())
    except TimeoutError as error:
        raise ScriptError(
            f"could not run {command[0]}: it and its user were not looked up within "
            f"{format_duration(round(timeout_s, 3))}: see to its file system and to this host's user directory"
        ) from error
    began_at = time.monotonic()
    try:
        process = _started(words, identity, {**ENVIRONMENT, **(environment or {})}, bool(input))
        running = _Running(process, input, most_bytes)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the environment
        raise ScriptError(f"could not run {command[0]}: {getattr(error, 'strerror', None) or error}") from error
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await running.exited.wait()
    finally:
        timed_out = not running.exited.is_set()
        await running.end()
    duration_s = time.monotonic() - began_at
    code = process.returncode
    stdout, stderr = bytes(running.stdout.kept), bytes(running.stderr.kept)
    if timed_out or code is None:
        return ScriptOutcome(None, None, True, stdout, stderr, duration_s)
    if code in {126, 127} and stderr.startswith(
        (b"setpriv: ", b"/usr/bin/env: ")
    ):  # it could not execute what it was to
        why = stderr.decode(errors="replace").strip().rpartition(": ")[2]
        raise ScriptError(f"could not run {command[0]}: {why}: see to the file and to the interpreter it names")
    if code < 0:
        return ScriptOutcome(None, -code, False, stdout, stderr, duration_s)
    return ScriptOutcome(code, None, False, stdout, stderr, duration_s)


@dataclass(frozen=True, slots=True)
class _Identity:
    """Who the program is run as, where setpriv does not see to it; None leaves it."""

    uid: int | None = None
    gid: int | None = None


def _prepared(command: Sequence[str], user: str | None, keeps_signals: bool) -> tuple[list[str], _Identity]:
    """The words to execute, and what is left to do before that. Blocks."""
    problem = command_problems(command, user)
    if problem:
        raise ScriptError(problem)
    words = [*(_env() if keeps_signals else ()), *command]
    if os.geteuid() != 0:
        prefix = _setpriv(())
        keeps = not any(word.startswith("--ambient-caps") for word in prefix)
        if keeps and _capabilities("CapAmb"):  # which a program would have, too
            raise ScriptError(
                f"{command[0]} is not run: it would have this process's capabilities, and setpriv, which takes them "
                "away, is not there or refused: install util-linux, or let the unit's SystemCallFilter= have capset"
            )
        return [*prefix, *words], _Identity()
    who = pwd.getpwnam(user or NOBODY)
    if who.pw_uid == 0:  # asked for by its name: it is to have what root has
        return words, _Identity()
    change = (f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups")
    prefix = _setpriv(change)
    return [*prefix, *words], _Identity() if prefix else _Identity(who.pw_uid, who.pw_gid)


@cache
def _setpriv(change: tuple[str, ...]) -> list[str]:
    """The words of setpriv that work here, from most to least; none where it is not there (or is busybox's).

    Raises: ScriptError when it could not be tried now; the next one tries again.
    """
    program = shutil.which("setpriv", path=ENVIRONMENT["PATH"])
    # Without CAP_SETPCAP setpriv leaves the bounding set as it is, and libcap-ng complains of that to syslog each time.
    able = _PRIVILEGES if _capabilities("CapEff") >> _CAP_SETPCAP & 1 else _PRIVILEGES[1:]
    for privileges in able if program else ():
        words = [str(program), *change, *privileges]
        if _works([*words, str(program), "--version"]):
            return words
    return []


def _capabilities(which: str) -> int:
    """This process's set `which` of capabilities, a bit for each: CapEff, CapAmb (proc(5))."""
    with open("/proc/self/status", encoding="utf-8") as lines:  # noqa: PTH123 -- one look
        return next((int(line.split()[1], 16) for line in lines if line.startswith(f"{which}:")), 0)


@cache
def _env() -> list[str]:
    """The words of env(1) that reset signals, where it can (GNU coreutils 8.31)."""
    words = ["/usr/bin/env", "--default-signal"]
    return words if _works([*words, "true"]) else []


def _works(words: list[str]) -> bool:
    """Whether it does what it is to. Raises: ScriptError: nobody can say yet, for the machine is too busy."""
    try:
        return subprocess.run(words, capture_output=True, timeout=TRIED_WITHIN_S, check=False).returncode == 0
    except subprocess.TimeoutExpired as error:
        why = f"no answer within {format_duration(TRIED_WITHIN_S)}"
        raise ScriptError(f"could not try {words[0]}: {why}: is this machine overloaded?") from error
    except OSError as error:
        if error.errno in _PASSING:
            raise ScriptError(f"could not try {words[0]}: {error.strerror}") from error
        return False


def _keeps_signals() -> bool:
    """Whether this thread blocks signals or this process ignores some: an exec would keep that."""
    ignored = {each for each in signal.valid_signals() if signal.getsignal(each) is signal.SIG_IGN} - _KEPT_BY_PYTHON
    return bool(ignored or signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def _started(
    words: Sequence[str], identity: _Identity, environment: Mapping[str, str], has_input: bool
) -> subprocess.Popen[bytes]:
    # Without an identity to take on, subprocess uses vfork: a large director need not be copied.
    with _no_core_files():
        return subprocess.Popen(
            words,
            stdin=subprocess.PIPE if has_input else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd="/",
            env=environment,
            umask=0o022,
            start_new_session=True,
            user=identity.uid,
            group=identity.gid,
            extra_groups=None if identity.uid is None else (),
        )


@contextmanager
def _no_core_files() -> Iterator[None]:
    """What is started meanwhile writes no core files. The limit is this process's for the moment of a vfork."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


class _Running:
    """A program that runs; by pidfd and plain descriptors, which every event loop can wait for."""

    def __init__(self, process: subprocess.Popen[bytes], given: bytes, most_bytes: int) -> None:
        assert process.stdout is not None  # noqa: S101 -- narrows the type
        assert process.stderr is not None  # noqa: S101
        self._loop = asyncio.get_running_loop()
        self._process = process
        try:
            self._pidfd = os.pidfd_open(process.pid)
        except OSError:  # no descriptor is left
            with process:
                process.kill()
            raise
        self.exited = asyncio.Event()
        self.stdout = _Kept(self._loop, process.stdout.fileno(), most_bytes)
        self.stderr = _Kept(self._loop, process.stderr.fileno(), most_bytes)
        self._left = memoryview(given)
        self._loop.add_reader(self._pidfd, self._exit)
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            self._loop.add_writer(process.stdin.fileno(), self._give)

    def _exit(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self.exited.set()

    def _give(self) -> None:
        stdin = self._process.stdin
        if stdin is None or stdin.closed:
            return
        try:
            self._left = self._left[os.write(stdin.fileno(), self._left) :]
        except BlockingIOError:
            return
        except OSError:  # it does not want to know
            self._left = self._left[:0]
        if not self._left:
            self._loop.remove_writer(stdin.fileno())
            stdin.close()

    async def end(self) -> None:
        """Kill all that is left of it, and collect what it said; bounded, whatever happens."""
        try:
            self._kill()  # before it is waited for: the group's number is its own until then
            with suppress(TimeoutError):
                async with asyncio.timeout(DIES_WITHIN_S):
                    await self.exited.wait()
        finally:
            self._process.poll()
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            for kept in (self.stdout, self.stderr):
                kept.end()
            stdin = self._process.stdin
            if stdin is not None and not stdin.closed:
                self._loop.remove_writer(stdin.fileno())
            for pipe in (stdin, self._process.stdout, self._process.stderr):
                if pipe is not None:
                    pipe.close()

    def _kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)


class _Kept:
    """The first bytes of what comes out of a pipe; the rest is read and thrown away, slowly."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, most_bytes: int) -> None:
        self.kept = bytearray()
        self._loop = loop
        self._fd = fd
        self._most_bytes = most_bytes
        self._rest: asyncio.TimerHandle | None = None
        os.set_blocking(fd, False)
        loop.add_reader(fd, self._read)

    def end(self) -> None:
        """Take what is still in the pipe, and no more."""
        self._loop.remove_reader(self._fd)
        if self._rest is not None:
            self._rest.cancel()
        for _ in range(LAST_BYTES // AT_ONCE_BYTES):
            if len(self.kept) >= self._most_bytes or not self._take():
                break

    def _read(self) -> None:
        if not self._take():
            self._loop.remove_reader(self._fd)
        elif len(self.kept) >= self._most_bytes:
            self._loop.remove_reader(self._fd)
            self._rest = self._loop.call_later(REST_S, self._loop.add_reader, self._fd, self._read)

    def _take(self) -> int:
        """How many bytes there were; 0 at the end."""
        try:
            chunk = os.read(self._fd, AT_ONCE_BYTES)
        except OSError:
            return 0
        self.kept += chunk[: self._most_bytes - len(self.kept)]
        return len(chunk)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
