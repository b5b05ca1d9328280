"""Passwords are tried in threads, since a hash is made to take its time; verdicts are remembered.

One rule: what is kept in memory tells no password: verdicts are found by an HMAC under a key of this process. All is
bounded, and an unknown user takes as long as a known one.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from l7proxy.core.passwords import is_right

THREADS = 2
"""Beside the loop, whose core they share."""
MOST_WAITING = 64
"""Different logins that are tried, or wait for it."""
MOST_SHARING = 4096
"""Requests that wait for what comes of the same one; some of them may have left."""
MOST_KNOWN = 4096
RIGHT_FOR_S = 300.0
WRONG_FOR_S = 60.0

Heard = Callable[[bool | None], None]
"""Hears whether a password is right; None where that could not be found out."""
_monotonic = time.monotonic


class Logins:
    """Tries logins, and remembers what came of them."""

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._right: dict[bytes, float] = {}
        self._wrong: dict[bytes, float] = {}
        self._waiting: dict[bytes, list[Heard]] = {}
        self._threads: ThreadPoolExecutor | None = None

    def key_of(self, user: str, password: bytes, text: str | None) -> bytes:
        """What a login is remembered by. `text` is the user's hash, None for an unknown user: with another hash it is
        another login."""
        name, known = user.encode(), (text or "").encode()
        told = b"%d %d %b%b%b" % (len(name), len(known), name, known, password)
        return hmac.digest(self._key, told, "sha256")

    def verdict(self, key: bytes) -> bool | None:
        """Whether that login is right; None where it has to be tried."""
        until_at = self._right.get(key)
        if until_at is not None:
            if _monotonic() < until_at:
                return True
            del self._right[key]
        until_at = self._wrong.get(key)
        if until_at is not None:
            if _monotonic() < until_at:
                return False
            del self._wrong[key]
        return None

    def attempt(self, key: bytes, password: bytes, text: str, is_known: bool, heard: Heard) -> bool:
        """Try a login against a hash, and tell `heard`; False where too many wait already. Who is not known gets a hash
        too, which takes its time, and is never right."""
        waiting = self._waiting.get(key)
        if waiting is not None:
            if len(waiting) >= MOST_SHARING:
                return False
            waiting.append(heard)
            return True
        if len(self._waiting) >= MOST_WAITING:
            return False
        self._waiting[key] = [heard]
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="login")
        loop = asyncio.get_running_loop()
        future = self._threads.submit(is_right, password, text)
        future.add_done_callback(partial(self._tell, loop, key, is_known))
        return True

    def _tell(self, loop: asyncio.AbstractEventLoop, key: bytes, is_known: bool, future: Future[bool]) -> None:
        """In a thread: hand the verdict over."""
        if not future.cancelled() and not loop.is_closed():
            loop.call_soon_threadsafe(self._done, key, is_known, future)

    def _done(self, key: bytes, is_known: bool, future: Future[bool]) -> None:
        waiting = self._waiting.pop(key, [])
        right: bool | None = None
        if future.exception() is None:
            right = is_known and future.result()
            known, for_s = (self._right, RIGHT_FOR_S) if right else (self._wrong, WRONG_FOR_S)
            if len(known) >= MOST_KNOWN:
                del known[next(iter(known))]
            known[key] = _monotonic() + for_s
        for heard in waiting:
            heard(right)

    def close(self) -> None:
        """Try no more."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None
        self._waiting.clear()
