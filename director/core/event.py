"""What happened, as a value: the one shape that the journal, the API, the CLI and every notification have.

One rule: keys are only added, and none changes its meaning: receivers that others wrote depend on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import TypedDict

MOST_OUTPUT = 256  # characters of what a probe saw
MOST_TEXT = 2000  # of any other text: a reason may quote what came from elsewhere
EARLIEST, LATEST = 0.0, 253402300799.0  # what a datetime can show: until the end of 9999


class EventKind(Enum):
    """What an event is about."""

    HEALTH = "health"
    WEIGHT = "weight"
    QUORUM = "quorum"
    SORRY = "sorry"
    PANIC = "panic"
    WISH = "wish"
    MAINTENANCE = "maintenance"
    CONFIGURATION = "configuration"
    DRIFT = "drift"
    CERTIFICATE = "certificate"
    RESOLUTION = "resolution"
    NOTIFICATION = "notification"
    DAEMON = "daemon"


class EventAnswer(TypedDict):
    """`Event` as JSON. `time` is `at` in UTC, for people; `at` counts seconds since 1970."""

    at: float
    time: str
    kind: str
    virtual_server: str
    real_server: str
    was: str
    now: str
    reason: str
    weight_before: int | None
    weight_after: int | None
    check: str
    output: str
    errno: str
    duration_ms: float | None


@dataclass(frozen=True, slots=True)
class Event:
    """One transition. What does not apply is empty, or None.

    `was` and `now` are in a word or two, such as `up` and `down`; `check` is what was asked (a check, a notification),
    `output` the first characters of what it answered, `errno` a name such as ECONNREFUSED.
    """

    at: float
    kind: EventKind
    virtual_server: str = ""
    real_server: str = ""
    was: str = ""
    now: str = ""
    reason: str = ""
    weight_before: int | None = None
    weight_after: int | None = None
    check: str = ""
    output: str = ""
    errno: str = ""
    duration_ms: float | None = None

    def __post_init__(self) -> None:
        for name in _TEXTS:
            text = getattr(self, name)
            bounded = printable(text, MOST_OUTPUT if name == "output" else MOST_TEXT)
            if bounded is not text:
                object.__setattr__(self, name, bounded)

    @property
    def place(self) -> str:
        """Whom it is about: `web/a`, `web` or `director`."""
        if not self.virtual_server:
            return "director"
        return f"{self.virtual_server}/{self.real_server}" if self.real_server else self.virtual_server

    def plain(self) -> EventAnswer:
        """As JSON has it."""
        at = round(self.at, 3)
        return {
            "at": at,
            "time": datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
            "kind": self.kind.value,
            "virtual_server": self.virtual_server,
            "real_server": self.real_server,
            "was": self.was,
            "now": self.now,
            "reason": self.reason,
            "weight_before": self.weight_before,
            "weight_after": self.weight_after,
            "check": self.check,
            "output": self.output,
            "errno": self.errno,
            "duration_ms": None if self.duration_ms is None else round(self.duration_ms, 3),
        }


_TEXTS = ("virtual_server", "real_server", "was", "now", "reason", "check", "output", "errno")


def sentence(event: Event) -> str:
    """The event in one line, without its time.

    >>> print(sentence(Event(0.0, EventKind.HEALTH, "web", "a", "up", "down", "connection refused",
    ...     check="tcp 10.0.0.1:80", errno="ECONNREFUSED", duration_ms=0.4, weight_before=100, weight_after=0)))
    web/a: health up -> down: connection refused (tcp 10.0.0.1:80, ECONNREFUSED, 0.4 ms); weight 100 -> 0
    """
    change = " -> ".join(each for each in (event.was, event.now) if each)
    told = f"{event.place}: {event.kind.value} {change}".rstrip()
    if event.reason:
        told += f": {event.reason}"
    duration = "" if event.duration_ms is None else _milliseconds(event.duration_ms)
    seen = ", ".join(each for each in (event.check, event.errno, duration) if each)
    if seen:
        told += f" ({seen})"
    if event.weight_after is not None:
        before = "" if event.weight_before is None else f"{event.weight_before} -> "
        told += f"; weight {before}{event.weight_after}"
    if event.output:
        told += f'; it said "{event.output}"'
    return told


def _milliseconds(duration_ms: float) -> str:
    """Three digits, and never a power of ten."""
    return f"{duration_ms:.0f} ms" if duration_ms >= 100 else f"{duration_ms:.3g} ms"


def event_from_plain(plain: Mapping[str, object]) -> Event:
    """The event that `plain` is the JSON of; keys that are not known are left out, as a newer director's are.

    Raises: ValueError when it is none.

    >>> event_from_plain({"at": 1.5, "kind": "daemon", "now": "started", "new": 1}).now
    'started'
    """
    at = _number(plain, "at")
    if at is None or not EARLIEST <= at <= LATEST:
        raise ValueError(f"no event: its time is {at}")
    return Event(
        at,
        EventKind(plain.get("kind")),
        virtual_server=_text(plain, "virtual_server"),
        real_server=_text(plain, "real_server"),
        was=_text(plain, "was"),
        now=_text(plain, "now"),
        reason=_text(plain, "reason"),
        weight_before=_whole(plain, "weight_before"),
        weight_after=_whole(plain, "weight_after"),
        check=_text(plain, "check"),
        output=_text(plain, "output"),
        errno=_text(plain, "errno"),
        duration_ms=_number(plain, "duration_ms"),
    )


def printable(seen: str | bytes, most: int = MOST_OUTPUT) -> str:
    r"""`seen` as one line of at most `most` characters, which cannot steer a terminal.

    >>> printable(b"220 \x1b[31mhi\r\n")
    '220 \\x1b[31mhi\\r\\n'
    """
    text = seen[: 4 * most].decode(errors="replace") if isinstance(seen, bytes) else seen
    if len(text) <= most and text.isprintable():
        return text
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: most + 1])
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def _text(plain: Mapping[str, object], key: str) -> str:
    value = plain.get(key, "")
    if not isinstance(value, str):
        raise ValueError(f"no event: its {key} is no text")
    return value


def _number(plain: Mapping[str, object], key: str) -> float | None:
    match plain.get(key):
        case None:
            return None
        case int() | float() as value if not isinstance(value, bool) and abs(value) < 1e300:
            return float(value)
    raise ValueError(f"no event: its {key} is no number")


def _whole(plain: Mapping[str, object], key: str) -> int | None:
    match plain.get(key):
        case None:
            return None
        case int() as value if not isinstance(value, bool):
            return value
    raise ValueError(f"no event: its {key} is no whole number")
