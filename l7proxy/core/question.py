"""A request that somebody asks about, as it is written: `GET https://shop.example.org/v1`, and some headers.

One rule: a request that cannot be asked is an operator's mistake; one that nobody answers is an answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from director.kit.errors import ConfigError
from director.kit.schemawalk import suggestion
from l7proxy.core.explain import Explanation, explain
from l7proxy.core.explainlive import Live
from l7proxy.core.model import Config, Listener

NOBODY = "192.0.2.1"
"""The client where none is named: an address for documentation (RFC 5737)."""
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PORTS = {"http": 80, "https": 443}


class AskError(ConfigError):
    """What is asked for is no request."""


@dataclass(frozen=True, slots=True)
class Question:
    """The request, header lines, the address that the connection comes from, and the listener where it comes in; the
    last two are chosen where they are None."""

    request: str
    headers: tuple[str, ...] = ()
    client: str | None = None
    listener: str | None = None


def ask(config: Config, question: Question, live: Live | None = None) -> Explanation:
    """What becomes of a request under a configuration, and now where there is somebody `live` to ask.

    Raises: AskError.
    """
    try:
        peer = str(ip_address(question.client)) if question.client is not None else NOBODY
    except ValueError:
        raise AskError(f"--client {question.client!r} is no address: write one such as 10.1.2.3") from None
    head, scheme, port = head_of(question.request, question.headers)
    return explain(config, listener_of(config, question.listener, scheme, port), head, peer, live)


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
