"""Connections that stand between two probes of a target, one for each, whose end makes the next probe come at once.

One rule: their number is bounded, and a target that keeps ending them is left without for a while: they may bring a
probe sooner, never a storm of probes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial

from director.kit.checks.base import Route, Tls
from director.kit.checks.check import Check
from director.kit.checks.http import HttpProbe
from director.kit.health import ProbeResult
from director.kit.net import Endpoint
from director.kit.probes.attempt import Attempt, Done, Outcome
from director.kit.probes.dialogue import Dialogue
from director.kit.probes.http import HttpDialogue
from director.kit.probes.kept import KeptConnection
from director.kit.probes.tcp import TcpDialogue
from director.kit.probes.wire import Engine

log = logging.getLogger(__name__)

FRESH_EVERY = 5
"""Of so many probes that could go over the kept connection, one makes a new one: accepting is proven too."""
SHORT_S = 5.0
SHORT_AT_MOST = 3
"""A target that has ended so many in a row within `SHORT_S` of their beginning, and was well nevertheless, is left
without for `BARRED_S`."""
BARRED_S = 60.0

Place = tuple[Endpoint, Route]
"""What a sentinel stands at: checks of one target, reached by one route, share it."""


def place_of(check: Check) -> Place:
    """Where the sentinel of `check` stands."""
    return check.target, check.route


def may_have_sentinel(check: Check) -> bool:
    """Whether `check` has one, or will where an l7proxy answers it."""
    return check.sentinel if check.sentinel is not None else isinstance(check.probe, HttpProbe)


class _Post:
    """What is known of the sentinels of one place."""

    __slots__ = ("barred_until", "is_told", "kept", "probes", "short_count", "since_short")

    def __init__(self) -> None:
        self.kept: KeptConnection | None = None
        self.probes = 0
        self.short_count = 0
        self.since_short: int | None = None
        """How many probes were begun since the last one has ended too soon; None when that is judged."""
        self.barred_until = 0.0
        self.is_told = False


class Sentinels:
    """At most `most` kept connections; `on_end` is told where the peer has ended one, and when."""

    def __init__(self, engine: Engine, most: int, on_end: Callable[[Place, float], None]) -> None:
        self._engine = engine
        self._most = most
        self._on_end = on_end
        self._posts: dict[Place, _Post] = {}
        self._l7proxies: set[Place] = set()
        self._count = 0
        self._is_full = False

    def begin(self, check: Check, dialogue: Dialogue, tls: Tls | None, done: Done, now: float) -> Attempt:
        """Probe once, over the kept connection where that proves enough; keep the connection afterwards."""
        place = place_of(check)
        post = self._posts.get(place)
        if post is None:
            post = self._posts[place] = _Post()
        if post.since_short is not None:
            post.since_short += 1
            if post.since_short > 1:  # the first one was no success: the server has died
                post.since_short, post.short_count = None, 0
        kept = post.kept
        says_nothing = isinstance(dialogue, TcpDialogue)
        keeper = partial(self._keep, place, post, tls, says_nothing)
        if kept is not None and kept.is_usable and kept.tls == tls and not says_nothing:
            post.probes += 1
            if post.probes % FRESH_EVERY:
                kept.is_lent = True
                return self._engine.resume(kept, check, dialogue, done, now, keeper)
        return self._engine.begin(check, dialogue, tls, done, now, keeper)

    def is_wanted(self, check: Check) -> bool:
        """Whether a probe of `check` is to keep its connection."""
        return check.sentinel if check.sentinel is not None else place_of(check) in self._l7proxies

    def learning(self, check: Check, dialogue: HttpDialogue, done: Done) -> Done:
        """`done`, with a look at who has answered before it."""

        def look(outcome: Outcome, now: float) -> None:
            if isinstance(outcome, ProbeResult) and outcome.ok:
                (self._l7proxies.add if dialogue.is_by_l7proxy else self._l7proxies.discard)(place_of(check))
            done(outcome, now)

        return look

    def watch(self, places: Iterable[Place]) -> None:
        """Keep sentinels only at `places`."""
        places = set(places)
        self._l7proxies &= places
        for place in self._posts.keys() - places:
            self._let_go(self._posts.pop(place))

    def _keep(
        self, place: Place, post: _Post, tls: Tls | None, says_nothing: bool, attempt: Attempt, now: float
    ) -> bool:
        if self._posts.get(place) is not post or now < post.barred_until:
            return False
        if post.since_short is not None:
            post.since_short = None
            post.short_count += 1
            if post.short_count >= SHORT_AT_MOST:
                self._bar(place, post, now)
                return False
        if not attempt.can_stay:
            return False
        if attempt.kept is not None:  # it was lent, and comes back
            if post.kept is not attempt.kept:
                return False
            post.kept.is_lent = False
            self._engine.keep(post.kept)
            return True
        if post.kept is not None:
            if post.kept.is_lent or says_nothing:
                return False
            post.short_count = 0  # it has lasted until the next one
        if post.kept is None and self._count >= self._most:
            self._tell_full()
            return False
        self._let_go(post)
        post.kept = KeptConnection(attempt, tls, now, self._engine.buffer, partial(self._ended, place, post))
        self._engine.keep(post.kept)
        self._count += 1
        return True

    def _let_go(self, post: _Post) -> None:
        """Close what is kept there, if anything; one that is lent is closed when it comes back."""
        kept, post.kept = post.kept, None
        if kept is not None:
            self._count -= 1
            if not kept.is_lent:
                self._engine.drop(kept)

    def _ended(self, place: Place, post: _Post, now: float | None) -> None:
        kept = post.kept
        if kept is None or self._posts.get(place) is not post:
            return
        self._let_go(post)
        if now is None:
            return
        if now - kept.since_at >= SHORT_S:
            post.short_count = 0
            post.is_told = False
        else:
            post.since_short = 0
        self._on_end(place, now)

    def _bar(self, place: Place, post: _Post, now: float) -> None:
        post.short_count = 0
        post.barred_until = now + BARRED_S
        if not post.is_told:
            post.is_told = True
            log.warning(
                "a real server keeps closing the connection that its sentinel needs: it does without for a while",
                extra={
                    "target": str(place[0]),
                    "within_s": SHORT_S,
                    "advice": "raise the server's idle or keep-alive timeout, or remove `sentinel: true`",
                },
            )

    def _tell_full(self) -> None:
        if not self._is_full:
            self._is_full = True
            log.warning(
                "no more sentinels: they are at their most",
                extra={"most": self._most, "advice": "raise LimitNOFILE=: sentinels use a quarter of it"},
            )
