"""What the director keeps around its table: settings of the host and rules of its packet filter, as plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Correction:
    """One of them that is to become different: what, from what to what and why, and what else that does."""

    subject: str
    detail: str
    effect: str = ""

    @property
    def is_setting(self) -> bool:
        """Whether it is a setting of the host, and not a rule."""
        return self.subject.startswith("setting ")


@dataclass(frozen=True, slots=True)
class KeptSetting:
    """A setting by its sysctl name: what it was before us, and what we made it."""

    name: str
    before: str
    ours: str


@dataclass(frozen=True, slots=True)
class KeptRules:
    """What our chain in `table` holds for IP `version` 4 or 6, a line each."""

    version: int
    table: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """All of it at one moment: putting this back leaves the host as it was then."""

    settings: tuple[KeptSetting, ...] = ()
    rules: tuple[KeptRules, ...] = ()
