"""`check: {type: redis}`: PING, and the role if one is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from director.kit.checks.base import File, Tls, TlsSection, Word


@dataclass(frozen=True, slots=True)
class RedisProbe:
    """A Redis server that answers PING with PONG, and has the `role` if one is given.

    `password_file` None: nobody logs in. The password itself stands nowhere but in that file.
    """

    tls: Tls | None = None
    username: str | None = None
    password_file: str | None = None
    role: str | None = None

    def __str__(self) -> str:
        return f"redis PING{f' to a {self.role}' if self.role else ''}{'' if self.tls is None else ' over TLS'}"


class RedisCheckSection(TlsSection):
    """`check: {type: redis, role: master}`: PING, also of Valkey, KeyDB and the like."""

    type: Literal["redis"]
    role: Literal["master", "replica"] | None = Field(None, description="the role that ROLE must tell; default: any")
    username: Word | None = Field(None, description="who logs in (ACL); default: the default user")
    password_file: File | None = Field(None, description="file with the password, alone on its first line")
    tls: bool = Field(False, strict=True, description="speak TLS from the start")

    @model_validator(mode="after")
    def _together(self) -> RedisCheckSection:
        if self.username is not None and self.password_file is None:
            raise ValueError("username is of no use alone: add `password_file:`, the file with the password")
        return self

    def speaks_tls(self) -> bool:
        return self.tls

    def probe(self) -> RedisProbe:
        return RedisProbe(self.tls_of(), self.username, self.password_file, self.role)
