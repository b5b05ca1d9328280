"""What the operator wants of real servers, apart from the file: drain, weight.

One rule: a wish is on disk before it is acted on, so that neither a restart nor a crash forgets a drain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from director.core.model import ServerRef
from director.core.weight import NO_WISH, Wish
from director.kit import statefile

VERSION = 1


class Overrides:
    """Wishes by real server, kept in `directory`/overrides.json."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "overrides.json"
        self._wishes: dict[ServerRef, Wish] = self._read()

    @property
    def wishes(self) -> Mapping[ServerRef, Wish]:
        return MappingProxyType(self._wishes)

    def drain(self, ref: ServerRef) -> None:
        """No new connections for `ref`. Raises: HostError when it cannot be saved, and then nothing changes."""
        self._set(ref, replace(self._wishes.get(ref, NO_WISH), drain=True))

    def enable(self, ref: ServerRef) -> None:
        """Undo `drain` and `weight`: back to what the file says. Raises: HostError."""
        self._set(ref, NO_WISH)

    def weight(self, ref: ServerRef, weight: int) -> None:
        """Use `weight` (0 to 65535) instead of the file's. Raises: HostError."""
        self._set(ref, replace(self._wishes.get(ref, NO_WISH), weight=weight))

    def _set(self, ref: ServerRef, wish: Wish) -> None:
        wishes = {**self._wishes, ref: wish}
        if wish == NO_WISH:
            del wishes[ref]
        if wishes != self._wishes:
            entries: list[statefile.Json] = [
                {"virtual_server": r.virtual_server, "real_server": r.real_server, "drain": w.drain, "weight": w.weight}
                for r, w in sorted(wishes.items())
            ]
            statefile.save(self._path, VERSION, {"real_servers": entries})
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
                } if weight is None or 0 <= weight <= 65535:
                    wishes[ServerRef(virtual, real)] = Wish(drain, weight)
                case _:
                    raise statefile.damaged(self._path, "its content is not what was saved")
        return wishes
