"""What an apply found, on disk while it is on its way: whoever comes after a crash can put it back.

One rule: it is written before anything is changed, and removed when the apply has ended, one way or the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

from director.core.before import Before
from director.core.namespace import OwnedNamespace
from director.core.standing import Standing
from director.core.table import RealRow, SyncDaemon, Table, Timeouts, VirtualEntry, VirtualKey, VirtualRow
from director.core.vip import Vip
from director.host.sysctl import Epoch, epoch
from director.kit import statefile
from director.kit.net import Endpoint

if TYPE_CHECKING:
    from pydantic import TypeAdapter

VERSION = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One apply: the file's name and text, what it found, who makes it, and when (for people) it began.

    `until` says when it undoes itself, empty where it does not wait for a confirmation.
    """

    source: str
    text: str
    before: Before
    pid: int
    since: str
    until: str = ""

    def __str__(self) -> str:
        waiting = f", to be confirmed until {self.until}" if self.until else ""
        return f"the apply of {self.source} by process {self.pid} at {self.since}{waiting}"


class Journal:
    """An `Entry`, kept in `directory`/journal.json. It holds for one boot and one network namespace, as `Memory`."""

    def __init__(self, directory: Path, now: Callable[[], Epoch] = epoch) -> None:
        self.directory = directory
        self._path = directory / "journal.json"
        self._now = now

    def load(self) -> Entry | None:
        """The apply that is on its way, or was cut short. Raises: HostError for a damaged file."""
        content = statefile.load(self._path, VERSION)
        if content is None:
            return None
        try:
            made = Epoch(str(content["boot_id"]), int(str(content["namespace"])))
            return _entry(_adapter().validate_python(content["apply"])) if made == self._now() else None
        except (KeyError, ValueError) as error:
            said = " ".join(str(error).split())[:200]  # pydantic's has several lines
            raise statefile.damaged(self._path, f"its content is not what was saved ({said})") from error

    def save(self, entry: Entry) -> None:
        """Write `entry` down. Raises: HostError."""
        now = self._now()
        written = cast("statefile.Json", _adapter().dump_python(_saved(entry), mode="json"))
        statefile.save(self._path, VERSION, {"boot_id": now.boot_id, "namespace": now.namespace, "apply": written})

    def remove(self) -> None:
        """Forget it. Raises: HostError."""
        statefile.remove(self._path)


@dataclass(frozen=True, slots=True)
class _SavedVirtual:
    """A virtual server as JSON can hold it, whose keys are texts only."""

    key: VirtualKey
    row: VirtualRow
    reals: tuple[tuple[Endpoint, RealRow], ...]


@dataclass(frozen=True, slots=True)
class _Saved:
    source: str
    text: str
    pid: int
    since: str
    until: str
    keys: tuple[VirtualKey, ...]
    own_keys: tuple[VirtualKey, ...]
    places: tuple[Vip, ...]
    vips: tuple[Vip, ...]
    own_vips: tuple[Vip, ...]
    virtual_servers: tuple[_SavedVirtual, ...]
    timeouts: Timeouts | None
    sync: frozenset[SyncDaemon] | None
    around: Standing | None
    own_namespace: OwnedNamespace


@cache
def _adapter() -> TypeAdapter[_Saved]:
    from pydantic import TypeAdapter  # half a second in the lab, which whoever finds no journal need not pay

    return TypeAdapter(_Saved)


def _saved(entry: Entry) -> _Saved:
    before = entry.before
    virtuals = (_SavedVirtual(key, each.row, tuple(each.reals.items())) for key, each in before.table.entries.items())
    return _Saved(
        entry.source,
        entry.text,
        entry.pid,
        entry.since,
        entry.until,
        keys=_sorted_keys(before.keys),
        own_keys=_sorted_keys(before.own_keys),
        places=_sorted_vips(before.places),
        vips=_sorted_vips(before.vips),
        own_vips=_sorted_vips(before.own_vips),
        virtual_servers=tuple(virtuals),
        timeouts=before.table.timeouts,
        sync=before.table.sync,
        around=before.around,
        own_namespace=before.own_namespace,
    )


def _sorted_keys(keys: Iterable[VirtualKey]) -> tuple[VirtualKey, ...]:
    return tuple(sorted(keys, key=VirtualKey.sort_key))


def _sorted_vips(vips: Iterable[Vip]) -> tuple[Vip, ...]:
    return tuple(sorted(vips, key=str))


def _entry(saved: _Saved) -> Entry:
    entries = {each.key: VirtualEntry(each.row, dict(each.reals)) for each in saved.virtual_servers}
    before = Before(
        frozenset(saved.keys),
        Table(entries, saved.timeouts, saved.sync),
        frozenset(saved.places),
        frozenset(saved.vips),
        frozenset(saved.own_keys),
        frozenset(saved.own_vips),
        saved.around,
        saved.own_namespace,
    )
    return Entry(saved.source, saved.text, before, saved.pid, saved.since, saved.until)
