"""Waits for a confirmation where no director runs: a process of its own, which the shell's end does not reach.

One rule: whatever ends the wait but a confirmation (the deadline, `director undo`, SIGTERM) puts back what was there.

It listens on a Unix socket (0600) in the state directory. A request is one line of JSON, `{"do": "confirm"}`, `undo` or
`status`; so is an answer, after lines that tell of a drain.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from director.kit.errors import DirectorError, HostError
from director.once import Once

NAME = "confirm.sock"
TALK_S = 5.0  # for a request of one line
ANSWER_S = 600.0  # for an answer, or the next line about a drain

Answer = Mapping[str, Any]


def detach(work: Callable[[Callable[[Answer], None]], None]) -> Answer:
    """Do `work` in a process that belongs to no shell and no terminal; what it tells first.

    It goes on after that. Raises: HostError when it ended without a word.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _become_nobodys(work, writer)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.readline()
    if not told.endswith(b"\n"):
        raise HostError(
            "the process that was to apply it and wait ended without a word: `director undo` puts back what it changed"
        )
    answer: Answer = json.loads(told)
    return answer


def _become_nobodys(work: Callable[[Callable[[Answer], None]], None], writer: int) -> None:
    """The child's part; it never returns."""
    try:
        os.setsid()
        if os.fork():  # a session's leader could be given a terminal again
            os._exit(0)
        for number in (signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        os.chdir("/")
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)

        def tell(answer: Answer) -> None:
            with suppress(BrokenPipeError):
                os.write(writer, json.dumps(answer).encode() + b"\n")

        try:
            work(tell)
        except DirectorError as error:
            tell({"error": str(error)})
        except Exception as error:  # noqa: BLE001 -- it has no terminal to say more on
            tell({"error": f"internal error: {error!r}"})
    finally:
        os._exit(0)


@contextmanager
def listening(directory: Path) -> Iterator[socket.socket]:
    """The socket on which a confirmation comes. The caller holds the directory's lock. Raises: HostError."""
    with _folder(directory) as folder, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        path = directory / NAME
        try:
            path.unlink(missing_ok=True)
            before = os.umask(0o177)
            try:
                listener.bind(f"{folder}/{NAME}")
            finally:
                os.umask(before)
            listener.listen()
        except OSError as error:
            raise HostError(f"could not listen for a confirmation on {path}: {error.strerror}") from error
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Guardian:
    """Guards an apply that `once` has begun, until `until_at` (monotonic). `until` says the same to people."""

    once: Once
    source: str
    until_at: float
    until: str
    drain_s: float | None = None

    def guard(self, listener: socket.socket, stop: socket.socket) -> str:
        """Wait, then remove or put back; what came of it, in a sentence. `stop` is readable when it is to end."""
        while True:
            ready, _, _ = select.select([listener, stop], [], [], max(0.0, self.until_at - time.monotonic()))
            if stop in ready:
                return self._undo(None, "told to stop")
            if listener not in ready:
                return self._undo(None, f"not confirmed until {self.until}")
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(TALK_S)
                match _word(peer):
                    case "confirm":
                        return self._confirm(peer)
                    case "undo":
                        return self._undo(peer, "undone on request")
                    case "status":
                        _say(peer, {"source": self.source, "until": self.until})
                    case _:
                        _say(peer, {"error": "ask for confirm, undo or status"})

    def _confirm(self, peer: socket.socket) -> str:
        def tell(who: Sequence[tuple[str, int]], left_s: float) -> None:
            _say(peer, {"draining": who, "left_s": left_s})

        try:
            applied = self.once.remove() if self.drain_s is None else self.once.drain(self.drain_s, tell)
        except DirectorError as error:
            _say(peer, {"error": str(error)})
            return f"confirmed, and then: {error}"
        _say(peer, applied.plain())
        return "confirmed"

    def _undo(self, peer: socket.socket | None, why: str) -> str:
        try:
            undone = self.once.undo()
        except DirectorError as error:
            if peer:
                _say(peer, {"error": str(error)})
            return f"{why}, and could not be put back: {error}"
        if peer:
            _say(peer, undone.plain())
        told = "; ".join((*undone.failures, *undone.waiting))
        return f"{why}: not all is back: {told}" if told else f"{why}: what was there before is back"


def ask(directory: Path, do: str) -> Iterator[Answer]:
    """Ask whoever waits for a confirmation in `directory`; nothing comes when nobody does. Raises: DirectorError."""
    with suppress(FileNotFoundError, ConnectionRefusedError):
        try:
            with _folder(directory) as folder, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
                peer.settimeout(ANSWER_S)
                peer.connect(f"{folder}/{NAME}")
                peer.sendall(json.dumps({"do": do}).encode() + b"\n")
                with peer.makefile("rb") as lines:
                    for line in lines:
                        answer: Answer = json.loads(line)
                        if "error" in answer:
                            raise DirectorError(answer["error"])
                        yield answer
        except (FileNotFoundError, ConnectionRefusedError):
            raise
        except OSError as error:
            raise HostError(f"could not ask whoever waits for a confirmation in {directory}: {error}") from error


@contextmanager
def _folder(directory: Path) -> Iterator[str]:
    """A short name of `directory`: a socket's path holds 107 bytes (unix(7))."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _word(peer: socket.socket) -> str:
    try:
        with peer.makefile("rb") as lines:
            request = json.loads(lines.readline(1000))
    except (OSError, ValueError):
        return ""
    return str(request.get("do", "")) if isinstance(request, dict) else ""


def _say(peer: socket.socket, answer: Answer) -> None:
    with suppress(OSError):  # whoever asked has gone: what they asked for is done all the same
        peer.sendall(json.dumps(answer).encode() + b"\n")
