"""Cookies that say which backend is a client's: what they hold, and what becomes of the lines they stand in.

One rule: a cookie that is not to the letter one of ours is none. It leads to nobody, and it is never an error.

A value is `ID`, or `ID:FIRST:SEEN` where sessions end by time (seconds since 1970, in hex), or `ID:FIRST:SEEN:MAC`
where they are signed. An ID comes from the names of upstream and backend, and the key: nothing is stored, so sessions
hold over restarts, and over all l7proxy that have the same file.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256

from l7proxy.core.cookies import cookie_value, find_cookie, find_set_cookie
from l7proxy.core.settings.stickiness import Attributes

MOST_KNOWN = 8192
"""Values that were found good and are remembered; then all are forgotten."""
SKEW_S = 3600.0
"""How far the clocks of several l7proxy may differ. What is from further ahead was not made by one of them."""
_ID_BYTES = 12
_MAC_BYTES = 15


class Verdict(IntEnum):
    """What became of a client's session: a place in a list of counts."""

    NEW = 0
    """The client brought no cookie."""
    KEPT = 1
    MOVED = 2
    """Its backend is down, drained for too long, or was tried in vain."""
    REFUSED = 3
    """The cookie is not ours, not to the letter, or its backend is gone."""
    EXPIRED = 4


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a cookie says: the backend, or why there is none. Times are seconds since 1970; 0 is never."""

    name: str
    first_at: float = 0.0
    seen_at: float = 0.0
    verdict: Verdict = Verdict.KEPT


NO_TICKET = Ticket("", verdict=Verdict.NEW)
REFUSED = Ticket("", verdict=Verdict.REFUSED)
EXPIRED = Ticket("", verdict=Verdict.EXPIRED)


class Tickets:
    """Makes and reads the values of one upstream's cookie."""

    def __init__(
        self,
        upstream: str,
        names: Iterable[str],
        keys: Sequence[bytes] = (),
        plain_names: bool = False,
        maxidle_s: float | None = None,
        maxlife_s: float | None = None,
    ) -> None:
        self._upstream = upstream
        self._keys = keys
        self._maxidle_s = maxidle_s
        self._maxlife_s = maxlife_s
        self.timed = maxidle_s is not None or maxlife_s is not None
        self.ids: dict[str, bytes] = {}
        """By backend, what it is called now."""
        self._names: dict[bytes, str] = {}
        for name in names:
            made = [name.encode()] if plain_names else [self._id(name, key) for key in keys or (b"",)]
            self.ids[name] = made[0]
            self._names.update(dict.fromkeys(made, name))
        self._known: dict[bytes, Ticket] = {}

    def _id(self, name: str, key: bytes) -> bytes:
        """It tells nothing of the name without the key; without any, it is only no plain text."""
        what = f"l7proxy sticky id\n{self._upstream}\n{name}".encode()
        return _short(hmac.digest(key, what, "sha256") if key else sha256(what).digest(), _ID_BYTES)

    def _mac(self, value: bytes, key: bytes) -> bytes:
        return _short(
            hmac.digest(key, b"l7proxy sticky times\n%b\n%b" % (self._upstream.encode(), value), "sha256"), 15
        )

    def value(self, name: str, now: float = 0.0, first_at: float = 0.0) -> bytes:
        """What the cookie of a client of backend `name` holds, whose session began at `first_at` (0: now).

        >>> Tickets("shop", ["a"], plain_names=True, maxidle_s=60).value("a", 1000, 900)
        b'a:384:3e8'
        """
        of = self.ids[name]
        if not self.timed:
            return of
        value = b"%b:%x:%x" % (of, int(first_at or now), int(now))
        return b"%b:%b" % (value, self._mac(value, self._keys[0])) if self._keys else value

    def read(self, value: bytes, now: float) -> Ticket:
        """What `value` says; nothing where it is not ours, or too old."""
        ticket = self._known.get(value)
        if ticket is None:
            ticket = self._parsed(value)
            if ticket is REFUSED:
                return ticket
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[value] = ticket
        return self._judged(ticket, now) if self.timed else ticket

    def _parsed(self, value: bytes) -> Ticket:
        if len(value) > 256:
            return REFUSED
        of, *times = value.split(b":")
        name = self._names.get(of)
        if name is None:
            return REFUSED
        if not self.timed:
            return Ticket(name)
        if not times:
            # From before `maxidle` was written. Who could take a signed one's times off could make it last.
            return EXPIRED if self._keys else Ticket(name)
        if len(times) != (3 if self._keys else 2) or not all(_is_time(each) for each in times[:2]):
            return REFUSED
        if self._keys:
            whole = value[: value.rindex(b":")]
            if not any(hmac.compare_digest(self._mac(whole, key), times[2]) for key in self._keys):
                return REFUSED
        return Ticket(name, int(times[0], 16), int(times[1], 16))

    def _judged(self, ticket: Ticket, now: float) -> Ticket:
        if not ticket.seen_at:
            return ticket
        if ticket.seen_at > now + SKEW_S or ticket.first_at > ticket.seen_at:
            return REFUSED
        if self._maxidle_s is not None and now - ticket.seen_at > self._maxidle_s:
            return EXPIRED
        if self._maxlife_s is not None and now - ticket.first_at > self._maxlife_s:
            return EXPIRED
        return ticket

    def is_due(self, ticket: Ticket, now: float) -> bool:
        """Whether the client should be told anew, for its session not to end: after a quarter of `maxidle`."""
        if not self.timed or not ticket.name:
            return False
        return not ticket.seen_at or (self._maxidle_s is not None and now - ticket.seen_at > self._maxidle_s / 4)


