"""Which route a request takes.

One rule: the order of routes in the file never matters. Of all routes that match, the most specific host wins
(exact, then the longest wildcard, then any); among those, the most specific path (exact, then regular expressions,
the longest pattern first, then the longest prefix); among those, the one with the most conditions, then the one with
more of the first kind (method, header, cookie, query, client, type). Where a route's conditions do not fit, the next
one is asked: of the same path, then of the next path, then of the next host. Two routes with the same host, path and
conditions are a configuration error, so nothing is ever left to chance.

Regular expressions stand above prefixes, as in nginx: below them, a catch-all `/` would hide every one of them.
Paths are compared in normal form (core/paths.py): `/%61/./b` is `/a/b`. `%2F` is no slash, `//` is not `/`, and case
counts. What is sent to the backend is not touched by any of this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from director.kit.pattern import PatternSet
from l7proxy.core.conditions import Asked, Condition, Source, Value, compile_conditions
from l7proxy.core.model import PathKind, PathPattern, Route
from l7proxy.core.paths import normal_path
from l7proxy.core.settings.match import Conditions

__all__ = ["RouteTable", "normal_path", "ties"]

WORTH_AN_INDEX = 4
"""Routes of one host and path that ask for one value each of the same header, cookie or entry of the query."""


class _Slot:
    """The routes of one host pattern and one path, in the order in which they are asked.

    `sole` is the route where there is but one, without conditions. Where many ask for one value each of the same
    header, cookie or entry of the query (`source`), only those are asked that want what came.
    """

    __slots__ = ("choices", "index", "others", "sole", "source")

    def __init__(self, routes: list[Route]) -> None:
        ordered = sorted(routes, key=lambda route: route.conditions.rank)
        self.sole = ordered[0] if not any(ordered[0].conditions.counts) else None
        self.choices = [(compile_conditions(route.conditions), route) for route in ordered]
        self.source: Source | None = None
        self.index: dict[bytes, list[tuple[tuple[Condition, ...], Route]]] = {}
        self.others: list[tuple[tuple[Condition, ...], Route]] = []
        self._make_index()

    def _make_index(self) -> None:
        values = [
            {(str(test.source), test.wanted): test for test in tests if isinstance(test, Value) and test.wanted}
            for tests, _ in self.choices
        ]
        counted = Counter(name for each in values for name, _ in each)
        name, count = max(counted.items(), key=lambda item: item[1], default=("", 0))
        if count < WORTH_AN_INDEX:
            return
        for each, choice in zip(values, self.choices, strict=True):
            keys = [wanted for known, wanted in each if known == name and wanted]
            if not keys:
                self.others.append(choice)
                for found in self.index.values():
                    found.append(choice)
                continue
            self.source = each[name, keys[0]].source
            self.index.setdefault(keys[0], list(self.others)).append(choice)

    def choose(self, asked: Asked | None) -> Route | None:
        """The first one that fits; without `asked`, only one without conditions does."""
        choices = self.choices
        if asked is None:
            tests, route = choices[-1]
            return None if tests else route
        if self.source is not None:
            values = self.source.values(asked)
            if not values:
                choices = self.others
            elif len(values) == 1:
                choices = self.index.get(values[0], self.others)
        for tests, route in choices:
            for test in tests:
                if not test.fits(asked):
                    break
            else:
                return route
        return None


class _Paths:
    """The routes of one host pattern, by path."""

    __slots__ = ("exact", "longest", "patterns", "prefixes", "regexes")

    def __init__(self, routes: Iterable[Route]) -> None:
        by_path: dict[PathPattern, list[Route]] = {}
        for route in routes:
            by_path.setdefault(route.path, []).append(route)
        self.exact: dict[str, _Slot] = {}
        self.prefixes: dict[str, _Slot] = {}
        self.longest = 0
        regexes: dict[str, _Slot] = {}
        for path, found in by_path.items():
            match path.kind:
                case PathKind.EXACT:
                    self.exact[path.text] = _Slot(found)
                case PathKind.REGEX:
                    regexes[path.text] = _Slot(found)
                case PathKind.PREFIX:
                    self.prefixes[path.text] = _Slot(found)
                    self.longest = max(self.longest, len(path.text))
        texts = sorted(regexes, key=lambda text: (-len(text), text))
        self.regexes = [regexes[text] for text in texts]
        self.patterns = PatternSet(texts) if texts else None

    def find(self, path: str, asked: Asked | None) -> Route | None:
        slot = self.exact.get(path)
        if slot is not None and (route := slot.sole or slot.choose(asked)) is not None:
            return route
        if self.patterns is not None:
            for number in self.patterns.matches(path.encode()):
                slot = self.regexes[number]
                if (route := slot.sole or slot.choose(asked)) is not None:
                    return route
        prefixes, longest = self.prefixes, self.longest
        if len(path) <= longest:
            slot = prefixes.get(path)
            if slot is not None and (route := slot.sole or slot.choose(asked)) is not None:
                return route
        # Every prefix that ends at the border of a segment, longest first.
        cut = path.rfind("/", 0, longest + 1)
        while cut >= 0:
            if cut < longest and cut + 1 < len(path):
                slot = prefixes.get(path[: cut + 1])
                if slot is not None and (route := slot.sole or slot.choose(asked)) is not None:
                    return route
            if cut:
                slot = prefixes.get(path[:cut])
                if slot is not None and (route := slot.sole or slot.choose(asked)) is not None:
                    return route
            cut = path.rfind("/", 0, cut)
        return None


class RouteTable:
    """All routes, ready to be asked."""

    def __init__(self, routes: Iterable[Route]) -> None:
        by_host: dict[str, list[Route]] = {"": []}
        for route in routes:
            for host in dict.fromkeys(route.hosts or ("",)):
                by_host.setdefault(host, []).append(route)
        self._any = _Paths(by_host.pop(""))
        self._exact: dict[str, _Paths] = {}
        self._wildcards: dict[str, _Paths] = {}
        for host, found in by_host.items():
            if host.startswith("*."):
                self._wildcards[host[1:]] = _Paths(found)
            else:
                self._exact[host] = _Paths(found)

    def find(self, host: str, path: str, asked: Asked | None = None) -> Route | None:
        """The route of a request; `host` lower-case and without port, `path` in normal form. `asked` is looked at for
        conditions; without it, routes with conditions do not match."""
        paths = self._exact.get(host)
        if paths is not None and (route := paths.find(path, asked)) is not None:
            return route
        if self._wildcards:
            dot = host.find(".", 1)
            while dot > 0:
                paths = self._wildcards.get(host[dot:])
                if paths is not None and (route := paths.find(path, asked)) is not None:
                    return route
                dot = host.find(".", dot + 1)
        return self._any.find(path, asked)


def ties(routes: Mapping[int, Route]) -> Iterator[tuple[int, int]]:
    """Pairs of keys (later, earlier) of routes that the same request would fit equally well."""
    seen: dict[tuple[str, PathPattern, Conditions], int] = {}
    for index, route in routes.items():
        for host in dict.fromkeys(route.hosts or ("",)):
            first = seen.setdefault((host, route.path, route.conditions), index)
            if first != index:
                yield index, first
                break
