"""What a route does to its exchanges, step by step: on the way to an upstream, on the way back, and at the end.

One rule: the order of steps is the order in `steps_of`, whatever the order of keys in the file. A route that asks for
nothing has no steps, and its exchanges pay nothing.

Rules look at what came: `exchange.seen` has the header lines, `head.target` the target, `head.host` and `head.path`
what routes have looked at. A step that changes something changes `head.start` and `head.fields`: they go on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from l7proxy.board import Board
from l7proxy.core.head import ResponseHead
from l7proxy.core.model import Route

if TYPE_CHECKING:
    from l7proxy.http.exchange import Exchange
    from l7proxy.http.told import Told

# What becomes of an exchange after a step: on to the next one; it was answered; it waits, until somebody calls its
# `go_on`.
GO_ON, OVER, WAIT = range(3)


class Before(Protocol):
    """Looks at a request before it goes to an upstream."""

    def before(self, exchange: Exchange) -> int:
        """GO_ON, OVER or WAIT."""
        ...


class After(Protocol):
    """Looks at an answer before it goes to the client."""

    def after(self, exchange: Told, head: ResponseHead) -> None:
        """Change `head`, if need be."""
        ...


class End(Protocol):
    """Hears of the end of each exchange that has begun its steps, once."""

    def ended(self, exchange: Told) -> None:
        """It is over, in whatever way."""
        ...


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of one route, each kind in its order."""

    before: tuple[Before, ...] = ()
    after: tuple[After, ...] = ()
    ends: tuple[End, ...] = ()
    own: tuple[After, ...] = ()
    """Of `after`, those that the proxy's own answers take too."""


def steps_of(route: Route, board: Board) -> Steps | None:
    """The steps of `route`; None where it has none. What they count for all workers stands on `board`."""
    from l7proxy.http.access import BasicStep, access_steps
    from l7proxy.http.compression import CompressionStep
    from l7proxy.http.forwardauth import ForwardAuthStep
    from l7proxy.http.limits import ConcurrencyStep, RateStep
    from l7proxy.http.ownanswers import MaintenanceStep, RedirectStep, RespondStep
    from l7proxy.http.transform import AnswerMarking, RequestMarking, Rewriting

    before: list[Before] = []
    after: list[After] = []
    ends: list[End] = []
    # access: networks, then who it is; what costs more than a look comes after the rate: guesses are limited by it too
    access = list(access_steps(route.access)) if route.access is not None else []
    asking = [step for step in access if isinstance(step, BasicStep | ForwardAuthStep)]
    before += [step for step in access if step not in asking]
    # limits: rate, then concurrency
    if route.limits is not None and route.limits.rate is not None:
        before.append(RateStep(route.name, route.limits.rate, board))
    before += asking
    ends += [step for step in asking if isinstance(step, ForwardAuthStep)]
    if route.limits is not None and route.limits.concurrency is not None:
        concurrency = ConcurrencyStep(route.name, route.limits.concurrency, board)
        before.append(concurrency)
        ends.append(concurrency)
    # maintenance, redirect, respond: answers of our own
    if route.maintenance is not None:
        before.append(MaintenanceStep(route.maintenance))
    if route.redirect is not None:
        before.append(RedirectStep(route.redirect))
    if route.respond is not None:
        before.append(RespondStep(route.respond))
    # compression: what the client takes
    if route.compression is not None:
        after.append(CompressionStep(route.compression))
    # rewrite: path, query, host
    if route.rewrite is not None:
        rewriting = Rewriting(route)
        before.append(rewriting)
        if route.rewrite.answers:
            after.append(rewriting)
    # headers, after all that looks at them or adds some
    own: list[After] = []
    if route.marking is not None:
        marking = RequestMarking(route.marking)
        if marking:
            before.append(marking)
        answers = AnswerMarking(route.marking)
        if answers:
            after.append(answers)
            own.append(answers)
    if not before and not after and not ends:
        return None
    return Steps(tuple(before), tuple(after), tuple(ends), tuple(own))
