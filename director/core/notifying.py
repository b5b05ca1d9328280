"""Who is told of which events, and how: the notifications of a configuration, as values.

One rule: secrets stand in no text that is made of these: not in `repr`, and not in a log.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal
from urllib.parse import urlsplit

from director.core.event import Event, EventKind

REFUSED = "refused"  # what `now` is of a configuration that was not taken
Topic = Literal[
    "health", "weight", "quorum", "sorry", "panic", "wish", "maintenance", "configuration", "configuration_refused",
    "drift", "certificate", "resolution", "notification", "daemon",
]  # fmt: skip
DEFAULT_TOPICS: tuple[Topic, ...] = ("health", "quorum", "sorry", "panic", "configuration_refused", "certificate")


class MailTls(Enum):
    """How a relay is spoken to."""

    NONE = "none"
    STARTTLS = "starttls"
    TLS = "tls"

    @property
    def port(self) -> int:
        """The usual port: RFC 5321, RFC 6409, RFC 8314."""
        return {MailTls.NONE: 25, MailTls.STARTTLS: 587, MailTls.TLS: 465}[self]


@dataclass(frozen=True, slots=True)
class Trust:
    """Whether a TLS certificate is verified, and by which authorities (None: the host's)."""

    verify: bool = True
    ca_file: str | None = None


@dataclass(frozen=True, slots=True)
class Script:
    """A program, run once for each event with its JSON on standard input."""

    command: tuple[str, ...] = field(repr=False)
    user: str | None = None
    timeout_s: float = 10.0

    def __str__(self) -> str:
        return f"script {self.command[0]}"


@dataclass(frozen=True, slots=True)
class Webhook:
    """A URL that events are posted to. `header_files` are headers whose values stand in files."""

    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    header_files: tuple[tuple[str, str], ...] = ()
    timeout_s: float = 5.0
    trust: Trust = Trust()

    @property
    def origin(self) -> str:
        """The URL without its path, which may be a secret."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    def __str__(self) -> str:
        return f"webhook {self.origin}"


@dataclass(frozen=True, slots=True)
class Mail:
    """An e-mail for what happens within `bundle_s`, through a relay."""

    host: str
    port: int
    sender: str
    recipients: tuple[str, ...]
    tls: MailTls = MailTls.NONE
    username: str | None = None
    password_file: str | None = None
    timeout_s: float = 30.0
    bundle_s: float = 5.0
    trust: Trust = Trust()

    def __str__(self) -> str:
        return f"e-mail by {self.host}:{self.port}"


Receiver = Script | Webhook | Mail


@dataclass(frozen=True, slots=True)
class Notification:
    """A receiver, and what it is told of: the topics in `on`; of no `virtual_servers` in particular, of all.

    What does not arrive is tried again for `give_up_s`.
    """

    name: str
    receiver: Receiver
    on: frozenset[Topic] = frozenset(DEFAULT_TOPICS)
    virtual_servers: frozenset[str] = frozenset()
    give_up_s: float = 600.0

    @property
    def label(self) -> str:
        """What events about this notification have as their `check`."""
        return f"notification {self.name}"

    def wants(self, event: Event) -> bool:
        """Whether `event` is to be told. What happens to a notification itself, another one may tell.

        >>> mine = Notification("mine", Script(("/x",)), virtual_servers=frozenset({"web"}))
        >>> mine.wants(Event(0, EventKind.HEALTH, "web")), mine.wants(Event(0, EventKind.HEALTH, "mail"))
        (True, False)
        >>> mine.wants(Event(0, EventKind.CONFIGURATION, now="refused"))
        True
        """
        if event.kind is EventKind.NOTIFICATION and event.check == self.label:
            return False
        if self.virtual_servers and event.virtual_server and event.virtual_server not in self.virtual_servers:
            return False
        refused = event.kind is EventKind.CONFIGURATION and event.now == REFUSED
        return event.kind.value in self.on or (refused and "configuration_refused" in self.on)


def summary(events: Iterable[Event]) -> str:
    """What kinds of events these are.

    >>> summary([Event(0, EventKind.HEALTH), Event(0, EventKind.QUORUM), Event(0, EventKind.HEALTH)])
    '2 health, 1 quorum'
    """
    kinds = [event.kind.value for event in events]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
