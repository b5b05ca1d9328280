"""`check: {type: tcp}`: a connection that is accepted, and what is said on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field, field_validator, model_validator

from director.kit.checks.base import Tls, TlsSection
from director.kit.checks.payload import Payload
from director.kit.pattern import compile_pattern


@dataclass(frozen=True, slots=True)
class TcpProbe:
    """A TCP connection that is accepted, and answers with what begins with `begins` and matches `pattern` (RE2).

    None and no bytes: no answer is expected, and the connection alone decides.
    """

    tls: Tls | None = None
    send: bytes = b""
    pattern: str | None = None
    begins: bytes = b""

    def __str__(self) -> str:
        return "tcp" if self.tls is None else "tls"


class TcpCheckSection(TlsSection):
    """`check: {type: tcp}`; `check: {type: tcp, send: 'PING\\r\\n', expect: '^\\+PONG'}` sends and listens.

    What comes is compared as it comes, up to 64 KiB of it. A pattern with `$`, `\\b` or `\\z` is compared with each
    line of it, since before a line's end there is no telling.
    """

    type: Literal["tcp"]
    send: Payload | None = Field(
        None, description="bytes to send, in single quotes, with the escapes `\\r \\n \\t \\0 \\\\ \\xNN`"
    )
    expect: str | None = Field(None, description="a regular expression (RE2) that the answer must match somewhere")
    expect_bytes: Payload | None = Field(None, description="bytes that the answer must begin with, written as in send")
    tls: bool = Field(False, strict=True, description="speak TLS from the start")

    @field_validator("expect")
    @classmethod
    def _expect(cls, value: str | None) -> str | None:
        if value is not None:
            compile_pattern(value)
        return value

    @model_validator(mode="after")
    def _together(self) -> TcpCheckSection:
        if self.send is not None and self.expect is None and self.expect_bytes is None:
            raise ValueError("send shows nothing by itself: add `expect:`, what the server answers, or remove it")
        return self

    def speaks_tls(self) -> bool:
        return self.tls

    def probe(self) -> TcpProbe:
        return TcpProbe(self.tls_of(), self.send or b"", self.expect, self.expect_bytes or b"")
