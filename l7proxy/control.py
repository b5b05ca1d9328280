"""What a supervisor and its workers say to each other: messages over a Unix socket pair, listening sockets with them.

One rule: neither side can hurt the other. A message is a length and JSON, no longer than LONGEST_BYTES and checked
against its class; whoever breaks that, or takes nothing until MOST_WAITING_BYTES wait, loses the channel, not more.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from director.kit.errors import DirectorError
from l7proxy.core.flight import Told
from l7proxy.core.metering import Counts
from l7proxy.core.wishes import Entry

VERSION = 1
"""Of these messages. Only equal versions talk; towards others there is SIGTERM."""
LONGEST_BYTES = 32 * 1024 * 1024
MOST_WAITING_BYTES = 2 * LONGEST_BYTES
_MOST_SOCKETS = 250
"""In one system call (SCM_MAX_FD is 253)."""
_READ_BYTES = 256 * 1024
_LENGTH = struct.Struct("!I")


def taken_over(descriptor: int) -> socket.socket:
    """The socket of a descriptor from another process. Not blocking: it was not there, and a copy made of one that
    Python holds for blocking would make all of them so, for they share the flag.

    Raises: OSError.
    """
    found = socket.socket(fileno=descriptor)
    found.setblocking(False)
    return found


class ControlError(DirectorError):
    """The other side is gone, or is not what it should be."""


class Pace(Enum):
    """How a worker leaves.

    GENTLE: others serve the same addresses. A connection that waits is kept for one more request, so that none is lost
    to a close that crosses it. BRISK: nobody will; what waits is closed at once. NOW: so is everything else.
    """

    GENTLE = "gentle"
    BRISK = "brisk"
    NOW = "now"


HealthChange = tuple[int, str, bool, str]
"""Which check (its place in `checks_of`), its status, whether its last result was good, and why."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the operator wants: of backends, and whether all of this is drained. `id` 0: no answer is wanted."""

    backends: tuple[Entry, ...] = ()
    draining: bool = False
    id: int = 0
    kind: Literal["wanted"] = "wanted"


NOTHING_WANTED = Wanted()


@dataclass(frozen=True, slots=True)
class Prepare:
    """Get ready for a configuration. `binds` are the addresses of clients, whose sockets come along in this order.

    `number` names the configuration in what follows; `workers` share its limits. `files` is what the files that `text`
    names held, so that all serve the same, also a worker that comes later.
    """

    id: int
    number: int
    source: str
    text: str
    binds: tuple[str, ...]
    workers: int
    health: tuple[HealthChange, ...]
    files: dict[str, str] = field(default_factory=dict, repr=False)
    rows: dict[str, int] = field(default_factory=dict, repr=False)
    """Where on the board what it shares stands."""
    version: int = VERSION
    wanted: Wanted = NOTHING_WANTED
    kept: tuple[str, ...] = ()
    """Those of `binds` whose sockets outlive this program: who queues there is left to the next one."""
    kind: Literal["prepare"] = "prepare"


@dataclass(frozen=True, slots=True)
class Commit:
    """Go over to what was prepared."""

    id: int
    kind: Literal["commit"] = "commit"


@dataclass(frozen=True, slots=True)
class Abandon:
    """Forget what was prepared."""

    id: int
    kind: Literal["abandon"] = "abandon"


@dataclass(frozen=True, slots=True)
class Health:
    """What checks of configuration `number` say now."""

    number: int
    changes: tuple[HealthChange, ...]
    kind: Literal["health"] = "health"


@dataclass(frozen=True, slots=True)
class Notice:
    """Say that this process drains; clients still come in."""

    kind: Literal["notice"] = "notice"


@dataclass(frozen=True, slots=True)
class Drain:
    """Accept no more, finish, exit."""

    pace: Pace
    kind: Literal["drain"] = "drain"


@dataclass(frozen=True, slots=True)
class Collect:
    """Tell all that was counted."""

    id: int
    kind: Literal["collect"] = "collect"


@dataclass(frozen=True, slots=True)
class Remember:
    """Tell the last `most` exchanges that went wrong."""

    id: int
    most: int
    kind: Literal["remember"] = "remember"


@dataclass(frozen=True, slots=True)
class Done:
    """What `id` asked for is done, or was not because of `problem`."""

    id: int
    problem: str = ""
    kind: Literal["done"] = "done"


@dataclass(frozen=True, slots=True)
class Counted:
    """All that was counted. `id` 0: nobody asked, it is the last word."""

    id: int
    counts: Counts
    kind: Literal["counted"] = "counted"


@dataclass(frozen=True, slots=True)
class Remembered:
    """The exchanges that went wrong, oldest first."""

    id: int
    flights: tuple[Told, ...]
    kind: Literal["remembered"] = "remembered"


@dataclass(frozen=True, slots=True)
class Report:
    """How a worker is: its clients, and how much of it is used, 0 to 1."""

    connections: int
    in_flight: int
    used: float
    kind: Literal["report"] = "report"


@dataclass(frozen=True, slots=True)
class Leave:
    """Somebody has asked this worker to end: may another take its place first?"""

    kind: Literal["leave"] = "leave"


ToWorker = Prepare | Commit | Abandon | Health | Wanted | Notice | Drain | Collect | Remember
FromWorker = Done | Counted | Remembered | Report | Leave

Message = TypeVar("Message")
Said = TypeVar("Said")