def _short(digest: bytes, size: int) -> bytes:
    return urlsafe_b64encode(digest[:size])


def _is_time(text: bytes) -> bool:
    return 0 < len(text) <= 10 and not text.strip(b"0123456789abcdef")


# heads


def without_prefix(fields: bytes, key: bytes, ids: Iterable[bytes]) -> bytes:
    r"""A request's header lines; each cookie of that name has lost what stands before `~`, if that looks like ours.

    `ids` shows what ours look like: one of the same length and alphabet may be of a backend that is gone.

    >>> without_prefix(b"Cookie: S=AAAA~xyz; S=a~b\r\n", b"S=", [b"BBBB"])
    b'Cookie: S=xyz; S=a~b\r\n'
    """
    lengths = {len(each) for each in ids}
    at = find_cookie(fields, key)
    while at >= 0:
        start = at + len(key)
        of, sign, _ = cookie_value(fields, key, at).partition(b"~")
        if sign and len(of) in lengths and not of.strip(_ALPHABET):
            fields = fields[:start] + fields[start + len(of) + 1 :]
        at = find_cookie(fields, key, start)
    return fields


_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"


def set_cookie(name: str, value: bytes, attributes: Attributes, is_https: bool) -> bytes:
    r"""The line that gives a client its cookie (RFC 6265 4.1).

    >>> set_cookie("SRV", b"x", Attributes(same_site="Lax"), True)
    b'Set-Cookie: SRV=x; Path=/; Secure; HttpOnly; SameSite=Lax\r\n'
    """
    said = [f"Set-Cookie: {name}=".encode() + value, b"Path=" + attributes.path.encode()]
    if attributes.domain:
        said.append(b"Domain=" + attributes.domain.encode())
    if is_https if attributes.secure is None else attributes.secure:
        said.append(b"Secure")
    if attributes.http_only:
        said.append(b"HttpOnly")
    if attributes.same_site:
        said.append(b"SameSite=" + attributes.same_site.encode())
    return b"; ".join(said) + b"\r\n"


def without_set_cookie(fields: bytes, key: bytes) -> bytes:
    """An answer's header lines without those that set a cookie of that name."""
    at = find_set_cookie(fields, key)
    while at >= 0:
        line = fields.rfind(b"\r\n", 0, at) + 2
        if line == 1:
            line = 0
        fields = fields[:line] + fields[fields.index(b"\r\n", at) + 2 :]
        at = find_set_cookie(fields, key, line)
    return fields


def with_value(fields: bytes, key: bytes, value: bytes, is_prefix: bool) -> bytes:
    r"""An answer's header lines, where cookies of that name have `value`, or `value~` before theirs. Empty ones, which
    end a cookie, stay.

    >>> with_value(b"Set-Cookie: S=1; Path=/\r\n", b"S=", b"x", True)
    b'Set-Cookie: S=x~1; Path=/\r\n'
    """
    at = find_set_cookie(fields, key)
    while at >= 0:
        end = fields.index(b"\r\n", at)
        stop = fields.find(b";", at, end)
        if stop < 0:
            stop = end
        if fields[at:stop].strip(b' \t"'):
            fields = fields[:at] + value + (b"~" + fields[at:] if is_prefix else fields[stop:])
        at = find_set_cookie(fields, key, at)
    return fields


def made_private(fields: bytes) -> bytes:
    r"""An answer's header lines, so that no shared cache keeps them: one client's cookie is nobody else's
    (HAProxy's `cookie ... nocache`).

    >>> made_private(b"Cache-Control: public, max-age=60\r\n"), made_private(b"Cache-Control: no-store\r\n")
    (b'Cache-Control: max-age=60, private\r\n', b'Cache-Control: no-store\r\n')
    """
    said: list[bytes] = []
    rest: list[bytes] = []
    for line in fields.split(b"\r\n")[:-1]:
        if line[:14].lower() == b"cache-control:":
            said += [part.strip(b" \t") for part in line[14:].split(b",")]
        else:
            rest.append(line)
    if {b"private", b"no-store"} & {part.lower() for part in said}:
        return fields
    kept = [part for part in said if part and part.lower() != b"public" and not part.lower().startswith(b"s-maxage")]
    return b"\r\n".join([*rest, b"Cache-Control: " + b", ".join([*kept, b"private"]), b""])
