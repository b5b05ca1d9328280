"""Drift as lines for people and for the API: what it was, what it is, and who puts it right when.

One rule: the keys here are the API's; they are added to, and never change their meaning.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict, assert_never

from director.core.describe import describe_real, describe_sync, describe_timeouts, describe_virtual
from director.core.drift import Drift, Element
from director.core.model import Config
from director.core.steps import Names
from director.core.table import RealRow, Timeouts, VirtualRow
from director.kit.duration import format_duration

ABSENT = "absent"


class DriftLine(TypedDict):
    """One thing that somebody else changed. `sign` is `+` came, `~` changed, `-` went.

    `virtual_server` is empty for what belongs to the whole network namespace or to probes alone, `real_server` where it
    is no real server. `was` and `now` are in a few words. `kept`: it stays; `then` says how, or when it is put right.
    """

    sign: str
    virtual_server: str
    real_server: str
    key: str
    subject: str
    was: str
    now: str
    kept: bool
    then: str


def drift_lines(drifts: Iterable[Drift], config: Config, *, runs: bool = True) -> list[DriftLine]:
    """A line for each of `drifts`, in order; `runs`: a director does."""
    names = Names.of(config)
    return [_line(drift, names, _then(drift, config) if runs else _BY_APPLY) for drift in drifts]


def sentence(line: DriftLine) -> str:
    """The line in one sentence, without its sign.

    >>> from director.core.table import Forward
    >>> drift = Drift(None, None, Timeouts(900, 120, 300), Timeouts(60, 120, 300))
    >>> print(sentence(drift_lines([drift], Config())[0]))
    timeouts: was tcp 15m tcpfin 2m udp 5m, is tcp 1m tcpfin 2m udp 5m; put right within 10s
    """
    return f"{line['subject']}: was {line['was']}, is {line['now']}; {line['then']}"


_BY_APPLY = "`director apply` puts it right"


def _then(drift: Drift, config: Config) -> str:
    if drift.kept:
        return f"left as it is (on_drift: report), {_BY_APPLY}"
    return f"put right within {format_duration(config.drift_interval_s)}"


def _line(drift: Drift, names: Names, then: str) -> DriftLine:
    key, real = drift.key, drift.real
    path = names.path(key) if key else ""
    virtual = names.virtuals.get(key, str(key)) if key and not path else ""
    server = names.reals.get((key, real)) if key and real else None
    if path:
        subject = f"{path} ({key})"
    elif key is None:
        subject = "timeouts" if isinstance(drift.was or drift.found, Timeouts) else "sync daemons"
    elif real is None:
        subject = f"virtual server {virtual} ({key})"
    else:
        subject = names.subject(key, real)
    return {
        "sign": "+" if drift.was is None else "-" if drift.found is None else "~",
        "virtual_server": virtual,
        "real_server": server.real_server if server else str(real or ""),
        "key": str(key or ""),
        "subject": subject,
        "was": _words(drift.was),
        "now": _words(drift.found),
        "kept": drift.kept,
        "then": then,
    }


def _words(element: Element | None) -> str:
    match element:
        case None:
            return ABSENT
        case VirtualRow():
            return describe_virtual(element)
        case RealRow():
            return describe_real(element)
        case Timeouts():
            return describe_timeouts(element)
        case frozenset():
            daemons = sorted(element, key=lambda daemon: daemon.role.value)
            return " and ".join(f"{each.role.value} {describe_sync(each)}" for each in daemons) or ABSENT
        case _:
            assert_never(element)
