"""What a reconciliation is decided by, whom it asks, and what came of it.

One rule: these are values and small interfaces; who decides and who acts is in `reconcile.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from director.core.answers import Step
from director.core.diff import Change
from director.core.drift import Drift
from director.core.model import Config, ServerRef
from director.core.plan import Plan
from director.core.removal import Removal
from director.core.serving import Known, Serving, serving
from director.core.standing import Correction, Standing
from director.core.steps import Account
from director.core.table import Foreign, Reading, Table, TableCounters
from director.core.vip import Vip
from director.core.weight import Weight, Wish
from director.kit.health import HealthState, ProbeResult, Status


class Refusal(Protocol):
    """One change that the kernel did not make."""

    @property
    def change(self) -> Change: ...
    @property
    def reason(self) -> str: ...
    @property
    def is_stale(self) -> bool: ...


class Kernel(Protocol):
    """The IPVS table of this network namespace."""

    def read(self) -> tuple[Table, TableCounters]: ...
    def survey(self) -> Reading: ...
    def write(self, changes: Iterable[Change]) -> Iterable[Refusal]: ...


class Addresses(Protocol):
    """The host's addresses."""

    def present(self, vips: Iterable[Vip]) -> frozenset[Vip]: ...
    def add(self, vip: Vip) -> bool: ...
    def remove(self, vip: Vip) -> bool: ...
    def missing(self, vips: Iterable[Vip]) -> Mapping[Vip, str]: ...


class Surroundings(Protocol):
    """What the host has around the table for it: settings, and rules in the packet filter.

    `release`: what nothing needs any more goes, too.
    """

    def pending(self, config: Config, *, release: bool) -> tuple[Correction, ...]: ...
    def enforce(self, config: Config, *, release: bool) -> Corrected: ...
    def standing(self) -> Standing: ...
    def put_back(self, standing: Standing) -> Corrected: ...


class Corrected(Protocol):
    """What was changed, to be printed, and in sentences what could not be."""

    @property
    def changes(self) -> Iterable[object]: ...
    @property
    def failures(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything a decision is made of, besides the kernel's own state.

    `thorough`: also a look at what is around the table, which takes its time. `ready` names the virtual servers
    whose address may be raised. `former` is the configuration before, which knows the names of what leaves. `agreed`
    is the table as this director last left it, None for whoever makes all of it agree, whatever others have changed.
    `probed`: verdicts are to come; `now` is monotonic. `presumed`, `loads`, `silent` and `quorate`: see
    `Known`.
    """

    config: Config
    health: Mapping[ServerRef, HealthState] = field(default_factory=dict)
    wishes: Mapping[ServerRef, Wish] = field(default_factory=dict)
    adopted: Mapping[ServerRef, int] = field(default_factory=dict)
    unproven: frozenset[ServerRef] = frozenset()
    ready: frozenset[str] = frozenset()
    removal: Removal = Removal.AT_ONCE
    former: Config | None = None
    thorough: bool = True
    agreed: Table | None = None
    probed: bool = True
    presumed: Mapping[ServerRef, Status] = field(default_factory=dict)
    loads: Mapping[ServerRef, ProbeResult] = field(default_factory=dict)
    silent: Mapping[ServerRef, str] = field(default_factory=dict)
    quorate: Mapping[str, bool] = field(default_factory=dict)
    now: float = 0.0
    _serving: Serving | None = field(default=None, init=False, repr=False, compare=False)

    def serving(self) -> Serving:
        """Who serves, and why."""
        if self._serving is None:
            known = Known(
                *(self.health, self.wishes, self.adopted, self.unproven, self.presumed, self.loads, self.quorate),
                *(self.now, self.probed, self.silent),
            )
            object.__setattr__(self, "_serving", serving(self.config, known))
        assert self._serving is not None  # noqa: S101 -- narrows the type
        return self._serving

    def weights(self) -> Mapping[ServerRef, Weight]:
        return self.serving().weights


@dataclass(frozen=True, slots=True)
class Observation:
    """The kernel's state at one moment."""

    table: Table
    counters: TableCounters
    vips: frozenset[Vip]
    foreign: tuple[Foreign, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a reconciliation did; `observed` is the state afterwards, `plan` what is still to do then.

    `failures` are sentences for an operator; so is `waiting`, what a later look will do and this one could not.
    `drifts` are what somebody else had changed, `agreed` is for the next look's `Inputs`.
    """

    converged: bool
    account: Account
    failures: tuple[str, ...]
    waiting: tuple[str, ...]
    observed: Observation
    plan: Plan
    drifts: tuple[Drift, ...] = ()
    agreed: Table = field(default_factory=Table)

    @property
    def steps(self) -> tuple[Step, ...]:
        """What was done, as lines; they are made when they are asked for."""
        return self.account.steps()
