"""The file probe: what the first line of a file says.

One rule: neither the loop nor a pool of threads waits for a file system: each file is read in a thread of its own, and
one whose last read has not ended (a network file system that is gone) is not read again until it has.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from director.kit.checks.check import Check
from director.kit.checks.file import FileProbe
from director.kit.checks.placeholders import filled_in
from director.kit.duration import format_duration
from director.kit.errors import ProbeError
from director.kit.health import ProbeResult
from director.kit.probes.failures import describe_os_error
from director.kit.probes.verdict import parse_verdict

MOST_BYTES = 4096
AGAIN_S = 0.05
"""A file without a word is read again after this time: whoever rewrites it in place makes it empty first."""

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
Settle = Callable[[bytes, Exception | None], None]
_readers: dict[str, list[Settle]] = {}
"""Who waits for the paths that threads read at present: at most one thread for each."""
_lock = threading.Lock()


def path_of(check: Check) -> str | None:
    """The file that decides `check`; None for other checks. A `FileWatch` can tell when it changes."""
    return filled_in(check.probe.path, check.target) if isinstance(check.probe, FileProbe) else None


async def probe_file(check: Check, probe: FileProbe) -> ProbeResult:
    """Read the file and take it at its word.

    Raises: ProbeError when there is no verdict in it, and `missing: keep`.
    """
    path = filled_in(probe.path, check.target)
    try:
        async with asyncio.timeout(check.timing.timeout_s):
            data = await _read(path)
            if not data.strip():
                await asyncio.sleep(AGAIN_S)
                data = await _read(path)
    except TimeoutError:
        within = format_duration(check.timing.timeout_s)
        return _no_verdict(probe, f"{path} cannot be read within {within}: see to its file system", errno.ETIMEDOUT)
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENOTDIR}:
            return _no_verdict(probe, f"{path} cannot be read: {describe_os_error(error)}", error.errno or 0)
        if probe.missing == "up":
            return ProbeResult(True, f"there is no {path}, which is good (missing: up)")
        return _no_verdict(probe, f"there is no {path}", errno.ENOENT)
    except _NoFileError as error:
        return _no_verdict(probe, f"{path} {error}")
    verdict = parse_verdict(data, path)
    return verdict if isinstance(verdict, ProbeResult) else _no_verdict(probe, verdict)


def _no_verdict(probe: FileProbe, reason: str, number: int = 0) -> ProbeResult:
    if probe.missing == "keep":
        raise ProbeError(f"{reason}; what was last known holds (missing: keep)")
    return ProbeResult(False, reason, errno=number)


class _NoFileError(Exception):
    """What is at the path cannot be read as a file."""


async def _read(path: str) -> bytes:
    """The file's content; of a file that is being read, what that reading gives. Raises: OSError, _NoFileError."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[bytes] = loop.create_future()

    def settle(data: bytes, error: Exception | None) -> None:
        if ended.done():
            return
        if error is None:
            ended.set_result(data)
        else:
            ended.set_exception(error)

    def settle_soon(data: bytes, error: Exception | None) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, data, error)

    with _lock:
        waiting = _readers.get(path)
        if waiting is None:
            _readers[path] = [settle_soon]
        else:
            waiting.append(settle_soon)
    if waiting is None:
        threading.Thread(target=_work, args=(path,), name=f"read {path}", daemon=True).start()
    try:
        return await ended
    finally:
        with _lock, suppress(ValueError):
            _readers.get(path, []).remove(settle_soon)


def _work(path: str) -> None:
    data, met = b"", None
    try:
        data = read_regular(path)
    except (OSError, _NoFileError) as error:
        met = error
    finally:
        with _lock:
            waiting = _readers.pop(path)
    for settle_soon in waiting:
        settle_soon(data, met)


def read_regular(path: str) -> bytes:
    """What a regular file of at most `MOST_BYTES` has. Blocks as its file system does; opens nothing else."""
    _refuse(Path(path).stat())
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _refuse(os.fstat(number))
        data = os.read(number, MOST_BYTES + 1)
    finally:
        os.close(number)
    if len(data) > MOST_BYTES:
        raise _NoFileError(f"has more than {MOST_BYTES} bytes: only its first line counts, keep it short")
    return data


def _refuse(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "no file")
        raise _NoFileError(f"is {kind}: write a regular file")
