"""What an operator can have a running l7proxy do, over the admin socket.

One rule: a wish changes what is wanted, never what the file says; whoever wishes is told at once what comes of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any, Protocol

from director.kit.errors import ConfigError, DirectorError
from director.kit.schemawalk import suggestion
from director.kit.yamltree import parse
from l7proxy.admin.shown import is_there
from l7proxy.control import Wanted
from l7proxy.core.flight import Told
from l7proxy.core.redaction import without_secrets
from l7proxy.core.wishes import HEAVIEST, moment
from l7proxy.files.loading import Loaded
from l7proxy.runtime import Proxy
from l7proxy.wishes import Kept, wanted_of

log = logging.getLogger("l7proxy")

LOOK_EVERY_S = 0.1
TOLD_WITHIN_S = 10.0
"""How long a director has to ask the agent before a drain goes on without it."""
SEEN_AFTER_S = 0.5
"""So long after it was told, a director has set its weight."""
ACTIONS = ("drain", "enable", "weight", "disable", "forget")


class UnknownError(DirectorError):
    """There is no such thing here."""


class Process(Protocol):
    """What operations need of the process that they are in."""

    @property
    def proxy(self) -> Proxy: ...

    @property
    def loaded(self) -> Loaded: ...

    async def tell(self, wanted: Wanted) -> None:
        """Tell all workers, if there are any, what is wanted, and return when they do so."""
        ...

    async def reload_now(self) -> list[str]:
        """Read the file again, and say what is wrong with it."""
        ...

    async def flights(self, most: int) -> list[Told]:
        """The last that went wrong, oldest first."""
        ...

    def request_stop(self) -> None: ...


@dataclass(slots=True)
class Drain:
    """That all of it is drained: since when (monotonic, and since the epoch), and until when it then stops."""

    since_at: float
    since: float
    stops_by_at: float | None = None
    told_at: float | None = None


class Operations:
    """All of them, for one process that clients or workers are told by."""

    def __init__(self, process: Process, kept: Kept, drained_since: float = 0.0) -> None:
        self._process = process
        self._kept = kept
        self._lock = asyncio.Lock()
        self.drain_wish: Drain | None = None
        if drained_since:
            ago_s = max(0.0, time.time() - drained_since)
            self.drain_wish = Drain(time.monotonic() - ago_s, drained_since)

    @property
    def wanted(self) -> Wanted:
        """What is wanted, to be told."""
        return Wanted(self._kept.entries, self.drain_wish is not None)

    @property
    def drained_since(self) -> float:
        """Since when all of it is drained, since the epoch; 0 where it is not."""
        return self.drain_wish.since if self.drain_wish is not None else 0.0

    def begin(self) -> None:
        """Have this process do as is wanted already."""
        proxy = self._process.proxy
        wanted_of(proxy, self._kept.wishes)
        proxy.draining = proxy.draining or self.drain_wish is not None
        for upstream, backend in self._kept.wishes:
            if not is_there(proxy.snapshot, upstream, backend):
                log.warning(
                    "the operator wants something of a backend that is not there",
                    extra={"upstream": upstream, "backend": backend},
                )

    async def keep_at(self, path: str) -> None:
        """After a reload: keep wishes at `path`, "" for nowhere."""
        async with self._lock:
            await asyncio.to_thread(self._kept.use, path)

    async def wish(self, upstream: str, backend: str, action: str, weight: int | None = None) -> list[str]:
        """Have one backend drained, disabled, enabled, given a weight, or forgotten. Sentences worth knowing.

        Raises: UnknownError, ConfigError.
        """
        proxy = self._process.proxy
        if action not in ACTIONS:
            raise ConfigError(f"{action!r} is nothing to do with a backend: {', '.join(ACTIONS)}")
        if action == "weight" and (weight is None or not 0 <= weight <= HEAVIEST):
            raise ConfigError(f"a weight is a number from 0 to {HEAVIEST}")
        there = is_there(proxy.snapshot, upstream, backend)
        if not there and (action not in {"enable", "forget"} or (upstream, backend) not in self._kept.wishes):
            raise UnknownError(self._unknown(upstream, backend))
        async with self._lock:
            is_new = self._kept.change((upstream, backend), action, weight)
            wanted_of(proxy, self._kept.wishes)
            await self._process.tell(self.wanted)
            note = await asyncio.to_thread(self._kept.save) if is_new else ""
        if is_new:
            fields: dict[str, object] = {"upstream": upstream, "backend": backend, "wish": action}
            log.info("the operator wants", extra=fields | ({"weight": weight} if weight is not None else {}))
        notes = [note] if note and action in {"drain", "disable", "weight"} else []
        if not is_new:
            notes.append("that is so already")
        if there:
            state = proxy.snapshot.upstreams[upstream]
            if not state.weights:
                why = state.why_nobody()
                notes.append(f"{upstream} serves nothing now (503, where the route has no other upstream): {why}")
        return notes

    def _unknown(self, upstream: str, backend: str) -> str:
        upstreams = self._process.proxy.snapshot.upstreams
        if upstream not in upstreams:
            near = suggestion(upstream, upstreams) or ": `l7proxy backends` names them"
            return f"there is no upstream {upstream!r}{near}"
        near = suggestion(backend, upstreams[upstream].backends) or ": `l7proxy backends` names them"
        return f"upstream {upstream} has no backend {backend!r}{near}"

    async def drain(self, *, stop: bool = False, within_s: float | None = None) -> list[str]:
        """Have whoever shares out connections choose others, and clients that are here come to an end; with `stop`, end
        as by SIGTERM once they have, or after `within_s`."""
        proxy = self._process.proxy
        now = time.monotonic()
        notes = []
        if self.drain_wish is None:
            self.drain_wish = Drain(now, time.time())
            log.info("the operator wants this l7proxy drained", extra={"connections": proxy.connections})
        elif not stop:
            notes.append(f"it is drained already, since {moment(self.drain_wish.since)}")
        proxy.draining = True
        await self._process.tell(self.wanted)
        config = proxy.snapshot.config
        if not config.agent and not any(listener.health for listener in config.listeners):
            notes.append("nobody is told of it: there is neither an `agent` nor a listener with `health` in the file")
        if stop and self.drain_wish is not None:
            is_begun = self.drain_wish.stops_by_at is not None
            self.drain_wish.stops_by_at = now + (config.timeouts.drain_s if within_s is None else within_s)
            if not is_begun:
                proxy.spawn(self._stop_when_drained(self.drain_wish))
        return notes

    async def undrain(self) -> list[str]:
        """Take clients again."""
        if self.drain_wish is None:
            return ["it is not drained"]
        self.drain_wish = None
        self._process.proxy.draining = False
        await self._process.tell(self.wanted)
        log.info("the operator wants this l7proxy back")
        return []

    def told(self) -> dict[str, Any] | None:
        """How far the drain is; None where there is none."""
        drain = self.drain_wish
        if drain is None:
            return None
        return {
            "since": moment(drain.since),
            "for_s": round(time.monotonic() - drain.since_at, 1),
            "stops": drain.stops_by_at is not None,
            "director_told": self._told_at(drain) is not None,
            "may_end": self._is_done(drain),
        }

    def _is_done(self, drain: Drain) -> bool:
        """Whether nobody is here any more, and nobody new is sent."""
        proxy = self._process.proxy
        now = time.monotonic()
        config = proxy.snapshot.config
        told_at = self._told_at(drain)
        is_seen = (
            not config.agent
            or (told_at is not None and now - told_at >= SEEN_AFTER_S)
            or now - drain.since_at >= TOLD_WITHIN_S
        )
        return is_seen and now - drain.since_at >= config.timeouts.notice_s and not proxy.connections

    def _told_at(self, drain: Drain) -> float | None:
        """When a director was first told of it, as far as is known."""
        asked_at = self._process.proxy.asked_at
        if drain.told_at is None and asked_at > drain.since_at:
            drain.told_at = asked_at
        return drain.told_at

    async def _stop_when_drained(self, drain: Drain) -> None:
        while self.drain_wish is drain and drain.stops_by_at is not None and time.monotonic() < drain.stops_by_at:
            if self._is_done(drain):
                break
            await asyncio.sleep(LOOK_EVERY_S)
        if self.drain_wish is drain:
            log.info("drained, as the operator wants, and stops now", extra={"left": self._process.proxy.connections})
            self._process.request_stop()

    @property
    def notice_is_given(self) -> bool:
        """Whether who shares out connections has known for long enough that this process stops."""
        drain = self.drain_wish
        notice_s = self._process.proxy.snapshot.config.timeouts.notice_s
        return drain is not None and time.monotonic() - drain.since_at >= notice_s

    @property
    def loaded(self) -> Loaded:
        """What is served, and its text."""
        return self._process.loaded

    def config(self) -> dict[str, Any]:
        """The configuration in force, without its secrets and comments. It takes time for a large one."""
        loaded = self._process.loaded
        return {
            "source": loaded.source,
            "config": without_secrets(parse(loaded.text).data),
            "warnings": list(loaded.warnings),
        }

    async def reload(self) -> list[str]:
        """Take the file as it is now. What is wrong with it; nothing where it is served."""
        return await self._process.reload_now()

    async def failures(self, most: int) -> list[Told]:
        """The last that went wrong, oldest first."""
        return await self._process.flights(most)
