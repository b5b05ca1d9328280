"""`l7proxy explain`: what would become of a request, told in words or as JSON.

One rule: a request that cannot be asked is an operator's mistake; one that nobody answers is an answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from ipaddress import ip_address
from urllib.parse import urlsplit

import click

from director.kit.errors import DirectorError
from director.kit.schemawalk import suggestion
from director.kit.yamltree import parse
from l7proxy.core.explain import Explanation, NearMiss, Target, explain
from l7proxy.core.model import Config, Listener
from l7proxy.files.loading import Loaded, load_file

EXIT_NO_ROUTE = 1
NOBODY = "192.0.2.1"
"""The client where none is named: an address for documentation (RFC 5737)."""
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PORTS = {"http": 80, "https": 443}


class AskError(DirectorError):
    """What is asked for is no request."""


def head_of(asked: str, lines: Sequence[str]) -> tuple[bytes, str, int | None]:
    """The head of a request such as `GET https://shop.example.org/v1`, its scheme and port; both empty for a path.

    Raises: AskError.

    >>> head_of("GET https://shop.example.org/v1?a", ["X-A: 1"])
    (b'GET /v1?a HTTP/1.1\\r\\nHost: shop.example.org\\r\\nX-A: 1', 'https', 443)
    """
    method, blank, url = asked.strip().partition(" ")
    if not blank:
        method, url = "GET", method
    url = url.strip()
    if not _METHOD.fullmatch(method) or not url:
        raise AskError(f"{asked!r} is no request: write one such as 'GET https://shop.example.org/v1'")
    for line in lines:
        if ":" not in line or "\n" in line or "\r" in line:
            raise AskError(f"-H {line!r} is no header: write one such as 'Cookie: a=1'")
    host, scheme, port, target = "", "", None, url
    if not url.startswith("/") and url != "*":
        try:
            parts = urlsplit(url)
            scheme, host, port = parts.scheme.lower(), parts.netloc.rpartition("@")[2], parts.port
        except ValueError as error:
            raise AskError(f"{url!r} is no URL: {error}") from None
        if scheme not in _PORTS or not host:
            raise AskError(f"{url!r} is neither a URL that begins with http:// or https://, nor a path")
        port = port or _PORTS[scheme]
        target = re.sub("^[^/?]*", "", url.partition("#")[0].partition("://")[2])
        target = target if target.startswith("/") else "/" + target
    said_host = any(line.partition(":")[0].strip().lower() == "host" for line in lines)
    if not host and not said_host:
        raise AskError(f"{asked!r} says no host: write a URL, or add -H 'Host: shop.example.org'")
    head = [f"{method} {target} HTTP/1.1", *([] if said_host else [f"Host: {host}"]), *lines]
    return "\r\n".join(head).encode("utf-8", "surrogateescape"), scheme, port


def listener_of(config: Config, name: str | None, scheme: str, port: int | None) -> Listener:
    """The listener called `name`; without, the one at `port`, else the first that speaks `scheme`.

    Raises: AskError.
    """
    by_name = {listener.name: listener for listener in config.listeners}
    if name is not None:
        if name not in by_name:
            raise AskError(f"there is no listener {name!r}{suggestion(name, by_name)}")
        return by_name[name]
    http = [listener for listener in config.listeners if listener.tcp is None] or list(config.listeners)
    at_port = [listener for listener in http if any(bind.port == port for bind in listener.binds)]
    speaking = [listener for listener in http if not scheme or (listener.tls is not None) == (scheme == "https")]
    both = [listener for listener in at_port if listener in speaking]
    return (both or speaking or at_port or http)[0]


def note_of(config: Config, asked: str, found: Explanation) -> str:
    """What may surprise about where it comes in."""
    by_name = {listener.name: listener for listener in config.listeners}
    if "https://" in asked[:40] and by_name[found.listener].tls is None:
        return f"{found.listener} speaks plain HTTP: for https, this is what comes from who speaks TLS before it"
    return ""


def told(found: Explanation, source: str, lines: Mapping[int, int], note: str = "") -> Iterator[str]:
    """In words; `lines` has the line of each route's place."""

    def at(place: int | None) -> str:
        return f" ({source}:{lines[place]})" if place is not None else ""

    yield f"{found.request}, from {found.client}, at listener {found.listener}"
    if note:
        yield f"note       {note}"
    if found.route is None:
        yield f"answered   {found.answered}"
    else:
        yield f"route      {found.route}{at(found.place)}"
        for why in found.why:
            yield f"  because  {why}"
        for name, value in (found.captures or {}).items():
            yield f"  {{{name}}} is {value!r}"
        for step in found.steps:
            yield f"then       {step}"
        for target in found.targets:
            yield from _told_target(target, alone=len(found.targets) == 1)
    if found.near:
        yield "not taken"
        for miss in found.near:
            yield f"  {_told_miss(miss)}{at(miss.place)}"
    if found.more_near:
        yield f"  and {found.more_near} more that lack as much or more"


def _told_miss(miss: NearMiss) -> str:
    return f"{miss.route}: {miss.why}"


def _told_target(target: Target, *, alone: bool) -> Iterator[str]:
    share = "" if alone else f", {target.percent:g} % of all"
    keeps = ", who has a session keeps its backend" if target.sticky else ""
    yield f"upstream   {target.upstream}{share}: {target.balance}{keeps}"
    for each in target.candidates:
        if each.down:
            yield f"  backend  {each.backend} {each.address}, down: it has no address ({each.down})"
            continue
        weight = f"weight {each.weight}, {each.percent:g} %" if each.weight else "weight 0: only its sessions"
        yield f"  backend  {each.backend} {each.address}, {weight}"


def explain_loaded(
    loaded: Loaded, asked: str, lines: Sequence[str], client: str | None, listener: str | None
) -> Explanation:
    """What becomes of a request under a configuration.

    Raises: AskError.
    """
    try:
        peer = str(ip_address(client)) if client is not None else NOBODY
    except ValueError:
        raise AskError(f"--client {client!r} is no address: write one such as 10.1.2.3") from None
    head, scheme, port = head_of(asked, lines)
    return explain(loaded.config, listener_of(loaded.config, listener, scheme, port), head, peer)


def run(file: str, asked: str, lines: Sequence[str], client: str | None, listener: str | None, as_json: bool) -> int:
    """Tell it on standard output; the exit code."""
    loaded = load_file(file)
    found = explain_loaded(loaded, asked, lines, client, listener)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
    else:
        tree = parse(loaded.text)
        places = {place: tree.mark(("routes", place)).line for place in range(len(loaded.config.routes))}
        for line in told(found, file, places, note_of(loaded.config, asked, found)):
            click.echo(line)
    return EXIT_NO_ROUTE if found.is_unmatched else 0
