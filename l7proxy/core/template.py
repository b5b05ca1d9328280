"""Texts with variables in braces: `https://{host}{path}`, `l7 {client}`, `/{rest}`.

One rule: a value never changes what its surroundings mean. What is made safe depends on where it goes (`Place`), and a
name that nobody knows is refused when the configuration is read, never found out by a request.

`{{` and `}}` are braces. Names are groups of a regular expression of the route, which stand above variables of the
same name, and the variables of `VARIABLES` and `KEYED`. What a request does not have is empty.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from enum import Enum
from html import escape
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote_from_bytes

from director.kit.schemawalk import suggestion
from l7proxy.core.lookup import Fields, query_of, query_value

if TYPE_CHECKING:
    from l7proxy.core.head import RequestHead


class Place(Enum):
    """Where a text goes; it decides how values are made safe, and what the text around them may hold.

    HEADER: each control character of a value becomes a blank. URL and PATH: everything but unreserved characters (RFC
    3986 2.3) and `!$&'()*+,;=:@` is percent-encoded, unless it came as part of a URL (groups, `path`, `query`, `uri`):
    that keeps its bytes, though in PATH its `?` and `#` are encoded. QUERY, which is one parameter of it: everything
    but unreserved characters is, and `%` of what came as part of a URL is not encoded twice. A URL whose text begins
    with a path never becomes one of another host: of `//` at its begin one slash is left.
    """

    HEADER = "a header"
    URL = "a URL"
    PATH = "a path"
    QUERY = "a query"
    TEXT = "a text"
    HTML = "an HTML text"


class Source(Protocol):
    """What templates ask about an exchange."""

    @property
    def head(self) -> RequestHead: ...

    @property
    def seen(self) -> Fields:
        """The header lines as they came."""
        ...

    @property
    def asker(self) -> str:
        """The client's address."""
        ...

    @property
    def peer(self) -> str:
        """The address that the connection came from."""
        ...

    @property
    def scheme(self) -> str: ...

    @property
    def captures(self) -> Mapping[str, bytes | None]:
        """The groups of the route's path."""
        ...

    @property
    def request_id(self) -> bytes: ...

    @property
    def user(self) -> str:
        """Who has proven who it is; empty where nobody has."""
        ...

    @property
    def subject(self) -> str:
        """Of the client's certificate; empty where it has shown none."""
        ...

    @property
    def route_name(self) -> str: ...

    @property
    def upstream_name(self) -> str: ...

    @property
    def backend_name(self) -> str: ...

    @property
    def listener_name(self) -> str: ...


LookUp = Callable[[Source], bytes | None]


def came_target(head: RequestHead) -> bytes:
    """The target in origin form, as it came: of `http://host/path?query`, `/path?query`.

    >>> from l7proxy.core.head import RequestHead
    >>> head = RequestHead()
    >>> head.target = b"HTTP://a.example?x"
    >>> came_target(head)
    b'/?x'
    """
    target = head.target
    if target[:1] == b"/" or b"://" not in target:
        return target
    rest = target.partition(b"://")[2]
    ends = [at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0]
    rest = rest[min(ends) :] if ends else b""
    return rest if rest[:1] == b"/" else b"/" + rest


def _port(source: Source) -> bytes:
    authority = source.head.authority
    colon = authority.rfind(b":")
    if colon > authority.rfind(b"]") and authority[colon + 1 :]:
        return authority[colon + 1 :]
    return b"443" if source.scheme == "https" else b"80"


VARIABLES: dict[str, LookUp] = {
    "client": lambda source: source.asker.encode("ascii", "replace"),
    "peer": lambda source: source.peer.encode("ascii", "replace"),
    "scheme": lambda source: source.scheme.encode("ascii"),
    "host": lambda source: source.head.host.encode("ascii"),
    "port": _port,
    "method": lambda source: source.head.method,
    "path": lambda source: came_target(source.head).partition(b"?")[0],
    "query": lambda source: query_of(source.head.target),
    "uri": lambda source: came_target(source.head),
    "request_id": lambda source: source.request_id,
    "route": lambda source: source.route_name.encode(),
    "upstream": lambda source: source.upstream_name.encode(),
    "backend": lambda source: source.backend_name.encode(),
    "listener": lambda source: source.listener_name.encode(),
    "tls.subject": lambda source: source.subject.encode(),
    "user": lambda source: source.user.encode(),
}
"""`client` is the address as trusted proxies say it, `peer` that of the connection; `path`, `query` and `uri` are as
they came; `host` is in lower case and without `port`."""


