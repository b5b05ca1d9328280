"""What plan and apply answer, as values and as JSON.

One rule: the keys are the API's; they are added to, and never change their meaning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NotRequired, TypedDict


class Line(TypedDict):
    """A `Step` as JSON."""

    sign: str
    subject: str
    detail: str
    effect: str


class AppliedAnswer(TypedDict):
    """`Applied` as JSON."""

    steps: list[Line]
    failures: list[str]
    waiting: list[str]
    later: list[Line]
    confirm_s: float | None
    notes: NotRequired[list[str]]


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a plan. `sign` is `+` adds, `~` changes, `-` removes; `effect` is what it does to traffic.

    `interim`: on the way to a removal, which has a line of its own.
    """

    sign: str
    subject: str
    detail: str
    effect: str = ""
    interim: bool = False

    def __str__(self) -> str:
        detail = f": {self.detail}" if self.detail else ""
        return f"{self.sign} {self.subject}{detail}{'; ' + self.effect if self.effect else ''}"

    def plain(self) -> Line:
        """As JSON has it."""
        return {"sign": self.sign, "subject": self.subject, "detail": self.detail, "effect": self.effect}


class PlannedAnswer(TypedDict):
    """`Planned` as JSON."""

    steps: list[Line]
    failures: list[str]
    notes: list[str]


@dataclass(frozen=True, slots=True)
class Planned:
    """What an apply would do. `failures` are sentences: why it would fail; `notes`, what else there is to know."""

    steps: tuple[Step, ...] = ()
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def plain(self) -> PlannedAnswer:
        """As JSON has it."""
        steps = [step.plain() for step in self.steps]
        return {"steps": steps, "failures": list(self.failures), "notes": list(self.notes)}


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply did. `failures` and `waiting` are sentences: what it could not do, what is still to come.

    `later` is what it will do when what leaves has drained, or, where `confirm_s` is there, when it is confirmed within
    so many seconds. `notes` are what else there is to know.
    """

    steps: tuple[Step, ...] = ()
    failures: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    later: tuple[Step, ...] = ()
    confirm_s: float | None = None
    notes: tuple[str, ...] = ()

    def plain(self) -> AppliedAnswer:
        """As JSON has it."""
        answer: AppliedAnswer = {
            "steps": [step.plain() for step in self.steps],
            "failures": list(self.failures),
            "waiting": list(self.waiting),
            "later": [step.plain() for step in self.later],
            "confirm_s": self.confirm_s,
        }
        if self.notes:
            answer["notes"] = list(self.notes)
        return answer
