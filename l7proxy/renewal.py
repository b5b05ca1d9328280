"""Certificates that are renewed while they are served: who looks at their files, and what is told of it.

One rule: a file is read when it has changed and then stayed the same from one look to the next, so that a pair that is
being written is not taken for a bad one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from l7proxy.core.model import Config
from l7proxy.files import certificates, names
from l7proxy.files.loading import Loaded, Renewal

log = logging.getLogger("l7proxy")

LOOK_EVERY_S = 1.0
NAMES_EVERY_S = 30.0
AGAIN_S = 30.0
"""When it is tried again where workers could not take what is good."""

_Stamps = dict[str, tuple[int, int, int]]


class Watch:
    """Looks at the files of certificates of whatever configuration is in force, and at what names of its backends are,
    and calls `on_change`."""

    def __init__(self, loaded: Callable[[], Loaded], on_change: Callable[[], None]) -> None:
        self._loaded = loaded
        self._on_change = on_change
        self._known: _Stamps | None = None
        self._last: _Stamps | None = None
        self._asked_at = time.monotonic()

    async def run(self) -> None:
        """Look again and again, until cancelled. A look that fails in itself, such as one that no thread can be had
        for, is told once and made again: it must not end what serves."""
        fails = False
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self._turn()
                fails = False
            except Exception:
                if not fails:
                    log.exception("files and names cannot be looked at, what is known stays")
                fails = True

    async def _turn(self) -> None:
        loaded = self._loaded()
        config = loaded.config
        if time.monotonic() - self._asked_at >= NAMES_EVERY_S and names.are_among(loaded.files):
            self._asked_at = time.monotonic()
            if await asyncio.to_thread(names.news, loaded.files):
                self._on_change()
        if all(listener.tls is None for listener in config.listeners):
            return
        # In a thread: there may be hundreds, on a disk that is elsewhere.
        now = await asyncio.to_thread(_look, config)
        settled, self._last = now == self._last, now
        if settled and now != self._known:
            self._known = now
            self._on_change()


def _look(config: Config) -> _Stamps:
    found: _Stamps = {}
    for listener in config.listeners:
        if listener.tls is not None:
            found.update(certificates.stamps(listener.tls))
    return found


def tell(renewal: Renewal) -> None:
    """One line for each listener, and for each file that was not taken."""
    for listener, what in renewal.changed:
        log.info("certificates taken anew", extra={"listener": listener, "certificates": what})
    for host, said in renewal.moved.items():
        log.info("backend's name has another address", extra={"name": host, "addresses": said})
    for problem in renewal.problems:
        log.error("certificate not taken anew, the old one stays", extra={"problem": problem})
    for warning in renewal.warnings:
        log.warning("the configuration is served as it is", extra={"problem": warning})