def _header(name: str) -> LookUp:
    key = name.lower().encode("ascii")
    return lambda source: source.seen.first(key)


def _cookie(name: str) -> LookUp:
    key = name.encode("ascii")
    return lambda source: source.seen.cookie(key)


def _query(name: str) -> LookUp:
    key = name.encode()
    return lambda source: query_value(query_of(source.head.target), key)


KEYED: dict[str, Callable[[str], LookUp]] = {"header": _header, "cookie": _cookie, "query": _query}
"""`header.NAME`, `cookie.NAME` and `query.NAME`; each the first one of its name, a query's decoded."""
LATE = frozenset({"backend"})
"""What is known only when an answer comes."""

_ENCODED = frozenset({"path", "query", "uri", "host", "port", "scheme"})
"""Variables that come from URLs, and so stand in one as they are."""
_HOLE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BLANKED = bytes(0x20 if octet < 0x20 or octet == 0x7F else octet for octet in range(256))
_UNPRINTABLE = re.compile(rb"[^!-~]")
_NOT_OF_A_PATH = re.compile(rb"[^!-~]|[?#]")
_BROKEN = re.compile(r"%(?![0-9A-Fa-f]{2})")
_OTHER_HOST = frozenset({b"/", b"\\"})
_SLASHES = re.compile(rb"/[/\\]+")


def _in_header(value: bytes) -> bytes:
    return value.translate(_BLANKED)


def _in_path(value: bytes) -> bytes:
    return quote_from_bytes(value, "!$&'()*+,;=:@").encode("ascii")


def _piece_of_path(value: bytes) -> bytes:
    return _NOT_OF_A_PATH.sub(_percent, value)


def _piece_of_url(value: bytes) -> bytes:
    return _UNPRINTABLE.sub(_percent, value)


def _in_query(value: bytes) -> bytes:
    return quote_from_bytes(value, "").encode("ascii")


def _piece_of_query(value: bytes) -> bytes:
    return quote_from_bytes(value, "%/:@!$'()*,;").encode("ascii")


