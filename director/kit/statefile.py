"""What a program must remember across its own restarts: one JSON object a file, replaced whole.

One rule: a reader sees the old content or the new, never half of one, whenever the power goes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from director.kit.errors import HostError
from director.kit.rights import give_to_owner

DIRECTORY = Path("/var/lib/director")

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def save(path: Path, version: int, data: Mapping[str, Json]) -> None:
    """Replace `path` by `data` and its `version`: mode 0600, on disk when this returns.

    The directory is made (0700) when missing. Blocks for the disk's fsync.
    Raises: HostError when the file cannot be written.
    """
    text = json.dumps({**data, "version": version}, indent=1, sort_keys=True) + "\n"
    # One fixed name: a crash leaves at most one such file, and the next save reuses it.
    draft = path.with_name(f".{path.name}.new")
    try:
        _make_directory(path.parent, 0o700)
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            give_to_owner(file.fileno(), path.parent)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise HostError(f"could not save {path}: {error.strerror}: run as root, with room on that disk") from error


def load(path: Path, version: int, *, older: Collection[int] = ()) -> dict[str, Json] | None:
    """What `save` wrote, without its version; None when there is no file.

    Versions in `older` are read as well: the caller knows them by what their content lacks.
    Raises: HostError when the file is unreadable, damaged, or of another version.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        advice = "name a file" if isinstance(error, IsADirectoryError | NotADirectoryError) else "run as root"
        raise HostError(f"could not read {path}: {error.strerror}: {advice}") from error
    except UnicodeDecodeError as error:
        raise damaged(path, "it is not text") from error
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"it is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise damaged(path, "it is not a JSON object")
    found = content.pop("version", None)
    if found != version and found not in older:
        raise damaged(path, f"it says version {json.dumps(found)} and this program writes version {version}")
    return content


def remove(path: Path) -> bool:
    """Delete `path`; False when there was none.

    Raises: HostError when it cannot be deleted.
    """
    try:
        path.unlink()
        _sync_directory(path.parent)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise HostError(f"could not delete {path}: {error.strerror}") from error
    return True


def damaged(path: Path, found: str) -> HostError:
    """The error for a state file whose content is of no use, with the one way out."""
    return HostError(
        f"{path} cannot be used: {found}: move it away (mv {path} {path}.bad); "
        "what it remembered is then forgotten and is not undone"
    )


def _make_directory(directory: Path, mode: int) -> None:
    if not directory.is_dir():
        _make_directory(directory.parent, 0o755)
        directory.mkdir(mode=mode, exist_ok=True)
        _sync_directory(directory.parent)


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
