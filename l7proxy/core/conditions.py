"""Whether a request has what a route asks for beyond host and path, and what it lacks, in words.

One rule: a test looks at what came. Of several lines, cookies or entries with one name, any one is enough.
"""

from __future__ import annotations

import re
from typing import Protocol

from director.kit.pattern import PatternSet
from l7proxy.core.cookies import cookie_value, find_cookie
from l7proxy.core.forwarded import TrustedNetworks
from l7proxy.core.head import RequestHead
from l7proxy.core.lookup import Fields, query_of, query_value, query_values
from l7proxy.core.settings.match import Conditions, Want, Wish, extension_of

_ZERO = re.compile(rb"(?:^|;)[ \t]*q=0?(?:\.0*)?[ \t]*(?:;|$)")


class Asked(Protocol):
    """A request, as rules see it: an exchange is one."""

    @property
    def head(self) -> RequestHead: ...

    @property
    def seen(self) -> Fields: ...

    @property
    def asker(self) -> str: ...


class Condition(Protocol):
    """One condition."""

    def fits(self, asked: Asked) -> bool:
        """Whether `asked` has it."""
        ...

    def why_not(self, asked: Asked) -> str:
        """What `asked` has instead, in a few words."""
        ...


class Source:
    """Where a value stands: a header, a cookie, an entry of the query, by its name."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind = kind
        self.name = name
        self._key = name.encode()

    def values(self, asked: Asked) -> list[bytes]:
        """All values, in their order."""
        raise NotImplementedError

    def first(self, asked: Asked) -> bytes | None:
        """The first of them: nearly always the only one."""
        raise NotImplementedError

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class _Header(Source):
    def values(self, asked: Asked) -> list[bytes]:
        return asked.seen.all(self._key)

    def first(self, asked: Asked) -> bytes | None:
        return asked.seen.first(self._key)


class _Upgrade(Source):
    """Not among the header lines: it is about the connection. What is passed on of it is known."""

    def values(self, asked: Asked) -> list[bytes]:
        return [asked.head.upgrade] if asked.head.upgrade else []

    def first(self, asked: Asked) -> bytes | None:
        return asked.head.upgrade or None


class _Cookie(Source):
    def __init__(self, kind: str, name: str) -> None:
        super().__init__(kind, name)
        self._sought = self._key + b"="

    def values(self, asked: Asked) -> list[bytes]:
        found = []
        raw, sought = asked.seen.raw, self._sought
        at = find_cookie(raw, sought)
        while at >= 0:
            found.append(cookie_value(raw, sought, at).lstrip(b" \t"))
            at = find_cookie(raw, sought, at + 1)
        return found

    def first(self, asked: Asked) -> bytes | None:
        raw = asked.seen.raw
        at = find_cookie(raw, self._sought)
        return cookie_value(raw, self._sought, at).lstrip(b" \t") if at >= 0 else None


class _Query(Source):
    def values(self, asked: Asked) -> list[bytes]:
        return query_values(query_of(asked.head.target), self._key)

    def first(self, asked: Asked) -> bytes | None:
        return query_value(query_of(asked.head.target), self._key)


def source_of(kind: str, name: str) -> Source:
    """`kind` is `header`, `cookie` or `query`."""
    if kind == "header":
        return _Upgrade(kind, name) if name == "upgrade" else _Header(kind, name)
    return _Cookie(kind, name) if kind == "cookie" else _Query(kind, name)


class Value:
    """What one source must have. `wanted` is the value where only one will do."""

    def __init__(self, source: Source, wish: Wish) -> None:
        self.source = source
        self.wish = wish
        self.wanted = wish.text.encode() if wish.want is Want.EQUAL else None
        self._pattern = PatternSet([wish.text]) if wish.want is Want.MATCHING else None
        self._absent = wish.want is Want.ABSENT

    def fits(self, asked: Asked) -> bool:
        first = self.source.first(asked)
        if first is None:
            return self._absent
        if self.wanted is not None:
            return first == self.wanted or self.wanted in self.source.values(asked)
        if self._pattern is not None:
            matches = self._pattern.matches
            return bool(matches(first)) or any(matches(value) for value in self.source.values(asked)[1:])
        return not self._absent

    def why_not(self, asked: Asked) -> str:
        values = " and ".join(repr(value.decode("utf-8", "replace")) for value in self.source.values(asked)[:3])
        if self._absent:
            return f"{self.source} is {values}, and must not be there"
        if not values:
            return f"{self.source} is not there"
        if self._pattern is not None:
            return f"{self.source} is {values}, which ~ {self.wish.text} does not match"
        return f"{self.source} is {values}, not {self.wish.text!r}"


class _Methods:
    def __init__(self, methods: tuple[str, ...]) -> None:
        self._methods = frozenset(method.encode() for method in methods)
        self._said = " or ".join(methods)

    def fits(self, asked: Asked) -> bool:
        return asked.head.method in self._methods

    def why_not(self, asked: Asked) -> str:
        return f"method is {asked.head.method.decode('latin-1')}, not {self._said}"


class _Clients:
    def __init__(self, conditions: Conditions) -> None:
        self._networks = TrustedNetworks(conditions.clients)
        self._said = ", ".join(map(str, conditions.clients))

    def fits(self, asked: Asked) -> bool:
        return self._networks.trust(asked.asker)

    def why_not(self, asked: Asked) -> str:
        return f"client {asked.asker} is not in {self._said}"


class _Types:
    def __init__(self, types: tuple[str, ...]) -> None:
        self._extensions = frozenset(text for text in types if "/" not in text)
        self._media = tuple(text.removesuffix("*").encode() for text in types if "/" in text)
        self._said = ", ".join(types)

    def fits(self, asked: Asked) -> bool:
        if self._extensions and extension_of(asked.head.path) in self._extensions:
            return True
        if not self._media:
            return False
        for line in asked.seen.all(b"accept"):
            lowered = line.lower()
            for media in self._media:
                if names(lowered, media):
                    return True
        return False

    def why_not(self, asked: Asked) -> str:
        extension = extension_of(asked.head.path)
        has = f"the path has the extension {extension!r}" if extension else "the path has no extension"
        if not self._media:
            return f"{has}, not one of {self._said}"
        accept = b", ".join(asked.seen.all(b"accept")).decode("latin-1")
        return (
            f"{has}, and Accept names {accept!r}; none is of {self._said}"
            if accept
            else (f"{has}, and there is no Accept; none is of {self._said}")
        )


def names(accept: bytes, media: bytes) -> bool:
    """Whether a value of Accept, in lower case, has a media type, or one that begins with it where it ends with `/`;
    what is taken with `q=0` only is not had (RFC 9110 12.5.1).

    >>> accept = b"text/html, image/*;q=0.8,image/png; q=0.0"
    >>> names(accept, b"image/"), names(accept, b"text/html"), names(accept, b"image/png"), names(accept, b"html")
    (True, True, False, False)
    """
    at = accept.find(media)
    while at >= 0:
        if accept[:at].rstrip(b" \t")[-1:] in {b"", b","}:
            end = accept.find(b",", at)
            name, _, parameters = (accept[at:] if end < 0 else accept[at:end]).partition(b";")
            if (media[-1:] == b"/" or name.rstrip(b" \t") == media) and not _ZERO.search(parameters):
                return True
        at = accept.find(media, at + 1)
    return False


def compile_conditions(conditions: Conditions) -> tuple[Condition, ...]:
    """`conditions`, ready to be asked, the cheapest first."""
    tests: list[Condition] = []
    if conditions.methods:
        tests.append(_Methods(conditions.methods))
    tests += [Value(source_of("header", wish.name), wish) for wish in conditions.headers]
    tests += [Value(source_of("cookie", wish.name), wish) for wish in conditions.cookies]
    tests += [Value(source_of("query", wish.name), wish) for wish in conditions.queries]
    if conditions.clients:
        tests.append(_Clients(conditions))
    if conditions.types:
        tests.append(_Types(conditions.types))
    return tuple(tests)
