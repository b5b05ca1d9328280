"""Random names in hexadecimal digits: request ids, trace and parent ids.

One rule: no two are the same, whichever worker made them: what was drawn before a fork is not used after it.
"""

from __future__ import annotations

import os

_DRAWN_BYTES = 4096  # at once: the system call costs as much as ten names

_digits = b""
_used = 0


def random_hex(digits: int) -> bytes:
    """So many hexadecimal digits, not all of them 0."""
    global _digits, _used  # noqa: PLW0603 -- one stock for the process
    start = _used
    end = start + digits
    if end > len(_digits):
        _digits = os.urandom(_DRAWN_BYTES).hex().encode("ascii")
        start, end = 0, digits
    _used = end
    found = _digits[start:end]
    return found if found.strip(b"0") else random_hex(digits)


def forget() -> None:
    """Draw anew."""
    global _digits  # noqa: PLW0603 -- as above
    _digits = b""


os.register_at_fork(after_in_child=forget)
