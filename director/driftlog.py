"""Tells in the log what somebody else changed, and counts what was put right.

One rule: each change is told once, and that it is gone, too.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable

from director.core.drift import Drift
from director.core.driftlines import DriftLine, drift_lines
from director.core.event import Event, EventKind
from director.core.model import Config

log = logging.getLogger(__name__)


class DriftLog:
    """What was told already, in the log and to `tell`.

    `repaired` counts by virtual server ("" for the network namespace).
    """

    def __init__(self, tell: Callable[[Event], None] = lambda event: None) -> None:
        self._tell = tell
        self._kept: dict[Drift, DriftLine] = {}
        self.repaired: Counter[str] = Counter()

    def tell(self, drifts: Iterable[Drift], config: Config) -> None:
        """`drifts` are those of one look, all of them."""
        drifts = tuple(drifts)
        kept: dict[Drift, DriftLine] = {}
        for drift, line in zip(drifts, drift_lines(drifts, config), strict=True):
            if not drift.kept:
                self.repaired[line["virtual_server"]] += 1
                log.warning("drift, put right", extra=_fields(line))
                self._tell(_event(line, "put right"))
                continue
            kept[drift] = line
            if drift not in self._kept:
                log.warning("drift, left as it is", extra=_fields(line))
                self._tell(_event(line, "left as it is"))
        for drift, line in self._kept.items():
            if drift not in kept:
                log.info("drift is gone", extra=_fields(line))
                self._tell(_event(line, "gone"))
        self._kept = kept


def _event(line: DriftLine, what: str) -> Event:
    place = line["virtual_server"], line["real_server"]
    return Event(time.time(), EventKind.DRIFT, *place, line["was"], line["now"], f"{line['subject']}: {what}")


def _fields(line: DriftLine) -> dict[str, str]:
    place = {"vs": line["virtual_server"], "rs": line["real_server"]}
    what = {} if line["virtual_server"] else {"what": line["subject"]}
    return {**{name: value for name, value in place.items() if value}, **what, "was": line["was"], "is": line["now"]}
