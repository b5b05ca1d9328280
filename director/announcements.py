"""Tells the neighbours of addresses that have come, several times: one announcement may be lost.

One rule: an address that has gone is not announced any more; it may be another director's now.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Container
from typing import Protocol

from director.core.vip import Vip
from director.kit.errors import DirectorError

log = logging.getLogger(__name__)

TIMES = 5  # keepalived: vrrp_garp_master_repeat
EVERY_S = 1.0


class Announces(Protocol):
    """Tells the neighbours of an address, once; never waits."""

    def send_once(self, vip: Vip) -> int: ...


class Announcements:
    """What is still to be said, and how often. Only the event loop touches it, but for `soon`."""

    def __init__(self, announcer: Announces) -> None:
        self._announcer = announcer
        self._left: dict[Vip, int] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Name the loop that `soon` hands over to."""
        self._loop = loop

    def soon(self, vip: Vip) -> None:
        """Announce `vip` from now on. May be called in any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._begin, vip)

    def keep(self, vips: Container[Vip]) -> None:
        """Forget what is not among `vips`."""
        self._left = {vip: left for vip, left in self._left.items() if vip in vips}

    async def run(self) -> None:
        """Repeat until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            for vip in list(self._left):
                self._announce(vip)

    def _begin(self, vip: Vip) -> None:
        self._left[vip] = TIMES
        self._announce(vip)

    def _announce(self, vip: Vip) -> None:
        try:
            self._announcer.send_once(vip)
        except DirectorError as error:
            log.warning("could not announce", extra={"vip": str(vip), "reason": str(error)})
        self._left[vip] -= 1
        if self._left[vip] <= 0:
            del self._left[vip]
