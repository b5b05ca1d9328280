"""The keys of director.yaml that say how a virtual server goes from verdicts to weights."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from director.core.policy import Hook, OnFailure, OnStart, Policy, Quorum
from director.kit.configfile import Section
from director.kit.duration import Duration
from director.kit.shown import shown


def _command(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{shown(value)} is not a command: write a list, the program's path first; there is no shell")
    for part in value:
        if not isinstance(part, str):
            raise ValueError(f"{shown(part)} in the command is not text: put it in quotes")
    if not value[0].startswith("/"):
        raise ValueError(f"{shown(value[0])} is not a program's path: begin with /")
    return tuple(value)


def _user(value: str) -> str:
    if not re.fullmatch(r"[^\s:/]+", value):
        raise ValueError(f"{shown(value)} is not a user's name: use one that `getent passwd` shows")
    return value


def _share(value: object) -> float:
    match = re.fullmatch(r"([0-9]{1,2})%", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{shown(value)} is not a share: write one such as 50%, 0% to 99%")
    return int(match[1]) / 100


Command = Annotated[
    tuple[str, ...], BeforeValidator(_command), WithJsonSchema({"type": "array", "items": {"type": "string"}})
]
User = Annotated[str, AfterValidator(_user)]
Share = Annotated[float, BeforeValidator(_share), WithJsonSchema({"type": "string", "examples": ["50%"]})]
Servers = Annotated[int, Field(strict=True, ge=1, le=65535)]
StartName = Literal["up", "down", "last"]
FailureName = Literal["inhibit", "remove"]


class HookSection(Section):
    """A program to run: an argument list, without a shell."""

    command: Command = Field(description="the program's path and its arguments")
    user: User = Field("nobody", description="the user it runs as")
    timeout: Duration = Field(10.0, description="it is killed, with all that it started, when it takes longer")

    def hook(self) -> Hook:
        return Hook(self.command, self.user, self.timeout)


class QuorumSection(Section):
    """How many real servers are enough."""

    up: Servers = Field(1, description="quorum is held once so many real servers take connections")
    down: Servers | None = Field(None, description="and lost when fewer than so many do; default: `up`")

    @model_validator(mode="after")
    def _order(self) -> QuorumSection:
        if self.down is not None and self.down > self.up:
            raise ValueError(f"down {self.down} is above up {self.up}: quorum would be lost where it is held; lower it")
        return self


class PolicySection(Section):
    """The keys that `defaults` have, too."""

    on_start: StartName | None = Field(
        None,
        description="what a new real server counts as until its first verdict; last: as the director last knew it, and "
        "where it never did, it waits while others serve; default: `defaults.on_start`, or last",
    )
    on_failure: FailureName | None = Field(
        None,
        description="a real server that is down gets weight 0 (inhibit) or leaves the table (remove); default: "
        "`defaults.on_failure`, or inhibit",
    )
    slow_start: Duration | None = Field(
        None, description="time in which a recovered real server comes back to its whole weight; default: at once"
    )
    panic_threshold: Share | None = Field(
        None,
        description="when more than this share of the real servers is down, the probes are not trusted and all are "
        "used; default: never",
    )


def policy(
    own: PolicySection,
    defaults: PolicySection,
    quorum: QuorumSection | None,
    quorum_up: HookSection | None,
    quorum_down: HookSection | None,
) -> Policy:
    """What a virtual server's keys amount to over those of `defaults`."""
    panic = own.panic_threshold if own.panic_threshold is not None else defaults.panic_threshold
    quorum = quorum or QuorumSection()
    return Policy(
        on_start=OnStart(own.on_start or defaults.on_start or "last"),
        on_failure=OnFailure(own.on_failure or defaults.on_failure or "inhibit"),
        quorum=Quorum(
            quorum.up,
            quorum.down or quorum.up,
            quorum_up.hook() if quorum_up else None,
            quorum_down.hook() if quorum_down else None,
        ),
        panic_share=panic,
        slow_start_s=own.slow_start or defaults.slow_start or 0.0,
    )