def _percent(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match[0][0]


def _in_html(value: bytes) -> bytes:
    return escape(value.decode("utf-8", "replace")).encode()


Safe = Callable[[bytes], bytes]
_SAFE: dict[Place, tuple[Safe | None, Safe | None]] = {
    Place.HEADER: (_in_header, _in_header),
    Place.URL: (_in_path, _piece_of_url),
    Place.PATH: (_in_path, _piece_of_path),
    Place.QUERY: (_in_query, _piece_of_query),
    Place.TEXT: (None, None),
    Place.HTML: (_in_html, _in_html),
}
"""What is done to a value, and to one that came as part of a URL."""
_TEXTS: dict[Place, tuple[re.Pattern[str], str]] = {
    Place.HEADER: (re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*"), "write it without line breaks and control characters"),
    Place.URL: (re.compile(r"[!-~]*"), "percent-encode blanks and what is not ASCII"),
    Place.PATH: (re.compile(r'[!"$->@-~]*'), "percent-encode blanks, `?`, `#` and what is not ASCII"),
    Place.QUERY: (re.compile(r"[^\x00-\x1f\x7f]*"), "write it without line breaks and control characters"),
    Place.TEXT: (re.compile(r".*", re.DOTALL), ""),
    Place.HTML: (re.compile(r".*", re.DOTALL), ""),
}
_NEEDS_CARE = frozenset({"user", "tls.subject"})
"""Of what can stand in a header as it came: all but these, `query.NAME`, and groups. Heads hold no control characters
but tabs, and names of the configuration none at all."""


class Template:
    """A text, ready to be filled. `names` are those in it, `fixed` the whole text where it has none."""

    __slots__ = ("_end", "_holes", "_stays", "fixed", "names", "place", "text")

    def __init__(
        self, text: str, place: Place, holes: tuple[tuple[bytes, str, LookUp | None, Safe | None], ...], end: bytes
    ) -> None:
        self.text = text
        self.place = place
        self._stays = place is Place.URL and bool(holes) and (holes[0][0] or b"/") == b"/"
        self.names = tuple(name for _, name, _, _ in holes)
        self.fixed = None if holes else end
        self._holes = holes
        self._end = end

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Template) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Template({self.text!r})"

    @property
    def _value(self) -> tuple[object, ...]:
        return self.text, self.place, self._end, [hole[2] is None for hole in self._holes]

    def fill(self, source: Source, groups: Mapping[str, bytes | None] | None = None) -> bytes:
        """The text for an exchange; `groups` in place of those of the route's path."""
        fixed = self.fixed
        if fixed is not None:
            return fixed
        parts = []
        for before, name, look_up, safe in self._holes:
            if look_up is not None:
                value = look_up(source)
            elif groups is not None:
                value = groups.get(name)
            else:
                value = source.captures.get(name)
            parts.append(before)
            if value:
                parts.append(value if safe is None else safe(value))
        parts.append(self._end)
        text = b"".join(parts)
        return _SLASHES.sub(b"/", text, count=1) if self._stays and text[1:2] in _OTHER_HOST else text


def compile_template(
    text: str, captures: Collection[str] = (), place: Place = Place.HEADER, *, late: bool = False
) -> Template:
    """`text` as a template for `place`; `captures` are the groups that it may name, `late` whether it is filled when
    an answer has come.

    Raises: ValueError, with what to write instead.

    >>> compile_template("l7 {{{method}}}").names
    ('method',)
    >>> compile_template("/{rset}", ["rest"])
    Traceback (most recent call last):
    ValueError: '{rset}' is neither a group nor a variable: did you mean 'rest'?
    """
    holes: list[tuple[bytes, str, LookUp | None, Safe | None]] = []
    before = ""
    at = 0
    for match in _HOLE.finditer(text):
        before += text[at : match.start()]
        at = match.end()
        name = match[1]
        if match[0] in {"{{", "}}"}:
            before += match[0][0]
        elif name is None:
            other = "}" if match[0] == "{" else "{"
            raise ValueError(f"{text!r} has a {match[0]} without its {other}: write {match[0] * 2} for the character")
        else:
            look_up = _look_up(name, captures, late=late)
            holes.append((_plain(before, text, place), name, look_up, _safe(name, look_up, place)))
            before = ""
    return Template(text, place, tuple(holes), _plain(before + text[at:], text, place))


def _plain(part: str, text: str, place: Place) -> bytes:
    """What stands between variables. Raises: ValueError."""
    pattern, remedy = _TEXTS[place]
    if not pattern.fullmatch(part):
        raise ValueError(f"{text!r} cannot stand in {place.value}: {remedy}")
    if place in {Place.URL, Place.PATH} and _BROKEN.search(part):
        raise ValueError(f"{text!r} has a % without two hexadecimal digits: write %25 for the character")
    return quote_from_bytes(part.encode(), "%").encode() if place is Place.QUERY else part.encode()


def _look_up(name: str, captures: Collection[str], *, late: bool) -> LookUp | None:
    """How `name` is found out; None for a group. Raises: ValueError."""
    if name in captures:
        return None
    if name in LATE and not late:
        raise ValueError(f"'{{{name}}}' is not known before an answer comes: only `headers.response` can tell it")
    if name in VARIABLES:
        return VARIABLES[name]
    kind, dot, rest = name.partition(".")
    if dot and kind in KEYED:
        if not rest or (kind != "query" and not _TOKEN.fullmatch(rest)):
            raise ValueError(f"'{{{name}}}' names nothing: write it as {{{kind}.NAME}}")
        return KEYED[kind](rest)
    known = [*captures, *VARIABLES, *(f"{each}.NAME" for each in KEYED)]
    what = "neither a group nor a variable" if captures else "no variable, and there is no group of that name"
    if not name.strip():
        raise ValueError(f"'{{{name}}}' names nothing: write {{{{ for a brace")
    raise ValueError(f"'{{{name}}}' is {what}{suggestion(name, known)}")


def _safe(name: str, look_up: LookUp | None, place: Place) -> Safe | None:
    safe, piece_safe = _SAFE[place]
    if look_up is None or name in _ENCODED:
        return piece_safe if place is not Place.HEADER else None
    if place is Place.HEADER and name not in _NEEDS_CARE and not name.startswith("query."):
        return None
    return safe
