"""What the operator wants of real servers, apart from the file: drain, weight, maintenance.

One rule: a wish is on disk before it is acted on, so that neither a restart nor a crash forgets a drain.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from director.core.model import ServerRef
from director.core.weight import NO_WISH, Maintenance, Wish
from director.kit import statefile

VERSION = 1


class Overrides:
    """Wishes by real server, kept in `directory`/overrides.json. `clock` gives seconds since the epoch.

    One thread may look while another waits for the disk.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = directory / "overrides.json"
        self._clock = clock
        self._lock = threading.Lock()  # held for no disk
        self._wishes: dict[ServerRef, Wish] = self._read()

    @property
    def wishes(self) -> Mapping[ServerRef, Wish]:
        """Those that hold now: a maintenance whose time is over is none."""
        now = self._clock()
        with self._lock:
            over = [ref for ref, wish in self._wishes.items() if (until := _until(wish)) is not None and until <= now]
            if over:
                # What is on disk says when it ends, and need not be written again for that.
                wishes = {ref: replace(w, maintenance=None) if ref in over else w for ref, w in self._wishes.items()}
                self._wishes = {ref: wish for ref, wish in wishes.items() if wish != NO_WISH}
            seen = self._wishes
        return MappingProxyType(seen)

    def next_expiry_s(self, now: float) -> float | None:
        """Time until a maintenance is over, 0 until `wishes` was looked at then; `now` is seconds since the epoch.

        None when none ends.
        """
        ends = [until for wish in self._wishes.values() if (until := _until(wish)) is not None]
        return max(0.0, min(ends) - now) if ends else None

    def drain(self, ref: ServerRef) -> None:
        """No new connections for `ref`. Raises: HostError when it cannot be saved, and then nothing changes."""
        self._set(ref, replace(self.wishes.get(ref, NO_WISH), drain=True))

    def enable(self, ref: ServerRef) -> None:
        """Undo all of it: back to what the file says. Raises: HostError."""
        self._set(ref, NO_WISH)

    def weight(self, ref: ServerRef, weight: int) -> None:
        """Use `weight` (0 to 65535) instead of the file's. Raises: HostError."""
        self._set(ref, replace(self.wishes.get(ref, NO_WISH), weight=weight))

    def maintenance(self, ref: ServerRef, reason: str, for_s: float | None) -> Maintenance:
        """Take `ref` out, for `for_s` or until it is enabled. Raises: HostError."""
        wish = Maintenance(reason, None if for_s is None else self._clock() + for_s)
        self._set(ref, replace(self.wishes.get(ref, NO_WISH), maintenance=wish))
        return wish

    def _set(self, ref: ServerRef, wish: Wish) -> None:
        wishes = {**self._wishes, ref: wish}
        if wish == NO_WISH:
            del wishes[ref]
        if wishes != self._wishes:
            entries: list[statefile.Json] = [_to_json(ref, wish) for ref, wish in sorted(wishes.items())]
            statefile.save(self._path, VERSION, {"real_servers": entries})
            with self._lock:
                self._wishes = wishes

    def _read(self) -> dict[ServerRef, Wish]:
        content = statefile.load(self._path, VERSION)
        if content is None:
            return {}
        entries = content.get("real_servers")
        wishes: dict[ServerRef, Wish] = {}
        for entry in entries if isinstance(entries, list) else [None]:
            match entry:
                case {
                    "virtual_server": str(virtual),
                    "real_server": str(real),
                    "drain": bool(drain),
                    "weight": None | int() as weight,
                    **more,
                } if weight is None or 0 <= weight <= 65535:
                    maintenance = self._maintenance(more.get("maintenance"))  # absent in files of before
                    wishes[ServerRef(virtual, real)] = Wish(drain, weight, maintenance)
                case _:
                    raise statefile.damaged(self._path, "its content is not what was saved")
        return wishes

    def _maintenance(self, entry: object) -> Maintenance | None:
        match entry:
            case None:
                return None
            case {"reason": str(reason), "until": None | int() | float() as until}:
                return Maintenance(reason, None if until is None else float(until))
        raise statefile.damaged(self._path, "its content is not what was saved")


def _to_json(ref: ServerRef, wish: Wish) -> statefile.Json:
    out = wish.maintenance
    return {
        "virtual_server": ref.virtual_server,
        "real_server": ref.real_server,
        "drain": wish.drain,
        "weight": wish.weight,
        **({"maintenance": {"reason": out.reason, "until": out.until}} if out is not None else {}),
    }


def _until(wish: Wish) -> float | None:
    return wish.maintenance.until if wish.maintenance is not None else None
