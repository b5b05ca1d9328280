"""`check: {type: postgresql}`: the start of a session, as far as a password would be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from director.kit.checks.base import Tls, TlsSection, Word


@dataclass(frozen=True, slots=True)
class PostgresqlProbe:
    """A PostgreSQL server that takes sessions: it lets `user` in, or asks for a password, or says why not him."""

    tls: Tls | None = None
    user: str = "director"
    database: str = "postgres"

    def __str__(self) -> str:
        return f"postgresql{'' if self.tls is None else ' over TLS'}"


class PostgresqlCheckSection(TlsSection):
    """`check: {type: postgresql}`: what pg_isready does. Nobody logs in, and no such user or database need exist.

    A server that is starting up, shutting down or full is not ready.
    """

    _ends: ClassVar[bool] = True

    type: Literal["postgresql"]
    user: Word = Field("director", description="who asks; it need not exist")
    database: Word = Field("postgres", description="the database that is asked for; it need not exist")
    tls: bool = Field(False, strict=True, description="ask for TLS first (sslmode=require)")

    def speaks_tls(self) -> bool:
        return self.tls

    def probe(self) -> PostgresqlProbe:
        return PostgresqlProbe(self.tls_of(), self.user, self.database)
