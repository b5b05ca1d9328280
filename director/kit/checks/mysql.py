"""`check: {type: mysql}`: the handshake of MySQL and MariaDB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from director.kit.checks.base import StreamSection, Word


@dataclass(frozen=True, slots=True)
class MysqlProbe:
    """A MySQL or MariaDB server that takes sessions: it lets `user` in, or asks for a password, or says why not him."""

    user: str = "director"

    def __str__(self) -> str:
        return "mysql"


class MysqlCheckSection(StreamSection):
    """`check: {type: mysql}`: the handshake of MySQL and MariaDB, with a login that may fail.

    A handshake that is broken off would count towards max_connect_errors and get this host blocked, so `user` logs in,
    without a password. A user that may nothing keeps the server's log free of refused logins:
    `CREATE USER director@'10.0.0.%'`.
    """

    _ends: ClassVar[bool] = True

    type: Literal["mysql"]
    user: Annotated[Word, Field(max_length=80)] = Field("director", description="who logs in; it need not exist")

    def probe(self) -> MysqlProbe:
        return MysqlProbe(self.user)
