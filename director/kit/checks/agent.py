"""`check: {type: agent}`: HAProxy's agent-check: the server says itself how much it can take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from director.kit.checks.base import StreamSection
from director.kit.checks.payload import Payload


@dataclass(frozen=True, slots=True)
class AgentProbe:
    """An agent that is sent `send`, and answers a line of words such as `up 75%`, `drain` or `down #disk full`."""

    send: bytes = b""

    def __str__(self) -> str:
        return "agent"


class AgentCheckSection(StreamSection):
    """`check: {type: agent, port: 9999}`: HAProxy's agent-check. The agent answers one line and closes.

    `75%` is the share of the weight to use, `drain` and `maint` take the server out, `up` and `ready` bring it back,
    `down`, `failed` and `stopped` say that it is down, why behind a `#`. `maxconn:` is ignored.
    """

    _ends: ClassVar[bool] = True

    type: Literal["agent"]
    send: Payload | None = Field(None, description="what to send first, in single quotes, such as `'web1\\n'`")

    def probe(self) -> AgentProbe:
        return AgentProbe(self.send or b"")
