"""Paths: their normal form, and what in one is dangerous to pass on.

One rule: an escape is decoded once. `%252e` is the three characters `%2e` to us as to every server that keeps to
RFC 3986 2.4; a server that decodes twice must be kept from it by a route of its own.
"""

from __future__ import annotations

import re
from enum import Enum
from urllib.parse import unquote_to_bytes

_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_SUSPECT = re.compile(r"%(?:00|2[EeFf]|5[Cc]|[Cc][01]|(?![0-9A-Fa-f]{2}))")
"""All escapes that decide anything here. `%3b` alone does not: it only hides behind two dots."""
_BROKEN = re.compile(r"%(?![0-9A-Fa-f]{2})")
_OVERLONG = {b"\xc0\xae": b".", b"\xc0\xaf": b"/", b"\xc1\x9c": b"\\"}
"""What lenient UTF-8 decoders make of these (RFC 3629 10)."""
_UP = re.compile(rb"(?:^|[/\\])\.\.(?:[/\\;]|$)")


class Danger(Enum):
    """Why a path is refused; the value is fit for a log line."""

    CLIMBS = "the path climbs: it has `..` as a segment"
    NUL = "the path has %00"
    OTHER_HOST = "the path begins with //, which a server may take for a host"
    """Only of a path that was rewritten: clients may ask for such paths, but no rule makes one."""
    BROKEN_ESCAPE = "the path has a % without two hexadecimal digits"


def danger_of(path: str) -> Danger | None:
    """What is dangerous in `path` (no query), as `dangerous_path: refuse` sees it; None for nearly every path.

    `//`, `.`, `;` and `%2F` alone are not. A `%` without its digits is malformed (RFC 3986 2.1) and decoded by each
    server in its own way, and so is refused.

    >>> danger_of("/a/..%2fb"), danger_of("/a%2fb//c;d=1/./%E4...")
    (<Danger.CLIMBS: 'the path climbs: it has `..` as a segment'>, None)
    """
    if "%" in path:
        if not _SUSPECT.search(path):
            return Danger.CLIMBS if ("/.." in path or "\\.." in path) and climbs(path) else None
        if "%00" in path:
            return Danger.NUL
        if _BROKEN.search(path):
            return Danger.BROKEN_ESCAPE
        return Danger.CLIMBS if climbs(path) else None
    return Danger.CLIMBS if ("/.." in path or "\\.." in path) and climbs(path) else None


def climbs(path: str) -> bool:
    r"""Whether some server could take a segment of `path` for `..`.

    Its dots may hide behind %2e or overlong UTF-8, its borders may be `/`, `\` or their escapes, and a parameter may
    follow (`/..;x/`, which servlet containers cut off). Whether it stays within the path plays no part: `/a/b/../c`
    climbs, as a route for `/a/b/` may end otherwise than one for `/a/c`.

    >>> climbs("/a/%2E./b"), climbs(r"/a\..\b"), climbs("/static/..;/admin"), climbs("/a/.../..b/c..")
    (True, True, True, False)
    """
    octets = unquote_to_bytes(path.encode("utf-8", "surrogatepass"))
    if b"\xc0" in octets or b"\xc1" in octets:
        for overlong, plain in _OVERLONG.items():
            octets = octets.replace(overlong, plain)
    return b".." in octets and _UP.search(octets) is not None


def normalised(path: str) -> str | Danger:
    r"""What `dangerous_path: normalise` passes on: the normal form, or why there is none that is safe.

    `%2f`, `\` and `;` stay as they are in a normal form, so a path that climbs by their help is refused here too.

    >>> normalised("/a/../%62"), normalised("/a/..%2fb"), normalised("/a/..;/b").name
    ('/b', <Danger.CLIMBS: 'the path climbs: it has `..` as a segment'>, 'CLIMBS')
    """
    danger = danger_of(path)
    if danger is not None and danger is not Danger.CLIMBS:
        return danger
    normal = normal_path(path)
    return danger_of(normal) or normal


def normal_path(path: str) -> str:
    """`path` (no query) with needless escapes undone and dot segments resolved.

    >>> normal_path("/a/%7Ejoe/../%2f/./b"), normal_path("/../x")
    ('/a/%2F/b', '/x')
    """
    if "%" in path:
        path = _ESCAPE.sub(_plain, path)
    if "/." not in path:
        return path
    kept: list[str] = []
    segments = path.split("/")[1:]
    for index, segment in enumerate(segments):
        last = index == len(segments) - 1
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
            continue
        if last:
            kept.append("")
    return "/" + "/".join(kept)


def _plain(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if character in _UNRESERVED else match[0].upper()
