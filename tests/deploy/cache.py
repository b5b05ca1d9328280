"""What takes long to make and is made once: folders outside the checkout, named by what they were made from.

One rule: a folder that is there is whole. It is made beside its place, under a lock, and renamed; what fails leaves
nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

UNUSED_S = 7 * 24 * 3600
"""After so long without use, what was made from another recipe is removed."""
_USED = ".used"


def root() -> Path:
    """Where it all stands."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "/var/cache") / "lvs-director"


def key_of(*parts: str | bytes) -> str:
    """A name for what is made from `parts`: 16 digits."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(b"%d:" % len(data) + data)
    return digest.hexdigest()[:16]


def cached(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """The folder `KIND-KEY`; if it is missing, `make` fills a new one."""
    home = root()
    home.mkdir(parents=True, exist_ok=True)
    place = home / f"{kind}-{key}"
    with _locked(home / f"{kind}.lock"):
        for broken in home.glob(f"{kind}-*.partial"):
            shutil.rmtree(broken)
        if not place.is_dir():
            partial = place.with_suffix(".partial")
            partial.mkdir()
            try:
                make(partial)
                partial.rename(place)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        (home / f"{place.name}{_USED}").touch()
        _remove_unused(home, kind, place)
    return place


def _remove_unused(home: Path, kind: str, current: Path) -> None:
    for other in home.glob(f"{kind}-*"):
        if other.is_dir() and other != current:
            used = home / f"{other.name}{_USED}"
            with contextlib.suppress(FileNotFoundError):
                if time.time() - used.stat().st_mtime < UNUSED_S:
                    continue
            shutil.rmtree(other)
            used.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
