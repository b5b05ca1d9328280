"""Commands on the lab's hosts: started in a host's namespaces, watched, bounded, and ended with all they started.

One rule: nothing here waits; the agent's loop calls in when a pipe has data, a child ended or a limit passed.
"""

import contextlib
import os
import signal
import time

OUTPUT_LIMIT_BYTES = 8 << 20
CHUNK_BYTES = 1 << 16
_CHUNKS_A_TURN = 8  # the kernel's pipes hold one


class NotStartedError(Exception):
    """The program of a command cannot be executed."""


class Stream:
    """One output of a command: copied from a pipe to a file in the shared folder, up to the limit.

    What comes after the limit is read and dropped, so that the command never blocks.
    """

    def __init__(self, path: str) -> None:
        self.kept_bytes = 0
        self.dropped_bytes = 0
        self.pipe, self.write_end = os.pipe()
        os.set_blocking(self.pipe, False)
        self._path = path
        self._file = -1
        self._open = True

    def pump(self) -> bool:
        """Copy what the pipe holds (at least once its capacity, then others get their turn); False at its end."""
        for _ in range(_CHUNKS_A_TURN if self.pipe >= 0 else 0):
            try:
                data = os.read(self.pipe, CHUNK_BYTES)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._keep(data)
        return True

    def _keep(self, data: bytes) -> None:
        room = OUTPUT_LIMIT_BYTES - self.kept_bytes if self._open else 0
        kept = data[:room]
        self.dropped_bytes += len(data) - len(kept)
        if not kept:
            return
        if self._file < 0:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self.kept_bytes += len(kept)
        view = memoryview(kept)
        while view:
            view = view[os.write(self._file, view) :]

    def close(self) -> None:
        """Stop reading; a command that still writes gets SIGPIPE."""
        os.close(self.pipe)
        self.pipe = -1

    def close_write_end(self) -> None:
        """Leave writing to the command; a second call does nothing."""
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1

    def flush(self) -> None:
        """Make what was kept visible to the owner of the shared folder."""
        if self._file >= 0:
            os.fdatasync(self._file)

    def finish(self) -> None:
        """Close the file, which also makes it visible; what comes later is dropped."""
        self._open = False
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class Job:
    """One command, whose process leads a session of its own; its time counts from `begin`.

    `deadline` is monotonic, or None for a background command.
    """

    def __init__(self, number: int, streams: list[Stream], limit_s: float | None) -> None:
        self.number = number
        self.pid = 0
        self.streams = streams
        self.deadline: float | None = None
        self.timed_out = False
        self._limit_s = limit_s
        self._started_at = time.monotonic()

    @property
    def in_background(self) -> bool:
        return self._limit_s is None

    def begin(self, pid: int) -> None:
        """It runs, as process `pid`."""
        self.pid = pid
        self._started_at = time.monotonic()
        if self._limit_s is not None:
            self.deadline = self._started_at + self._limit_s

    def finish(self, exit_code: int, note: str = "") -> dict[str, object]:
        """What the owner is told at the end."""
        duration_s = time.monotonic() - self._started_at if self.pid else 0.0
        for stream in self.streams:
            stream.pump()
            stream.finish()
        return {
            "job": self.number,
            "exit": exit_code,
            "timed_out": self.timed_out,
            "kept": [stream.kept_bytes for stream in self.streams],
            "dropped": [stream.dropped_bytes for stream in self.streams],
            "s": round(duration_s, 4),
            **({"note": note} if note else {}),
        }

    def discard(self) -> None:
        """Let go of its pipes: it never began, and nobody listens to them."""
        for stream in self.streams:
            stream.close_write_end()
            stream.close()


def spawn(argv: list[str], env: dict[str, str], stdin: str, streams: list[Stream]) -> int:
    """Start a command in the current namespaces and folder; its process id.

    With one stream, output and errors share it. posix_spawn, because a fork of Python costs 30 ms in the
    user-mode kernel.

    Raises: NotStartedError when there is no such program, or it cannot be executed.
    """
    source = os.open(stdin, os.O_RDONLY)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, source, 0)]
        actions += [(os.POSIX_SPAWN_DUP2, streams[0].write_end, 1)]
        actions += [(os.POSIX_SPAWN_DUP2, streams[-1].write_end, 2)]
        unset = [signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT]
        return os.posix_spawnp(argv[0], argv, env, file_actions=actions, setsid=True, setsigdef=unset)
    except OSError as error:
        raise NotStartedError(f"{argv[0]}: {error.strerror}") from error
    finally:
        os.close(source)
        for stream in streams:
            stream.close_write_end()


def kill_tree(pid: int) -> None:
    """SIGKILL a session leader, its session, and whatever descends from it by way of other sessions."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)  # or it would see its children die, and end by itself, or start others
    doomed = {pid}
    table = [(int(name), *_parent_and_session(name)) for name in os.listdir("/proc") if name.isdigit()]
    found = True
    while found:
        more = {each for each, parent, session in table if parent in doomed or session in doomed} - doomed
        doomed |= more
        found = bool(more)
    for each in doomed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


def kill_inside(namespaces: set[str]) -> int:
    """SIGKILL every process that is in one of `namespaces`, be it with one foot; how many there were."""
    count = 0
    own = os.getpid()
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != own:
            with contextlib.suppress(OSError):
                if any(os.readlink(f"/proc/{name}/ns/{kind}") in namespaces for kind in ("net", "mnt", "uts")):
                    os.kill(int(name), signal.SIGKILL)
                    count += 1
    return count


def _parent_and_session(pid: str) -> tuple[int, int]:
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return (0, 0)
    return (int(fields[1]), int(fields[3]))
