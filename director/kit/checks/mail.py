"""`check: {type: smtp}`, `imap` and `pop3`: a greeting, a polite word or two, and TLS where it is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from director.kit.checks.base import Tls, TlsSection, is_name


class MailProtocol(Enum):
    """What a mail server speaks."""

    SMTP = "smtp"
    IMAP = "imap"
    POP3 = "pop3"


@dataclass(frozen=True, slots=True)
class MailProbe:
    """A mail server that greets, and takes leave. `starttls`: `tls` begins after the greeting, not before it.

    `name` is what an SMTP server is greeted with.
    """

    protocol: MailProtocol
    tls: Tls | None = None
    starttls: bool = False
    name: str = "localhost"

    def __str__(self) -> str:
        return f"{self.protocol.value}{'' if self.tls is None else ' with STARTTLS' if self.starttls else ' over TLS'}"


class _MailSection(TlsSection):
    _ends: ClassVar[bool] = True
    _without_tls: ClassVar[str] = "add `tls: starttls` (or `tls: tls`, where TLS comes before the greeting)"

    tls: Literal["none", "starttls", "tls"] = Field(
        "none", description="starttls: begin TLS after the greeting; tls: before it; none: clear text"
    )

    def speaks_tls(self) -> bool:
        return self.tls != "none"

    def _probe(self, protocol: MailProtocol, name: str = "localhost") -> MailProbe:
        return MailProbe(protocol, self.tls_of(), self.tls == "starttls", name)


class SmtpCheckSection(_MailSection):
    """`check: {type: smtp, tls: starttls}`: greeting, EHLO, STARTTLS if that is wanted, QUIT. No mail is sent."""

    type: Literal["smtp"]
    name: str = Field("localhost", description="the name to say EHLO with")

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not is_name(value):
            raise ValueError(f"{value!r} is not a host name: use letters, digits, dots and hyphens")
        return value

    def probe(self) -> MailProbe:
        return self._probe(MailProtocol.SMTP, self.name)


class ImapCheckSection(_MailSection):
    """`check: {type: imap}`: greeting, STARTTLS if that is wanted, LOGOUT. Nobody logs in."""

    type: Literal["imap"]

    def probe(self) -> MailProbe:
        return self._probe(MailProtocol.IMAP)


class Pop3CheckSection(_MailSection):
    """`check: {type: pop3}`: greeting, STLS if that is wanted, QUIT. Nobody logs in."""

    type: Literal["pop3"]

    def probe(self) -> MailProbe:
        return self._probe(MailProtocol.POP3)
