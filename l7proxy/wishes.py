"""What the operator wants, as one process keeps it: in memory, and in a file where one is named.

One rule: a wish is acted on whether or not it can be saved; who wishes is told when it will not outlive a restart.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from director.kit import statefile
from director.kit.errors import HostError
from l7proxy.core.wishes import BackendName, Entry, Wish, Wishes, changed, entries_of, wishes_of
from l7proxy.runtime import Proxy, Snapshot

log = logging.getLogger("l7proxy")

VERSION = 1


class Kept:
    """All wishes. `path` is where they are kept, "" for nowhere; `clock` gives seconds since the epoch."""

    def __init__(self, path: str = "", clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._wishes: dict[BackendName, Wish] = {}
        self._unread = False
        """Whether the file holds what could not be read: it is not written over."""

    @property
    def wishes(self) -> Wishes:
        """Those that hold."""
        return self._wishes

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The same, to be sent."""
        return entries_of(self._wishes)

    def take(self, entries: Iterable[Entry]) -> None:
        """Go on with what another process has kept, also where the file does not say so. Blocks for the disk."""
        self._wishes = wishes_of(tuple(entries))
        if not self._path:
            return
        try:
            is_other = self._content() != self._wishes
        except HostError:  # which the other process has told
            self._unread = True
            return
        if is_other:
            self.save()

    def read(self) -> None:
        """Learn what the file holds, if there is one. One that cannot be read is an ERROR line, and left alone."""
        if not self._path:
            return
        try:
            self._wishes = self._content()
            self._unread = False
        except HostError as error:
            self._unread = True
            log.error("what the operator wanted is not known: no backend is drained", extra={"reason": str(error)})

    def use(self, path: str) -> str:
        """Keep them at `path` from now on. What is worth knowing of that, or nothing. Blocks for the disk."""
        if path == self._path:
            return ""
        self._path, self._unread = path, False
        return self.save() if self._wishes else ""

    def change(self, backend: BackendName, action: str, weight: int | None = None) -> bool:
        """What an operator wants of `backend` now (`changed` in core has the actions); whether that is anything new."""
        before = self._wishes.get(backend)
        after = changed(before, action, self._clock(), weight)
        wishes = {**self._wishes, backend: after}
        self._wishes = {name: wish for name, wish in wishes.items() if wish is not None}
        return after != before

    def save(self) -> str:
        """Write them down. What is worth knowing of that, or nothing. Blocks for the disk."""
        if not self._path:
            return "this lasts until l7proxy stops: name a file with `state` in its configuration, and it lasts longer"
        try:
            if self._unread:
                self._content()
                self._unread = False
            entries: list[statefile.Json] = [list(entry) for entry in self.entries]
            statefile.save(Path(self._path), VERSION, {"backends": entries})
        except HostError as error:
            log.error("what the operator wants could not be saved", extra={"reason": str(error)})
            return f"this lasts only until l7proxy stops: {error}"
        return ""

    def _content(self) -> dict[BackendName, Wish]:
        path = Path(self._path)
        content = statefile.load(path, VERSION)
        if content is None:
            return {}
        try:
            return wishes_of(content.get("backends"))
        except ValueError as error:
            raise statefile.damaged(path, str(error)) from error


def take_wishes(snapshot: Snapshot, wishes: Wishes, now: float, wall: float) -> None:
    """Give every backend of `snapshot` what is wanted of it; `now` is monotonic, `wall` the same moment since the
    epoch."""
    for name, upstream in snapshot.upstreams.items():
        is_other = False
        for backend, state in upstream.backends.items():
            wish = wishes.get((name, backend))
            if wish != state.wish:
                is_other = True
                state.want(wish, now - max(0.0, wall - wish.since) if wish is not None else now)
        if is_other:
            upstream.refresh()


def wanted_of(proxy: Proxy, wishes: Wishes) -> None:
    """Have `proxy` do as is wanted, now and after each change of its configuration."""
    proxy.wishes = wishes
    take_wishes(proxy.snapshot, wishes, time.monotonic(), time.time())
