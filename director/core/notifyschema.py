"""The shape of `notifications:` in director.yaml, and the values it means.

One rule: no message quotes what may be a secret: a URL, or a header's value.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from director.core.notifying import (
    DEFAULT_TOPICS,
    Mail,
    MailTls,
    Notification,
    Receiver,
    Script,
    Topic,
    Trust,
    Webhook,
)
from director.core.policyschema import Command
from director.kit.checks.base import is_name
from director.kit.configfile import Finding, Section
from director.kit.duration import Duration
from director.kit.schemawalk import suggestion

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_OWN_HEADERS = {"content-type", "content-length", "transfer-encoding", "host", "connection", "expect"}
_MAILBOX = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@([A-Za-z0-9-]+\.)*[A-Za-z0-9-]+")  # RFC 5321, without quotes


def _path(value: str) -> str:
    if not value.startswith("/") or "\0" in value:
        raise ValueError(f"{value!r} is not an absolute path: write the whole path, such as /etc/director/name")
    return value


def _url(value: object) -> str:
    said = "the URL is not one that can be posted to: write https://host/path, or http://host:port/path"
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError(said)
    try:
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0 or "\\" in value:
            raise ValueError(said)
    except ValueError:
        raise ValueError(said) from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("the URL holds a user's name or password: put them into `header_files: {Authorization: FILE}`")
    return value


def _header(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is not a header's name: use letters, digits and hyphens")
    if name.lower() in _OWN_HEADERS:
        raise ValueError(f"{name!r} is the director's own to set: remove it")
    return name


def _header_value(value: object) -> str:
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise ValueError("a header's value is not a text of printable ASCII: write one, in quotes")
    return value


def _mailbox(value: str) -> str:
    if not _MAILBOX.fullmatch(value) or len(value) > 254:
        raise ValueError(f"{value!r} is not a mail address: write one such as director@example.org, without a name")
    return value


def _listed(value: object) -> object:
    return value if isinstance(value, list) else [value]


def parse_relay(value: str) -> tuple[str, int | None]:
    """The host and the port, if one is written. Raises: ValueError.

    >>> parse_relay("mail.example.org:587"), parse_relay("[2001:db8::25]"), parse_relay("192.0.2.25")
    (('mail.example.org', 587), ('2001:db8::25', None), ('192.0.2.25', None))
    """
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::([0-9]{1,5}))?", value)
    port = int(match[3]) if match and match[3] else None
    if match is None or (match[2] and not is_name(match[2])) or (port is not None and not 0 < port < 65536):
        raise ValueError(f"{value!r} is not a relay: write a host's name or address, and :port if it needs one")
    return match[1] or match[2], port


def _relay(value: str) -> str:
    parse_relay(value)
    return value


AbsolutePath = Annotated[str, AfterValidator(_path)]
Url = Annotated[str, BeforeValidator(_url), WithJsonSchema({"type": "string", "format": "uri"})]
HeaderName = Annotated[str, AfterValidator(_header)]
HeaderValue = Annotated[str, BeforeValidator(_header_value), WithJsonSchema({"type": "string"})]
Mailbox = Annotated[str, AfterValidator(_mailbox)]


class NotificationSection(Section):
    """Keys that every notification has."""

    on: tuple[Topic, ...] = Field(DEFAULT_TOPICS, min_length=1, description="what is told")
    virtual_servers: tuple[str, ...] = Field((), description="only what happens to these; default: to all")
    give_up: Duration = Field(600.0, description="what does not arrive is tried again for so long")


class ScriptNotificationSection(NotificationSection):
    """`{type: script, command: [...]}`: run once for each event, with its JSON on standard input."""

    type: Literal["script"]
    command: Command = Field(description="the program's path and its arguments; there is no shell")
    user: str | None = Field(None, description="run as this user; default: nobody")
    timeout: Duration = Field(10.0, description="it is killed when it takes longer")


class WebhookNotificationSection(NotificationSection):
    """`{type: webhook, url: ...}`: events are posted as JSON; any 2xx is an arrival, and redirects are not followed."""

    type: Literal["webhook"]
    url: Url = Field(description="where to post to")
    headers: dict[HeaderName, HeaderValue] = Field({}, description="headers to send besides")
    header_files: dict[HeaderName, AbsolutePath] = Field(
        {}, description="headers whose values are the content of files, such as `Authorization`; read each time"
    )
    timeout: Duration = Field(5.0, description="an attempt that takes longer has failed")
    verify: bool = Field(True, strict=True, description="https: verify the certificate")
    ca_file: AbsolutePath | None = Field(None, description="https: the authorities to verify by; default: the host's")

    @model_validator(mode="after")
    def _once(self) -> WebhookNotificationSection:
        names = [name.lower() for name in (*self.headers, *self.header_files)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"header {twice[0]!r} stands here twice: remove one")
        if not self.verify and self.ca_file is not None:
            raise ValueError("ca_file is of no use with `verify: false`: remove one of them")
        return self


class EmailNotificationSection(NotificationSection):
    """`{type: email, relay: ..., from: ..., to: [...]}`: a mail for what happens within a few seconds."""

    type: Literal["email"]
    relay: Annotated[str, AfterValidator(_relay)] = Field(
        description="the SMTP relay: a host, and :port if it needs one"
    )
    sender: Mailbox = Field(alias="from", description="the sender's address")
    to: Annotated[tuple[Mailbox, ...], BeforeValidator(_listed, json_schema_input_type=str | tuple[str, ...])] = Field(
        min_length=1, description="one address, or a list"
    )
    tls: Literal["none", "starttls", "tls"] = Field(
        "none", description="how the relay is spoken to; its usual port is 25, 587 or 465"
    )
    verify: bool = Field(True, strict=True, description="verify the relay's certificate")
    ca_file: AbsolutePath | None = Field(None, description="the authorities to verify by; default: the host's")
    username: str | None = Field(None, description="log in to the relay; needs password_file")
    password_file: AbsolutePath | None = Field(None, description="a file with the password; read each time")
    timeout: Duration = Field(30.0, description="an attempt that takes longer has failed")
    bundle: Duration = Field(5.0, description="what happens within so long after an event goes into the same mail")

    @model_validator(mode="after")
    def _fits(self) -> EmailNotificationSection:
        if (self.username is None) != (self.password_file is None):
            raise ValueError("username and password_file belong together: write both, or none")
        host = parse_relay(self.relay)[0]
        if self.username is not None and self.tls == "none" and host not in {"localhost", "127.0.0.1", "::1"}:
            raise ValueError("the password would go over the network in clear: use `tls: starttls` or `tls: tls`")
        if self.tls == "none" and self.model_fields_set & {"verify", "ca_file"}:
            raise ValueError("verify and ca_file belong to TLS: use `tls: starttls` or `tls: tls`, or remove them")
        return self


AnyNotificationSection = ScriptNotificationSection | WebhookNotificationSection | EmailNotificationSection
NotificationSections = Annotated[AnyNotificationSection, Field(discriminator="type")]


def notification_findings(
    sections: Mapping[str, AnyNotificationSection], virtual_servers: Collection[str]
) -> Iterator[Finding]:
    """What is wrong across sections."""
    for name, section in sections.items():
        for index, each in enumerate(section.virtual_servers):
            if each not in virtual_servers:
                said = f"there is no virtual server {each!r}{suggestion(each, virtual_servers)}"
                yield ("notifications", name, "virtual_servers", index), said


def notifications_of(sections: Mapping[str, AnyNotificationSection]) -> tuple[Notification, ...]:
    """The values of sections that have no findings."""
    return tuple(
        Notification(
            name,
            _receiver(section),
            on=frozenset(section.on),
            virtual_servers=frozenset(section.virtual_servers),
            give_up_s=section.give_up,
        )
        for name, section in sections.items()
    )


def _receiver(section: AnyNotificationSection) -> Receiver:
    if isinstance(section, ScriptNotificationSection):
        return Script(section.command, section.user, section.timeout)
    trust = Trust(section.verify, section.ca_file)
    if isinstance(section, WebhookNotificationSection):
        headers, files = tuple(section.headers.items()), tuple(section.header_files.items())
        return Webhook(section.url, headers, files, section.timeout, trust)
    tls = MailTls(section.tls)
    host, port = parse_relay(section.relay)
    return Mail(
        host,
        port or tls.port,
        section.sender,
        section.to,
        tls,
        section.username,
        section.password_file,
        section.timeout,
        section.bundle,
        trust,
    )
