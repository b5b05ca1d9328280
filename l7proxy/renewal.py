"""Certificates that are renewed while they are served: who looks at their files, and what is told of it.

One rule: a file is read when it has changed and then stayed the same from one look to the next, so that a pair that is
being written is not taken for a bad one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from l7proxy import certificates
from l7proxy.core.model import Config
from l7proxy.loading import Renewal

log = logging.getLogger("l7proxy")

LOOK_EVERY_S = 1.0
AGAIN_S = 30.0
"""When it is tried again where workers could not take what is good."""

_Stamps = dict[str, tuple[int, int, int]]


class Watch:
    """Looks at the files of certificates of whatever configuration is in force, and calls `on_change`."""

    def __init__(self, config: Callable[[], Config], on_change: Callable[[], None]) -> None:
        self._config = config
        self._on_change = on_change
        self._known: _Stamps | None = None
        self._last: _Stamps | None = None

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            config = self._config()
            if all(listener.tls is None for listener in config.listeners):
                continue
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
    for problem in renewal.problems:
        log.error("certificate not taken anew, the old one stays", extra={"problem": problem})
    for warning in renewal.warnings:
        log.warning("the configuration is served as it is", extra={"problem": warning})
