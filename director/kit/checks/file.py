"""`check: {type: file}`: the first line of a file decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from director.kit.checks.base import TimingSection
from director.kit.checks.placeholders import needs_port
from director.kit.shown import shown

Missing = Literal["up", "down", "keep"]


@dataclass(frozen=True, slots=True)
class FileProbe:
    """The first line of the file at `path`, which may have placeholders; `missing` is what no such file means."""

    path: str
    missing: Missing = "down"

    def __str__(self) -> str:
        return f"file {self.path}"


class FileCheckSection(TimingSection):
    """`check: {type: file, path: "/run/lb/{address}"}`: `up`, `down`, `drain`, `maint`, a weight `N` or a share `N%`.

    A reason may follow `up`, `down`, `drain` and `maint`. A change is noticed at once, and otherwise at the interval
    (as on network file systems). One look is enough: `rise` and `fall` are 1 unless they are written here. Write a new
    file and rename it over the old one: then no half of a line is ever read. What is no verdict (another word, a
    directory, a pipe, more than 4 KiB, a file that may not be read) is a failure that says so, except with
    `missing: keep`.
    """

    measured: ClassVar[bool] = False

    type: Literal["file"]
    path: Annotated[str, Field(max_length=4000)] = Field(
        description="absolute path; `{address}` and `{port}` in it are the real server's"
    )
    missing: Missing = Field(
        "down",
        description="what no such file means: down, up, or keep what was last known; keep holds whenever there is no "
        "verdict to be had, and the log tells why",
    )

    @field_validator("path")
    @classmethod
    def _path(cls, value: str) -> str:
        if not value.startswith("/") or "\0" in value:
            raise ValueError(f"{shown(value)} is not an absolute path: write the whole path, beginning with /")
        return value

    @property
    def needs_port(self) -> bool:
        return needs_port(self.path)

    def probe(self) -> FileProbe:
        return FileProbe(self.path, self.missing)
