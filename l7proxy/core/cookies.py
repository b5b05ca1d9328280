"""Where one cookie stands in a head, found without reading all others; `_cookies.pyx` is the same for a C compiler.

One rule: the compiled ones do the same.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

_LINE = b"cookie:"
_SET_LINE = b"set-cookie:"


def _line_at(fields: bytes, at: int) -> int:
    """Where the line begins that `at` is in."""
    before = fields.rfind(b"\r\n", 0, at)
    return before + 2 if before >= 0 else 0


def plain_find_cookie(fields: bytes, key: bytes, start: int = 0) -> int:
    r"""Where `key` (name and `=`) begins in a Cookie line, at or behind `start`; -1 where it does not.

    >>> plain_find_cookie(b"Cookie: XSRV=1; SRV=2\r\n", b"SRV="), plain_find_cookie(b"X-A: SRV=2\r\n", b"SRV=")
    (16, -1)
    """
    at = fields.find(key, start)
    while at >= 0:
        line = _line_at(fields, at)
        if fields[line : line + 7].lower() == _LINE:
            before = fields[line + 7 : at].rstrip(b" \t")
            if not before or before.endswith(b";"):
                return at
        at = fields.find(key, at + 1)
    return -1


def plain_cookie_value(fields: bytes, key: bytes, at: int) -> bytes:
    """The value of the cookie that `find_cookie` has found at `at`."""
    start = at + len(key)
    end = fields.index(b"\r\n", start)
    stop = fields.find(b";", start, end)
    return (fields[start:stop] if stop >= 0 else fields[start:end]).rstrip(b" \t")


def plain_without_cookie(fields: bytes, key: bytes, start: int = 0) -> bytes:
    r"""A request's header lines without any cookie of that name; there is none before `start`.

    >>> plain_without_cookie(b"Cookie: a=1; SRV=2; b=3\r\n", b"SRV=")
    b'Cookie: a=1; b=3\r\n'
    """
    at = plain_find_cookie(fields, key, start)
    while at >= 0:
        end = fields.index(b"\r\n", at)
        stop = fields.find(b";", at, end)
        rest = fields[stop + 1 : end].lstrip(b" \t") if stop >= 0 else b""
        if rest:
            fields = fields[:at] + fields[end - len(rest) :]
        else:
            line = _line_at(fields, at)
            before = fields[line:at].rstrip(b" \t;")
            if len(before) <= len(_LINE):
                fields = fields[:line] + fields[end + 2 :]
            else:
                fields = fields[:line] + before + fields[end:]
            at = line
        at = plain_find_cookie(fields, key, at)
    return fields


def plain_find_set_cookie(fields: bytes, key: bytes, start: int = 0) -> int:
    """Where the value begins in the next Set-Cookie line of that name; -1 where there is none."""
    at = fields.find(key, start)
    while at >= 0:
        line = _line_at(fields, at)
        if fields[line : line + 11].lower() == _SET_LINE and not fields[line + 11 : at].strip(b" \t"):
            return at + len(key)
        at = fields.find(key, at + 1)
    return -1


find_cookie = plain_find_cookie
cookie_value = plain_cookie_value
without_cookie = plain_without_cookie
find_set_cookie = plain_find_set_cookie
if not TYPE_CHECKING:
    with suppress(ImportError):
        from l7proxy.core._cookies import (  # noqa: F401 -- for who imports them
            cookie_value,
            find_cookie,
            find_set_cookie,
            without_cookie,
        )
