"""Asks the host's resolver (files, DNS, whatever nsswitch.conf(5) says) for addresses, several names at once.

One rule: nobody waits longer than they said. getaddrinfo(3) takes as long as it likes and cannot be stopped, so that
it runs in threads that nobody joins, at most `THREADS` of them.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

from director.kit.net import Answer, IPAddress, parse_unicast

THREADS = 16
NO_ANSWER = "no answer in time"


def found_for(host: str) -> tuple[str, ...] | str:
    """Whatever addresses the host's resolver gives for `host`, each once, or why it gives none. Blocks."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return (error.strerror if isinstance(error, OSError) else str(error)) or "it cannot be looked up"
    return tuple(dict.fromkeys(str(place[0]) for *_, place in found))


def ask_host(host: str) -> Answer:
    """The addresses of `host` that a real server can have, or why there are none. Blocks."""
    texts = found_for(host)
    if isinstance(texts, str):
        return texts
    usable = {text: address for text in texts if (address := _usable(text)) is not None}
    if texts and not usable:
        return f"it has no address that a real server can have ({', '.join(texts[:3])})"
    return tuple(usable.values())


def _usable(text: str) -> IPAddress | None:
    try:
        return parse_unicast(text)
    except ValueError:
        return None


class Resolver:
    """Asks `ask` for names; its methods may be called in any thread."""

    def __init__(self, ask: Callable[[str], Answer] = ask_host) -> None:
        self._ask = ask
        self._changed = threading.Condition()
        self._queue: deque[str] = deque()
        self._running: set[str] = set()
        self._answers: dict[str, Answer] = {}
        self._waiting: dict[str, int] = {}  # how many wait for it
        self._threads = 0
        self._closed = False

    def look_up(self, hosts: Mapping[str, float]) -> dict[str, Answer]:
        """What each of `hosts` is, as far as that is known within its seconds; the others have a reason. Blocks.

        One that is being asked for already is not asked for again.
        """
        now = time.monotonic()
        until_at = {host: now + within_s for host, within_s in hosts.items()}
        with self._changed:
            for host in hosts:
                self._waiting[host] = self._waiting.get(host, 0) + 1
                if not (host in self._running or host in self._answers or self._waiting[host] > 1):
                    self._queue.append(host)
            self._start()
            while not self._closed:
                left_s = max((until_at[host] for host in hosts if host not in self._answers), default=0.0)
                left_s -= time.monotonic()
                if left_s <= 0:
                    break
                self._changed.wait(left_s)
            found = {host: self._answers.get(host, NO_ANSWER) for host in hosts}
            for host in hosts:
                self._waiting[host] -= 1
                if not self._waiting[host]:
                    del self._waiting[host]
                    self._answers.pop(host, None)
            self._queue = deque(host for host in self._queue if host in self._waiting)
        return found

    def close(self) -> None:
        """Let whoever waits go on without an answer, and ask nothing more."""
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._changed.notify_all()

    def _start(self) -> None:
        for _ in range(0 if self._closed else min(len(self._queue), THREADS - self._threads)):
            self._threads += 1
            threading.Thread(target=self._work, name="resolver", daemon=True).start()

    def _work(self) -> None:
        """Ask for what is in the queue, until that is empty."""
        while (host := self._next()) is not None:
            answer: Answer
            try:
                answer = self._ask(host)
            except Exception as error:  # noqa: BLE001 -- whatever it is, somebody waits for an answer
                answer = f"it cannot be looked up: {error!r}"
            with self._changed:
                self._running.discard(host)
                if host in self._waiting:
                    self._answers[host] = answer
                    self._changed.notify_all()

    def _next(self) -> str | None:
        with self._changed:
            if not self._queue:
                self._threads -= 1
                return None
            host = self._queue.popleft()
            self._running.add(host)
            return host
