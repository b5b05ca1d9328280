"""The owner's end of the wire to the agent: orders go as files, their numbers and the answers over the doorbell.

One rule: at most MAX_PENDING orders are unanswered, so that what the guest has not read stays far below the
2 KB at which the user-mode kernel's serial line stalls for good.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from director.lab.errors import KernelLostError

MAX_PENDING = 128

Answer = Mapping[str, object]


class Pending:
    """What an order was or will be answered; a background command is answered twice (start, end)."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.started = threading.Event()
        self.ended = threading.Event()
        self.answer: Answer = {}
        self.first: Answer = {}


class Channel:
    """Sends orders from any thread, and files answers in a thread of its own."""

    def __init__(self, bell: socket.socket, folder: Path, console_tail: Callable[[], str]) -> None:
        self.folder = folder
        self._bell = bell
        self._console_tail = console_tail
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(MAX_PENDING)
        self._pending: dict[int, Pending] = {0: Pending(0)}
        self._lost = False
        self.ready = self._pending[0]
        self._thread = threading.Thread(target=self._listen, name="lab-channel", daemon=True)
        self._thread.start()

    def order(self, do: str, *, limit_s: float, payload: bytes | None = None, **details: object) -> Answer:
        """Give an order and wait for its answer.

        Raises: KernelLostError when there is none in `limit_s`, or the agent is gone.
        """
        with self._room:
            pending = self.post(do, payload=payload, **details)
            try:
                return self.wait(pending, pending.ended, limit_s)
            finally:
                with self._lock:
                    self._pending.pop(pending.number, None)

    def post(self, do: str, *, payload: bytes | None = None, **details: object) -> Pending:
        """Give an order without waiting. Only what is answered at once may be given outside `order`."""
        pending = Pending(next(self._numbers))
        if payload is not None:
            self.path(pending.number, "in").write_bytes(payload)
        partial = self.path(pending.number, "partial")
        partial.write_text(json.dumps({"do": do, "stdin": payload is not None, **details}), encoding="utf-8")
        partial.rename(self.path(pending.number, "order"))
        with self._lock:
            self._pending[pending.number] = pending
            if self._lost:
                self._end(pending, None)
            else:
                with contextlib.suppress(OSError):  # the listener will see the end
                    self._bell.sendall(b"%d\n" % pending.number)
        return pending

    def wait(self, pending: Pending, event: threading.Event, limit_s: float) -> Answer:
        """The answer that `event` of `pending` stands for.

        Raises: KernelLostError when there is none in `limit_s`, or the agent is gone.
        """
        if not event.wait(limit_s):
            raise KernelLostError(f"the lab's kernel gave no answer in {limit_s:g} s.\n{self._console_tail()}")
        answer = pending.first if event is pending.started else pending.answer
        if not answer:
            raise KernelLostError(f"the lab's kernel is gone.\n{self._console_tail()}")
        return answer

    def take(self, number: int, kind: str) -> bytes:
        """Read and remove a file of an order."""
        path = self.path(number, kind)
        data = path.read_bytes()
        path.unlink()
        return data

    def path(self, number: int, kind: str) -> Path:
        return self.folder / f"{number}.{kind}"

    def close(self) -> None:
        """Leave: the agent sees the end of the line and switches its kernel off."""
        with contextlib.suppress(OSError):
            self._bell.shutdown(socket.SHUT_RDWR)
        self._thread.join(5.0)
        self._bell.close()

    def _listen(self) -> None:
        unread = b""
        while True:
            try:
                data = self._bell.recv(65536)
            except OSError:
                data = b""
            if not data:
                break
            *lines, unread = (unread + data).split(b"\n")
            for line in lines:
                with contextlib.suppress(ValueError):
                    self._file(json.loads(line))
        with self._lock:
            self._lost = True
            for pending in list(self._pending.values()):
                self._end(pending, None)

    def _file(self, answer: dict[str, object]) -> None:
        with self._lock:
            pending = self._pending.get(int(str(answer["job"])))
            if pending is None:
                return
            if "pid" in answer:
                pending.first = answer
                pending.started.set()
            else:
                self._end(pending, answer)

    def _end(self, pending: Pending, answer: Answer | None) -> None:
        if pending.ended.is_set():
            return
        pending.answer = answer or {}
        pending.first = pending.first or pending.answer
        for kind in ("order", "in"):
            self.path(pending.number, kind).unlink(missing_ok=True)
        self._pending.pop(pending.number, None)
        pending.started.set()
        pending.ended.set()
