"""`check: {type: script}`: a program of the operator's decides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, field_validator

from director.kit.checks.base import TimingSection
from director.kit.checks.placeholders import needs_port
from director.kit.shown import shown

Word = Annotated[str, Field(max_length=4096)]


@dataclass(frozen=True, slots=True)
class ScriptProbe:
    """`command` is run as `user` (None: nobody); its words but the first may have placeholders."""

    command: tuple[str, ...] = field(repr=False)  # arguments may hold secrets
    user: str | None = None

    def __str__(self) -> str:
        return f"script {self.command[0]}"


class ScriptCheckSection(TimingSection):
    """`check: {type: script, command: [/usr/local/bin/check-it, "{address}"]}`: exit code 0 is good, any other is not.

    No shell reads the command. It is run as an unprivileged user, in a process group of its own that is killed at the
    timeout and when it has ended. In its words but the first, `{address}` and `{port}` are the real server's; so are
    `DIRECTOR_ADDRESS` and `DIRECTOR_PORT` in its environment. A first line on standard output is shown as the reason,
    and a line `weight N` (0 to 65535) or `N%` (0 to 100) sets the server's weight, or the share of it to use.
    """

    type: Literal["script"]
    command: Annotated[tuple[Word, ...], Field(min_length=1, max_length=64)] = Field(
        description="the program's absolute path, and its arguments: a list"
    )
    user: Annotated[str, Field(min_length=1, max_length=32)] | None = Field(
        None, description="who it is run as; default: nobody"
    )

    @field_validator("command")
    @classmethod
    def _command(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value[0].startswith("/"):
            raise ValueError(f"{shown(value[0])} is not an absolute path: write the program's whole path")
        return value

    @property
    def needs_port(self) -> bool:
        return needs_port(*self.command[1:])

    def probe(self) -> ScriptProbe:
        return ScriptProbe(self.command, self.user)
