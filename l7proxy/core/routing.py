"""Which route a request takes.

One rule: the order of routes in the file never matters. Of all routes that match, the most specific host wins
(exact, then the longest wildcard, then any); among those, the most specific path (exact, then regular expressions,
the longest pattern first, then the longest prefix). Two routes with the same host and the same path are a
configuration error, so nothing is ever left to chance.

Regular expressions stand above prefixes, as in nginx: below them, a catch-all `/` would hide every one of them.
Paths are compared in normal form (core/paths.py): `/%61/./b` is `/a/b`. `%2F` is no slash, `//` is not `/`, and case
counts. What is sent to the backend is not touched by any of this.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from director.kit.pattern import Pattern, compile_pattern
from l7proxy.core.model import PathKind, PathPattern, Route
from l7proxy.core.paths import normal_path

__all__ = ["RouteTable", "normal_path", "ties"]


class _Paths:
    """The routes of one host pattern, by path."""

    __slots__ = ("exact", "longest", "prefixes", "regexes")

    def __init__(self) -> None:
        self.exact: dict[str, Route] = {}
        self.regexes: list[tuple[Pattern, Route]] = []
        self.prefixes: dict[str, Route] = {}
        self.longest = 0

    def find(self, path: str) -> Route | None:
        found = self.exact.get(path)
        if found is not None:
            return found
        if self.regexes:
            octets = path.encode()
            for pattern, route in self.regexes:
                if pattern.search(octets):
                    return route
        prefixes, longest = self.prefixes, self.longest
        if len(path) <= longest and path in prefixes:
            return prefixes[path]
        # Every prefix that ends at the border of a segment, longest first.
        cut = path.rfind("/", 0, longest + 1)
        while cut >= 0:
            if cut < longest and (found := prefixes.get(path[: cut + 1])) is not None:
                return found
            if cut and (found := prefixes.get(path[:cut])) is not None:
                return found
            cut = path.rfind("/", 0, cut)
        return None


class RouteTable:
    """All routes, ready to be asked."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._exact: dict[str, _Paths] = {}
        self._wildcards: dict[str, _Paths] = {}
        self._any = _Paths()
        for route in routes:
            for host in route.hosts or ("",):
                _add(self._paths_of(host), route)
        for paths in (self._any, *self._exact.values(), *self._wildcards.values()):
            paths.regexes.sort(key=lambda item: (-len(item[1].path.text), item[1].path.text))

    def _paths_of(self, host: str) -> _Paths:
        if not host:
            return self._any
        if host.startswith("*."):
            return self._wildcards.setdefault(host[1:], _Paths())
        return self._exact.setdefault(host, _Paths())

    def find(self, host: str, path: str) -> Route | None:
        """The route of a request; `host` lower-case and without port, `path` in normal form."""
        paths = self._exact.get(host)
        if paths is not None and (route := paths.find(path)) is not None:
            return route
        if self._wildcards:
            dot = host.find(".", 1)
            while dot > 0:
                paths = self._wildcards.get(host[dot:])
                if paths is not None and (route := paths.find(path)) is not None:
                    return route
                dot = host.find(".", dot + 1)
        return self._any.find(path)


def _add(paths: _Paths, route: Route) -> None:
    text = route.path.text
    match route.path.kind:
        case PathKind.EXACT:
            paths.exact[text] = route
        case PathKind.REGEX:
            paths.regexes.append((compile_pattern(text), route))
        case PathKind.PREFIX:
            paths.prefixes[text] = route
            paths.longest = max(paths.longest, len(text))


def ties(routes: Mapping[int, Route]) -> Iterator[tuple[int, int]]:
    """Pairs of keys (later, earlier) of routes that the same request would fit equally well."""
    seen: dict[tuple[str, PathPattern], int] = {}
    for index, route in routes.items():
        for host in dict.fromkeys(route.hosts or ("",)):
            first = seen.setdefault((host, route.path), index)
            if first != index:
                yield index, first
                break
