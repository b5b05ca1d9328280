"""Whether a request has what a route asks for beyond host and path, and what it lacks, in words.

One rule: a test looks at what came. Of several lines, cookies or entries with one name, any one is enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from director.kit.pattern import PatternSet
from l7proxy.core.forwarded import TrustedNetworks
from l7proxy.core.head import RequestHead
from l7proxy.core.lookup import Fields, query_of, query_values
from l7proxy.core.settings.match import Conditions, Want, Wish, extension_of


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

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class _Header(Source):
    def values(self, asked: Asked) -> list[bytes]:
        return asked.seen.all(self._key)


class _Upgrade(Source):
    """Not among the header lines: it is about the connection. What is passed on of it is known."""

    def values(self, asked: Asked) -> list[bytes]:
        return [asked.head.upgrade] if asked.head.upgrade else []


class _Cookie(Source):
    def values(self, asked: Asked) -> list[bytes]:
        key = self._key
        return [value for name, value in asked.seen.cookies if name == key]


class _Query(Source):
    def values(self, asked: Asked) -> list[bytes]:
        return query_values(query_of(asked.head.target), self._key)


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
        values = self.source.values(asked)
        if self.wanted is not None:
            return self.wanted in values
        if self._pattern is not None:
            return any(self._pattern.matches(value) for value in values)
        return bool(values) is not self._absent

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
                if media in lowered and any(_is(media, each) for each in media_ranges(lowered)):
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


def _is(media: bytes, each: bytes) -> bool:
    return each.startswith(media) if media.endswith(b"/") else each == media


def media_ranges(accept: bytes) -> Iterator[bytes]:
    """What a value of Accept takes, without what it takes with `q=0` only (RFC 9110 12.5.1); `accept` in lower case.

    >>> list(media_ranges(b"text/html, image/*;q=0.8, image/png; q=0.0"))
    [b'text/html', b'image/*']
    """
    for part in accept.split(b","):
        media, *parameters = (word.strip(b" \t") for word in part.split(b";"))
        if media and not any(word.startswith(b"q=") and not word[2:].strip(b"0.") for word in parameters):
            yield media


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
