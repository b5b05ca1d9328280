"""Keeps the director's settings as its configuration needs them, and puts back what they were.

One rule: what a setting was is on disk before it is changed, and is put back when nothing needs it any more, in the
same boot and network namespace only, and only while the setting still is what we made it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from director.host import sysctl
from director.host.change import Attempt, Change
from director.host.settings import Requirement, SettingChange, pending
from director.host.sysctl import Epoch, Key, Remembered
from director.kit import statefile
from director.kit.errors import HostError

VERSION = 1


@dataclass(frozen=True, slots=True)
class State:
    """The settings that we changed and have not put back, in the order in which they were changed."""

    epoch: Epoch
    sysctls: tuple[Remembered, ...] = ()


class KeptSettings:
    """The settings of this network namespace, remembered in `directory`/settings.json.

    One process at a time: its caller holds the locks of `lockfile.py`.
    """

    def __init__(self, directory: Path, now: Callable[[], Epoch] = sysctl.epoch) -> None:
        self._path = directory / "settings.json"
        self._now = now
        self._state: State | None = None

    def plan(self, requirements: Iterable[Requirement], *, release: bool = True) -> tuple[SettingChange, ...]:
        """What `enforce` would change. Raises: HostError when the state file or a setting cannot be read."""
        requirements = tuple(requirements) if release else self._without_way_back(requirements)
        unneeded = sysctl.still_ours(_unneeded(self._load().sysctls, requirements)) if release else ()
        back = (
            SettingChange(entry.key, entry.ours, entry.before, "nothing needs it any more, and this it was before")
            for entry in unneeded
            if entry.before != entry.ours
        )
        return (*back, *pending(requirements))

    def remembered(self) -> tuple[Remembered, ...]:
        """What is ours now. Raises: HostError when the state file cannot be read."""
        return self._load().sysctls

    def forget(self) -> int:
        """Leave the settings as they are, to whoever wants them; how many. Raises: HostError."""
        known = len(self._load().sysctls)
        statefile.remove(self._path)
        self._state = None
        return known

    def put_back(self, entries: tuple[Remembered, ...]) -> Attempt:
        """Make `entries` ours again, and nothing else. Raises: as `enforce`."""
        keys = {entry.key for entry in entries}
        made = {entry.key: entry.ours for entry in self._load().sysctls}
        done = self._put_back(tuple(entry for entry in self._load().sysctls if entry.key not in keys))
        rest = tuple(entry for entry in self._load().sysctls if entry.key not in keys)
        try:
            self._save(replace(self._load(), sysctls=(*entries, *rest)))
        except HostError as error:
            return done + Attempt(failures=(str(error),))
        # What is neither what it was nor what we made it is somebody else's.
        ours = [entry for entry in entries if sysctl.read(entry.key) in {entry.before, made.get(entry.key)}]
        return done + _write((entry.key, entry.ours) for entry in ours)

    def enforce(self, requirements: Iterable[Requirement], *, release: bool = True) -> Attempt:
        """Put back what `requirements` no longer need (where `release` is set), and make the rest as they say.

        A setting that does not exist (an interface that went, ip_vs not loaded) is passed over.
        Raises: HostError when the state file or a setting cannot be read.
        """
        requirements = tuple(requirements) if release else self._without_way_back(requirements)
        done = self._put_back(_unneeded(self._load().sysctls, requirements) if release else ())
        wanted = {change.key: change.after for change in pending(requirements)}
        known = self._load()
        try:
            self._save(replace(known, sysctls=sysctl.remember(wanted, known.sysctls)))
        except HostError as error:  # what cannot be remembered is not changed
            return done + Attempt(failures=(str(error),))
        return done + _write(wanted.items())

    def undo(self) -> Attempt:
        """Put all back; nothing when there is nothing of ours.

        After a reboot the file is only deleted: nothing of what it says holds any more.
        Raises: HostError when the state file or a setting cannot be read, or the file not be deleted.
        """
        done = self._put_back(self._load().sysctls)
        if not self._load().sysctls:
            statefile.remove(self._path)
        return done

    def _without_way_back(self, requirements: Iterable[Requirement]) -> tuple[Requirement, ...]:
        """`requirements` but for those that would only take back what we made for something that is still there."""
        before = {entry.key: entry.before for entry in sysctl.still_ours(self._load().sysctls)}
        return tuple(each for each in requirements if before.get(each.key) != each.advised)

    def _put_back(self, entries: tuple[Remembered, ...]) -> Attempt:
        ours = sysctl.still_ours(entries)
        done = _write((entry.key, entry.before) for entry in ours)
        # One that the kernel refused stays remembered, for the next time.
        kept = {entry.key for entry in ours if sysctl.read(entry.key) not in (entry.before, None)}
        gone = {entry.key for entry in entries} - kept
        known = self._load()
        try:
            self._save(replace(known, sysctls=tuple(entry for entry in known.sysctls if entry.key not in gone)))
        except HostError as error:
            return done + Attempt(failures=(str(error),))
        return done

    def _load(self) -> State:
        if self._state is None:
            now = self._now()
            content = statefile.load(self._path, VERSION)
            state = State(now) if content is None else decode(content, self._path)
            self._state = state if state.epoch == now else State(now)
        return self._state

    def _save(self, state: State) -> None:
        if state != self._load():
            if state.sysctls:
                statefile.save(self._path, VERSION, encode(state))
            else:
                statefile.remove(self._path)
            self._state = state


def encode(state: State) -> dict[str, statefile.Json]:
    """The state as JSON; `decode` is its inverse."""
    return {
        "boot_id": state.epoch.boot_id,
        "namespace": state.epoch.namespace,
        "sysctls": sysctl.to_json(state.sysctls),
    }


def decode(content: dict[str, statefile.Json], path: Path) -> State:
    """The state in a file's content.

    Raises: HostError naming `path` when the content is not what `encode` writes.
    """
    match content:
        case {"boot_id": str(boot_id), "namespace": int(namespace), "sysctls": list(entries)}:
            try:
                return State(Epoch(boot_id, namespace), sysctl.from_json(entries))
            except ValueError as error:
                raise statefile.damaged(path, str(error)) from error
    raise statefile.damaged(path, "it lacks boot_id, namespace or sysctls")


def _unneeded(entries: Iterable[Remembered], requirements: Iterable[Requirement]) -> tuple[Remembered, ...]:
    needed = {requirement.key for requirement in requirements}
    return tuple(entry for entry in entries if entry.key not in needed and sysctl.swept_by(entry.key) not in needed)


def _write(values: Iterable[tuple[Key, str]]) -> Attempt:
    changes: list[Change] = []
    failures: list[str] = []
    for key, value in values:
        try:
            change = sysctl.write(key, value)
        except HostError as error:
            failures.append(str(error))
        else:
            changes += [] if change is None else [change]
    return Attempt(tuple(changes), tuple(failures))