class Codec(Generic[Message]):
    """Bytes from messages of one direction, and back."""

    def __init__(self, adapter: TypeAdapter[Message]) -> None:
        self._adapter = adapter

    def encode(self, message: Message) -> bytes:
        """Raises: ControlError where it is too long."""
        text = self._adapter.dump_json(message)
        if len(text) > LONGEST_BYTES:
            raise ControlError(f"a message of {len(text)} bytes is too long: at most {LONGEST_BYTES}")
        return _LENGTH.pack(len(text)) + text

    def decode(self, waiting: bytearray) -> Iterator[Message]:
        """Take whole messages off the front of `waiting`.

        Raises: ControlError.
        """
        while len(waiting) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(waiting)
            if length > LONGEST_BYTES:
                raise ControlError(f"a message of {length} bytes was announced: at most {LONGEST_BYTES}")
            end = _LENGTH.size + length
            if len(waiting) < end:
                return
            text = bytes(waiting[_LENGTH.size : end])
            del waiting[:end]
            try:
                message = self._adapter.validate_json(text)
            except ValidationError as error:
                raise ControlError(f"a message that means nothing: {error.errors(include_input=False)[0]}") from error
            yield message


TO_WORKER: Codec[ToWorker] = Codec(TypeAdapter(Annotated[ToWorker, Field(discriminator="kind")]))
FROM_WORKER: Codec[FromWorker] = Codec(TypeAdapter(Annotated[FromWorker, Field(discriminator="kind")]))


@dataclass(slots=True)
class _Piece:
    data: memoryview
    sockets: list[int] = field(default_factory=list)


class Channel(Generic[Said, Message]):
    """One end of a pair: says `Said`, hears `Message`. `on_message` gets each with the sockets that came so far;
    `on_lost` is called once, when the other side has gone, with "" or what was wrong with it."""

    def __init__(
        self,
        end: socket.socket,
        says: Codec[Said],
        hears: Codec[Message],
        on_message: Callable[[Message, deque[socket.socket]], None],
        on_lost: Callable[[str], None],
        on_room: Callable[[], None] | None = None,
    ) -> None:
        end.setblocking(False)
        self._end = end
        self._says = says
        self._hears = hears
        self._on_message = on_message
        self._on_lost = on_lost
        self._on_room = on_room
        self._heard = bytearray()
        self._sockets: deque[socket.socket] = deque()
        self._pieces: deque[_Piece] = deque()
        self._waiting_bytes = 0
        self._loop = asyncio.get_running_loop()
        self.is_open = True
        self._loop.add_reader(end.fileno(), self._readable)

    def fileno(self) -> int:
        """The descriptor of this end."""
        return self._end.fileno()

    @property
    def is_idle(self) -> bool:
        """Whether all that was said has left."""
        return not self._pieces

    def say(self, message: Said, sockets: Sequence[socket.socket] = ()) -> None:
        """Send `message`, and a copy of each of `sockets`. To a channel that is lost it is nothing."""
        if not self.is_open:
            return
        data = memoryview(self._says.encode(message))
        # A copy: the original may be closed before it goes out.
        copies = [each.dup().detach() for each in sockets]
        while len(copies) > _MOST_SOCKETS:
            self._pieces.append(_Piece(data[:1], copies[:_MOST_SOCKETS]))
            data, copies = data[1:], copies[_MOST_SOCKETS:]
        self._pieces.append(_Piece(data, copies))
        self._waiting_bytes += len(data)
        self._writable()
        if self._waiting_bytes > MOST_WAITING_BYTES:
            self._lose(f"it takes nothing: {self._waiting_bytes} bytes wait")

    def finish(self) -> None:
        """Hear what is there already, of a side that has ended, and close."""
        while self.is_open:
            if not self._readable():
                self.close()

    def close(self) -> None:
        """Hear and say no more."""
        if not self.is_open:
            return
        self.is_open = False
        self._loop.remove_reader(self._end.fileno())
        self._loop.remove_writer(self._end.fileno())
        self._end.close()
        for piece in self._pieces:
            _close(piece.sockets)
        self._pieces.clear()
        while self._sockets:
            self._sockets.popleft().close()

    def _lose(self, why: str) -> None:
        if self.is_open:
            self.close()
            self._on_lost(why)

    def _writable(self) -> None:
        while self._pieces:
            piece = self._pieces[0]
            ancillary = (
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", piece.sockets))] if piece.sockets else []
            )
            try:
                sent = self._end.sendmsg([piece.data], ancillary)
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(self._end.fileno(), self._writable)
                return
            except OSError:
                # What the other side has said before is still to be read: its end comes after that.
                for each in self._pieces:
                    _close(each.sockets)
                self._pieces.clear()
                self._waiting_bytes = 0
                self._loop.remove_writer(self._end.fileno())
                return
            _close(piece.sockets)
            piece.sockets = []
            piece.data = piece.data[sent:]
            self._waiting_bytes -= sent
            if not piece.data:
                self._pieces.popleft()
        self._loop.remove_writer(self._end.fileno())
        if self._on_room is not None:
            self._on_room()

    def _readable(self) -> bool:
        """Read once; whether there may be more."""
        try:
            data, ancillary, flags, _ = self._end.recvmsg(
                _READ_BYTES, socket.CMSG_SPACE(4 * _MOST_SOCKETS), socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data, ancillary, flags = b"", [], 0
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
                self._sockets.extend(taken_over(number) for number in numbers)
        if flags & socket.MSG_CTRUNC:
            self._lose("sockets were lost on their way: too many open files")
            return False
        if not data:
            self._lose("" if not self._heard else "it ended within a message")
            return False
        self._heard += data
        try:
            for message in self._hears.decode(self._heard):
                self._on_message(message, self._sockets)
                if not self.is_open:
                    return False
        except ControlError as error:
            self._lose(str(error))
        return self.is_open


def _close(numbers: Sequence[int]) -> None:
    for number in numbers:
        os.close(number)
