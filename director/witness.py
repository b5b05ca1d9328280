"""Sees who serves at each look: tells what has changed since the last one, and remembers it for the next director.

One rule: it changes nothing; whoever it tells (events, hooks) must not block.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from director.core.event import Event, EventKind, sentence
from director.core.model import Config, ServerRef, VirtualServer
from director.core.policy import Hook
from director.core.transitions import Seen, transitions
from director.kit.health import Status
from director.lastknown import LastKnown
from director.terms import Inputs

log = logging.getLogger(__name__)

Tell = Callable[[Event], None]
What = TypeVar("What")

_BAD = {"load fails", "down", "lost", "serves", "panics", "warning"}
_LOGGED = {EventKind.HEALTH, EventKind.QUORUM, EventKind.SORRY, EventKind.PANIC, EventKind.CERTIFICATE}


@dataclass(frozen=True, slots=True)
class HookDue:
    """A hook to run for `virtual_server`, whose quorum is now `held` or not."""

    virtual_server: str
    held: bool
    hook: Hook
    alive: int


class Witness:
    """Compares each look with the one before."""

    def __init__(
        self,
        last: LastKnown,
        tell: Tell = lambda event: None,
        run: Callable[[HookDue], None] = lambda due: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._last = last
        self._tell = tell
        self._run = run
        self._clock = clock
        self._seen: Seen | None = None
        self._quorate: Mapping[str, bool] = dict(last.quorate)
        self._presumed: tuple[Config | None, Mapping[ServerRef, Status]] = (None, {})

    @property
    def quorate(self) -> Mapping[str, bool]:
        """By virtual server, whether quorum was held at the last look."""
        return self._quorate

    def presumed(self, config: Config) -> Mapping[ServerRef, Status]:
        """What every real server of `config` was when a director last knew."""
        if self._presumed[0] is not config:
            self._presumed = (config, self._last.presumed(config))
        return self._presumed[1]

    def look(self, inputs: Inputs) -> Callable[[], None]:
        """Tell what `inputs` have that the look before had not; what is returned saves it, and may block."""
        before, after = self._seen, _seen(inputs)
        is_news = before is None or before.config is not after.config
        self._seen = after
        for event in transitions(before, after, inputs.now, self._clock()):
            is_news = True
            if event.kind in _LOGGED or event.was.startswith("load"):
                _log(event)
            # What it was when a director last knew was told then.
            if not (event.was == Status.PENDING.value and _is_known(inputs, event)):
                _pass_on(self._tell, event)
        was = self._quorate
        self._quorate = dict(_quorate(inputs, was))
        for due in _due(inputs, was, self._quorate):
            _pass_on(self._run, due)
        if not (is_news or self._quorate != was or self._last.is_behind):
            return _nothing
        known = self._last.updated(inputs.config, inputs.health, self._quorate)
        return lambda: self._last.save(known)


def _seen(inputs: Inputs) -> Seen:
    return Seen(inputs.config, inputs.serving(), inputs.health, inputs.wishes, inputs.silent)


def _is_known(inputs: Inputs, event: Event) -> bool:
    known = inputs.presumed.get(ServerRef(event.virtual_server, event.real_server))
    return known is not None and known.value == event.now


def _nothing() -> None:
    """What is known is saved."""


def _quorate(inputs: Inputs, was: Mapping[str, bool]) -> Iterator[tuple[str, bool]]:
    """Whether quorum is held; before the first verdicts nothing is known that a script should act on."""
    for name, standing in inputs.serving().standings.items():
        if name in inputs.ready:
            yield name, standing.quorate
        elif name in was:
            yield name, was[name]


def _due(inputs: Inputs, was: Mapping[str, bool], quorate: Mapping[str, bool]) -> Iterator[HookDue]:
    for virtual in inputs.config.virtual_servers:
        held = quorate.get(virtual.name)
        hook = None if held is None or held is was.get(virtual.name) else _hook(virtual, held)
        if hook is not None and held is not None:
            yield HookDue(virtual.name, held, hook, inputs.serving().standings[virtual.name].alive)


def _hook(virtual: VirtualServer, held: bool) -> Hook | None:
    quorum = virtual.policy.quorum
    return quorum.on_up if held else quorum.on_down


def _pass_on(take: Callable[[What], None], what: What) -> None:
    """Whoever fails to take it in must not keep the director from its work."""
    try:
        take(what)
    except Exception:
        log.exception("a change was not taken in", extra={"what": str(what)})


def _log(event: Event) -> None:
    level = logging.WARNING if event.now in _BAD else logging.INFO
    if event.kind is EventKind.HEALTH:
        fields = {"vs": event.virtual_server, "rs": event.real_server, "check": event.check, "reason": event.reason}
        log.log(level, "real server is %s", event.now, extra={**fields, "was": event.was})
        return
    log.log(level, "virtual server changed", extra={"vs": event.virtual_server, "what": sentence(event)})
