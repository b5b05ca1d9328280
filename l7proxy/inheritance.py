"""What one program leaves to the next one in the same process: sockets, workers, and what is known.

One rule: an exec closes nothing that a client sees. What is left is a list of descriptors in an unnamed file, whose own
descriptor stands in the environment beside this pid, so that no child takes it for its own.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from pydantic import TypeAdapter, ValidationError

from director.kit.errors import HostError
from director.kit.net import Endpoint, parse_endpoint
from director.kit.service import ServiceManager
from l7proxy.board import Board, BoardLeft
from l7proxy.control import HealthChange, taken_over
from l7proxy.core.metering import Counts
from l7proxy.core.wishes import Entry

VARIABLE = "L7PROXY_INHERITED"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
"""What a supervisor handles. They wait (are blocked) from before an exec until the next program has its handlers."""


@dataclass(frozen=True, slots=True)
class HeirWorker:
    """A worker that goes on. `is_leaving`: it was told to drain. `is_fresh`: it is of the next program already.

    `slot` is its own on the board, -1 where it has none there.
    """

    pid: int
    channel: int
    is_leaving: bool
    is_fresh: bool
    slot: int = -1


@dataclass(frozen=True, slots=True)
class Inheritance:
    """All of it; descriptors are numbers. `sockets` are by address, `text` is the configuration that workers serve."""

    source: str
    text: str
    number: int
    sockets: dict[str, int]
    workers: tuple[HeirWorker, ...]
    health: tuple[HealthChange, ...]
    ended: Counts
    stops: bool = False
    files: dict[str, str] = field(default_factory=dict, repr=False)
    """What the files that `text` names held."""
    board: BoardLeft | None = None
    wishes: tuple[Entry, ...] = ()
    drained_since: float = 0.0
    """Since when the operator wants all of it drained, since the epoch; 0 for not."""
    admin: dict[str, int] = field(default_factory=dict)
    """The admin socket, by its path."""
    reloads: bool = False
    upgrades: bool = False
    """What was asked for and could not be begun."""

    @property
    def descriptors(self) -> list[int]:
        """All that are left."""
        own = [self.board.descriptor] if self.board is not None else []
        channels = (worker.channel for worker in self.workers)
        return [*self.sockets.values(), *channels, *own, *self.admin.values()]


_ADAPTER = TypeAdapter(Inheritance)


def program() -> list[str]:
    """The words that start this program as it was started: a script by its own name, so that what stands there now is
    what runs, else this Python with its options."""
    before = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]
    script = Path(sys.argv[0])
    if before and before[-1] == sys.argv[0] and os.access(script, os.X_OK) and script.read_bytes()[:2] == b"#!":
        return [str(script.absolute())]
    if before[-2:] == ["-m", "l7proxy"]:
        return [sys.executable, *before[1:]]
    return [sys.executable, "-m", "l7proxy"]


def become(words: list[str], left: Inheritance, manager: ServiceManager) -> NoReturn:
    """Run the program `words` in this process, and leave it `left`, and the service `manager` with what it has handed.

    Raises: HostError where it cannot be run; all is as before then.
    """
    descriptors = [*left.descriptors, *(each.descriptor for each in manager.handed)]
    memory = os.memfd_create("l7proxy")
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        with os.fdopen(os.dup(memory), "wb") as file:
            file.write(_ADAPTER.dump_json(left))
        _inheritable([memory, *descriptors], True)
        os.environ.update({**manager.variables, VARIABLE: f"{os.getpid()}:{memory}"})
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(words[0], words)  # noqa: S606 -- a list of arguments, no shell
    except OSError as error:
        for name in (VARIABLE, *manager.variables):
            os.environ.pop(name, None)
        _inheritable(descriptors, False)
        os.close(memory)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        raise HostError(f"{words[0]} cannot be run: {error.strerror}") from error


def inherited() -> Inheritance | None:
    """What was left to this process; None where nothing was.

    Raises: HostError.
    """
    said = os.environ.pop(VARIABLE, "")
    pid, _, memory = said.partition(":")
    if not said or pid != str(os.getpid()) or not memory.isdecimal():
        return None
    try:
        os.lseek(int(memory), 0, os.SEEK_SET)
        with os.fdopen(int(memory), "rb") as file:
            left = _ADAPTER.validate_json(file.read())
    except (OSError, ValidationError) as error:
        raise HostError(f"what the program before this one has left cannot be read: {error}") from error
    _inheritable(left.descriptors, False)
    return left


def inherited_board(left: Inheritance) -> tuple[Board, str]:
    """What workers share, and why it is a new one, where it is: workers that stay share nothing with it then.

    Raises: HostError: there can be none.
    """
    if left.board is None:
        return Board.make(seated=False), ""
    try:
        return Board.take_over(left.board, [worker.slot for worker in left.workers]), ""
    except HostError as error:
        os.close(left.board.descriptor)
        return Board.make(seated=False), str(error)


def inherited_sockets(left: Inheritance) -> dict[Endpoint, socket.socket]:
    """The listening sockets, each looked at: it must listen, and where it is said to.

    Raises: HostError.
    """
    found = {}
    for text, descriptor in left.sockets.items():
        endpoint = parse_endpoint(text)
        try:
            each = taken_over(descriptor)
            host, port = each.getsockname()[:2]
            listens = each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            raise HostError(f"descriptor {descriptor}, left for {endpoint}, is no socket: {error.strerror}") from error
        family = socket.AF_INET6 if endpoint.address.version == 6 else socket.AF_INET
        if not listens or port != endpoint.port or socket.inet_pton(family, host) != endpoint.address.packed:
            raise HostError(f"descriptor {descriptor}, left for {endpoint}, is of {host} port {port}")
        found[endpoint] = each
    return found


def _inheritable(descriptors: Iterable[int], may: bool) -> None:
    for each in descriptors:
        os.set_inheritable(each, may)
