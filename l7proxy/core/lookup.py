"""What a request says, looked up by name: headers, cookies, parts of the query.

One rule: names of headers are compared without case, everything else as it came; what is malformed is not there.
"""

from __future__ import annotations

from urllib.parse import unquote_to_bytes


class Fields:
    """Header lines, each with its line end, ready to be asked. They never change: made before a rule changes a head,
    they show what came."""

    __slots__ = ("_cookies", "_lowered", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self._lowered = b"\r\n" + raw.lower()
        self._cookies: list[tuple[bytes, bytes]] | None = None

    def first(self, name: bytes) -> bytes | None:
        """The value of the first header `name` (lower-case); None where there is none.

        >>> Fields(b"Host: a\\r\\nX-Tier:  l7 \\r\\n").first(b"x-tier")
        b'l7'
        """
        at = self._lowered.find(b"\r\n" + name + b":")
        if at < 0:
            return None
        start = at + len(name) + 1  # the two bytes before all of it are not in `raw`
        return self.raw[start : self.raw.index(b"\r\n", start)].strip(b" \t")

    def all(self, name: bytes) -> list[bytes]:
        """The values of all headers `name` (lower-case), in their order."""
        found = []
        key = b"\r\n" + name + b":"
        at = self._lowered.find(key)
        while at >= 0:
            start = at + len(name) + 1
            found.append(self.raw[start : self.raw.index(b"\r\n", start)].strip(b" \t"))
            at = self._lowered.find(key, at + 2)
        return found

    @property
    def lowered(self) -> bytes:
        """All lines in lower case, each after a line end: `b"\\r\\nhost:" in lowered` is whether there is a Host."""
        return self._lowered

    @property
    def cookies(self) -> list[tuple[bytes, bytes]]:
        """All cookies that the request brings, in their order (RFC 6265 5.4): names and values as they came."""
        if self._cookies is None:
            self._cookies = [
                (name.strip(b" \t"), value.strip(b" \t"))
                for line in self.all(b"cookie")
                for part in line.split(b";")
                for name, sign, value in [part.partition(b"=")]
                if sign
            ]
        return self._cookies

    def cookie(self, name: bytes) -> bytes | None:
        """The value of the first cookie `name`; case counts.

        >>> Fields(b"Cookie: a=1; SRV=web-1\\r\\n").cookie(b"SRV")
        b'web-1'
        """
        for each, value in self.cookies:
            if each == name:
                return value
        return None


def query_of(target: bytes) -> bytes:
    """What stands behind the first `?` of a request's target.

    >>> query_of(b"/a?x=1&y"), query_of(b"/a")
    (b'x=1&y', b'')
    """
    return target.partition(b"?")[2]


def query_value(query: bytes, name: bytes) -> bytes | None:
    """The first value of `name` in a query, decoded (`+` is a blank); empty where it has none, None where it is not.

    >>> query_value(b"x=1&y=a%20b+c&z", b"y"), query_value(b"x=1&z", b"z"), query_value(b"x", b"y")
    (b'a b c', b'', None)
    """
    if name not in query and b"%" not in query and b"+" not in query:
        return None
    for part in query.split(b"&"):
        key, _, value = part.partition(b"=")
        if key == name or (key and unquote_to_bytes(key.replace(b"+", b" ")) == name):
            return unquote_to_bytes(value.replace(b"+", b" "))
    return None


def query_values(query: bytes, name: bytes) -> list[bytes]:
    """All values of `name` in a query, decoded as above, in their order.

    >>> query_values(b"x=1&y&x=%32", b"x"), query_values(b"y", b"x")
    ([b'1', b'2'], [])
    """
    if name not in query and b"%" not in query and b"+" not in query:
        return []
    return [
        unquote_to_bytes(value.replace(b"+", b" "))
        for part in query.split(b"&")
        for key, _, value in [part.partition(b"=")]
        if key == name or (key and unquote_to_bytes(key.replace(b"+", b" ")) == name)
    ]
