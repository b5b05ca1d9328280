"""`check: {type: udp}`: a datagram, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from director.kit.checks.base import NetworkSection
from director.kit.checks.payload import Payload
from director.kit.pattern import compile_pattern


@dataclass(frozen=True, slots=True)
class UdpProbe:
    """A datagram with `send`, answered by one that begins with `begins` and matches `pattern` (RE2; None: any).

    `silence_ok`: no answer within the timeout is a success, as long as no ICMP error comes.
    """

    send: bytes
    pattern: str | None = None
    begins: bytes = b""
    silence_ok: bool = False

    def __str__(self) -> str:
        return "udp"


class UdpCheckSection(NetworkSection):
    """`check: {type: udp, send: 'PING\\r\\n', expect: PONG}`: a datagram, and what comes back.

    It is sent again after half of the timeout, since networks lose datagrams. An ICMP error (port unreachable) is a
    failure at once. Silence is one, too: a host that is dead or cut off is as silent as a server that never answers;
    with `silence: up` only ICMP errors and wrong replies are failures.
    """

    over: ClassVar[Literal["tcp", "udp"] | None] = "udp"

    type: Literal["udp"]
    send: Payload = Field(description="bytes to send, in single quotes, with the escapes `\\r \\n \\t \\0 \\\\ \\xNN`")
    expect: str | None = Field(None, description="a regular expression (RE2) that the reply must match somewhere")
    expect_bytes: Payload | None = Field(None, description="bytes that the reply must begin with, written as in send")
    silence: Literal["up", "down"] = Field("down", description="what no reply within the timeout means")

    @field_validator("expect")
    @classmethod
    def _expect(cls, value: str | None) -> str | None:
        if value is not None:
            compile_pattern(value)
        return value

    def probe(self) -> UdpProbe:
        return UdpProbe(self.send, self.expect, self.expect_bytes or b"", self.silence == "up")
