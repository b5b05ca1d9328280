"""What a backend sees of a request's path, query and host, and how its answers lead back.

One rule: rules see what came, and what no rule names keeps its bytes: escapes stay as they are written, parameters of
a query stay in their order. What comes out is looked at like what came in: no rule makes a path that climbs, or one
that begins with `//`, of one that does not.

There is no magic about slashes at an end: without its prefix /app, /app/ is / and /app/x/ is /x/; /app, of which
nothing would be left, is / too.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import quote_from_bytes, unquote_to_bytes

from director.kit.pattern import compile_pattern
from l7proxy.core.captures import named
from l7proxy.core.head import RequestHead
from l7proxy.core.lines import Named
from l7proxy.core.paths import Danger, danger_of, normal_path
from l7proxy.core.settings.rewrite import QueryRewrite, Rewrite
from l7proxy.core.template import Source, Template

_AUTHORITY = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,255})(?::[0-9]{1,5})?")


class Rewriter:
    """A route's rewriting, ready. `checked` is whether what comes out must be safe: not where the route forwards
    dangerous paths."""

    __slots__ = (
        "_add",
        "_is_plain",
        "_path",
        "_pattern",
        "_query",
        "_strip",
        "changes_target",
        "checked",
        "host",
        "rewrite",
    )

    def __init__(self, rewrite: Rewrite, *, checked: bool = True) -> None:
        self.rewrite = rewrite
        self.checked = checked
        self.host = rewrite.host
        self._strip = rewrite.strip_prefix.encode("ascii")
        self._add = rewrite.add_prefix.encode("ascii")
        self._path = rewrite.path
        self._pattern = compile_pattern(rewrite.pattern) if rewrite.pattern else None
        self._query = _QueryRewriter(rewrite.query) if rewrite.query is not None else None
        self._is_plain = bool(self._strip or self._add) and self._path is None and self._query is None
        self.changes_target = bool(self._strip or self._add or self._path or self._query)

    def plain_start(self, start: bytes, head: RequestHead) -> bytes | None:
        """The request line that goes on, where nothing needs a closer look: a prefix of an ordinary path is all that
        changes. None elsewhere."""
        strip = self._strip
        if head.odd or not self._is_plain:
            return None
        at = len(head.method) + 1
        if not start.startswith(strip, at):
            return None
        end = at + len(strip)
        if start[end : end + 1] != b"/" or start[end + 1 : end + 2] == b"/":
            return None
        return start[:at] + self._add + start[end:]

    def target(self, target: bytes, source: Source) -> bytes | Danger:
        """The target (in origin form) that goes on in place of `target`, or why there is none that is safe."""
        if target[:1] != b"/":
            return target  # OPTIONS *
        path, mark, query = target.partition(b"?")
        made = self._path_of(path, source)
        if self.checked and made != path:
            if made[:2] == b"//" and path[:2] != b"//":
                return Danger.OTHER_HOST
            if (b"%" in made or b".." in made) and (danger := danger_of(made.decode("ascii"))) is not None:
                return danger
        if self._query is None:
            return made + mark + query
        query = self._query.rewritten(query, source)
        return made + b"?" + query if query else made

    def _path_of(self, path: bytes, source: Source) -> bytes:
        head = source.head
        if self._strip:
            rest = path_below(path, head, self._strip)
            path = path if rest is None else rest or (b"" if self._add else b"/")
        elif self._path is not None:
            path = self._by_template(self._path, path, source)
        return self._add + path if self._add else path

    def _by_template(self, to: Template, path: bytes, source: Source) -> bytes:
        groups = None
        if self._pattern is not None:
            match = self._pattern.search(source.head.path.encode())
            if match is None:
                return path
            groups = named(match)
        made = to.fill(source, groups)
        return made if made[:1] == b"/" else b"/" + made

    def path_back(self, path: bytes, head: RequestHead) -> bytes | None:
        """Where clients find what a backend calls `path`; None where nobody knows. `head` is of a request."""
        if self._path is not None:
            return None
        if self._add:
            if not _begins(path, self._add):
                return None
            path = path[len(self._add) :]
        if self._strip and _begins(head.path.encode(), self._strip):
            path = self._strip + path
        return path or b"/"


def _begins(path: bytes, prefix: bytes) -> bool:
    return path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in {b"", b"/"}


def path_below(path: bytes, head: RequestHead, prefix: bytes) -> bytes | None:
    """What of `path` is left without its first segments `prefix`, with its escapes as they came; None where it has
    others. Whether it has is a question to the normal form, as it is for routes.

    >>> head = RequestHead()
    >>> head.path, head.odd = "/app/x%2Fy", True
    >>> path_below(b"/%61pp/x%2fy", head, b"/app"), path_below(b"/./app/x%2Fy", head, b"/app")
    (b'/x%2fy', b'/x%2Fy')
    """
    if not head.odd:
        return path[len(prefix) :] if _begins(path, prefix) else None
    normal = head.path.encode()
    if not _begins(normal, prefix):
        return None
    rest = normal[len(prefix) :]
    count = prefix.count(b"/") + 1
    segments = path.split(b"/", count)
    raw = b"/" + segments[count] if len(segments) > count else b""
    if normal_path((raw or b"/").decode("ascii")).encode() == (rest or b"/"):
        return raw
    return rest


class _QueryRewriter:
    __slots__ = ("_adds", "_all", "_begins", "_removes", "_sets")

    def __init__(self, query: QueryRewrite) -> None:
        self._sets = {name.encode(): (_quoted(name), template) for name, template in query.sets}
        self._adds = [(_quoted(name), template) for name, template in query.adds]
        self._removes = frozenset(name.encode() for name in query.removes if not name.endswith("*"))
        self._begins = tuple(name[:-1].encode() for name in query.removes if name.endswith("*"))

    def rewritten(self, query: bytes, source: Source) -> bytes:
        """`query` with its changes; what nobody names keeps its bytes and its place."""
        kept: list[bytes] = []
        done: set[bytes] = set()
        for part in query.split(b"&") if query else ():
            name = part.partition(b"=")[0]
            if b"%" in name or b"+" in name:
                name = unquote_to_bytes(name.replace(b"+", b" "))
            if name in self._sets:
                if name not in done:
                    done.add(name)
                    written, template = self._sets[name]
                    kept.append(written + b"=" + template.fill(source))
            elif name not in self._removes and not (self._begins and name.startswith(self._begins)):
                kept.append(part)
        kept += [
            written + b"=" + template.fill(source)
            for name, (written, template) in self._sets.items()
            if name not in done
        ]
        kept += [written + b"=" + template.fill(source) for written, template in self._adds]
        return b"&".join(kept)


def _quoted(name: str) -> bytes:
    return quote_from_bytes(name.encode(), "").encode("ascii")


def host_of(template: Template, source: Source) -> bytes | None:
    """The Host that a template gives; None where it is none."""
    host = template.fill(source)
    return host if _AUTHORITY.fullmatch(host) else None


def with_host(fields: bytes, host: bytes) -> bytes:
    """Header lines with another Host, in the same place.

    >>> with_host(b"A: b\\r\\nhost: x\\r\\n", b"y")
    b'A: b\\r\\nHost: y\\r\\n'
    """
    at = (b"\r\n" + fields.lower()).find(b"\r\nhost:")
    if at < 0:
        return b"Host: %b\r\n%b" % (host, fields)
    return b"%bHost: %b%b" % (fields[:at], host, fields[fields.index(b"\r\n", at) :])


# the way back

LEADS_BACK = Named([b"location", b"content-location", b"refresh", b"set-cookie"])
"""Headers of answers that name places."""
_REFRESH = re.compile(rb"(?i)([ \t]*[0-9.]+[ \t]*[;,][ \t]*(?:url[ \t]*=[ \t]*)?)(['\"]?)([^'\"]*)(.*)", re.DOTALL)
_URL = re.compile(rb"(?:([A-Za-z][A-Za-z0-9+.-]*):)?(?://([^/?#]*))?([^?#]*)(.*)", re.DOTALL)
_ATTRIBUTE = re.compile(rb"(?i)(;[ \t]*)(path|domain)([ \t]*=[ \t]*)([^;]*?)([ \t]*)(?=;|$)")
_PORTS = {b"http": b"80", b"https": b"443"}


class WayBack:
    """How the answers of one exchange lead back to clients.

    `asked` is the Host that the backend saw, `address` its own, `spoken` the scheme that it was spoken to with.
    """

    __slots__ = ("_address", "_asked", "_head", "_rewriter", "_scheme", "_spoken")

    def __init__(
        self, rewriter: Rewriter, head: RequestHead, scheme: str, asked: bytes, address: bytes, spoken: bytes = b"http"
    ) -> None:
        self._rewriter = rewriter
        self._head = head
        self._scheme = scheme.encode("ascii")
        self._asked = asked.lower()
        self._address = address.lower()
        self._spoken = spoken

    def fields(self, fields: bytes) -> bytes:
        """The header lines of an answer, led back."""
        return b"\r\n".join([self._line(line) for line in fields.split(b"\r\n")])

    def _line(self, line: bytes) -> bytes:
        name, colon, value = line.partition(b":")
        match name.lower():
            case b"location" | b"content-location":
                plain = value.strip(b" \t")
                made = self.url(plain)
                return line if made == plain else name + b": " + made
            case b"refresh":
                match = _REFRESH.fullmatch(value)
                return line if match is None else name + colon + match[1] + match[2] + self.url(match[3]) + match[4]
            case b"set-cookie":
                first = value.find(b";")
                if first < 0:
                    return line
                return name + colon + value[:first] + _ATTRIBUTE.sub(self._attribute, value[first:])
        return line

    def url(self, url: bytes) -> bytes:
        """Where clients find what a backend calls `url`; as it is where that is not known."""
        match = _URL.fullmatch(url)
        if match is None:  # pragma: no cover -- it matches anything
            return url
        scheme, authority, path, rest = match[1], match[2], match[3], match[4]
        if authority is None:
            if scheme is not None or path[:1] != b"/":
                return url  # mailto:, or relative to a place that moves along
            return self._path(path) + rest
        if scheme is not None and scheme.lower() not in _PORTS:
            return url
        spoken = scheme.lower() if scheme is not None else self._spoken
        where = _plain(authority, spoken)
        public = self._head.authority
        led = self._path(path) if path else path
        if public and where == _plain(public.lower(), spoken):
            if not path or led == path:
                return url
            return (scheme + b"://" if scheme is not None else b"//") + authority + led + rest
        if spoken == self._spoken:
            ours = where in {_plain(self._address, spoken), _plain(self._asked, spoken)}
        else:
            ours = where == _plain(_host(self._asked), spoken)
        if not ours or not public:
            return url
        if scheme is None:
            return b"//" + public + led + rest
        if spoken == self._spoken:
            return self._scheme + b"://" + public + led + rest
        if spoken == self._scheme:
            return spoken + b"://" + public + led + rest
        return spoken + b"://" + self._head.host.encode("ascii") + led + rest  # its port is the other scheme's

    def _path(self, path: bytes) -> bytes:
        back = self._rewriter.path_back(path, self._head)
        return path if back is None or back[:2] == b"//" else back

    def _attribute(self, match: re.Match[bytes]) -> bytes:
        value: bytes = match[4]
        if match[2].lower() == b"path":
            made = self._cookie_path(value)
        else:
            host = _host(self._asked)
            public = self._head.host.encode("ascii")
            same = value.lower().removeprefix(b".") == host and host != public and public
            made = public if same else value
        return match[1] + match[2] + match[3] + made + match[5]

    def _cookie_path(self, path: bytes) -> bytes:
        """Of cookies: the whole backend's is the whole prefix, as /app/ would not do for /app (RFC 6265 5.1.4)."""
        if path[:1] != b"/":
            return path
        rewrite = self._rewriter.rewrite
        if rewrite.path is not None:
            return path
        if rewrite.add_prefix and (rewrite.add_prefix.encode() + b"/").startswith(path.rstrip(b"/") + b"/"):
            path = rewrite.add_prefix.encode()
        elif path == b"/":
            path = b""
        back = self._rewriter.path_back(path, self._head)
        return path if back is None else back


def _host(authority: bytes) -> bytes:
    return authority if authority.endswith(b"]") else authority.rpartition(b":")[0] or authority


@lru_cache(maxsize=1024)
def _plain(authority: bytes, scheme: bytes) -> bytes:
    """An authority with its port, in lower case."""
    authority = authority.lower()
    if authority.rfind(b":") > authority.rfind(b"]"):
        return authority
    return authority + b":" + _PORTS.get(scheme, b"")
