"""The host's addresses in memory, and a director that only answers.

The kernel's fake stands in tests/contract/fake_kernel.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from director.core.answers import Applied, Planned, Step
from director.core.driftlines import DriftLine
from director.core.explain import Explanation
from director.core.model import ServerRef
from director.core.status import Status
from director.core.vip import Vip
from director.kit.errors import HostError


async def until(is_so: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for a state that nobody announces."""
    async with asyncio.timeout(timeout_s):
        while not is_so():  # noqa: ASYNC110 -- whoever changes it knows nothing of this test
            await asyncio.sleep(0.005)


class FakeAddresses:
    """`held` is what the host has; a Vip in `broken` cannot be added or removed. `log` is told what is done."""

    def __init__(self, log: Callable[[str], None] = lambda said: None) -> None:
        self.held: set[Vip] = set()
        self.broken: set[Vip] = set()
        self.absent: set[str] = set()  # interfaces
        self.log = log

    def present(self, vips: Iterable[Vip]) -> frozenset[Vip]:
        return frozenset(vips) & self.held

    def missing(self, vips: Iterable[Vip]) -> dict[Vip, str]:
        return {vip: f"interface {vip.interface} does not exist" for vip in vips if vip.interface in self.absent}

    def add(self, vip: Vip) -> bool:
        self._touch("add", vip)
        if vip in self.held:
            return False
        self.held.add(vip)
        return True

    def remove(self, vip: Vip) -> bool:
        self._touch("remove", vip)
        if vip not in self.held:
            return False
        self.held.remove(vip)
        return True

    def _touch(self, what: str, vip: Vip) -> None:
        if vip in self.broken:
            raise HostError(f"could not {what} {vip}")
        self.log(f"{what} {vip}")


class FakeAnnouncer:
    """Counts announcements."""

    def __init__(self) -> None:
        self.sent: list[Vip] = []

    def send_once(self, vip: Vip) -> int:
        self.sent.append(vip)
        return 1


EXPLANATION: Explanation = {
    "virtual_server": "web",
    "at": "f:2:3",
    "source": "f",
    "quorum": "held: 1 real server takes connections (held from 1 on, lost below 1)",
    "panic": False,
    "real_servers": [],
}


class Stub:
    """Keeps what it is asked; `error` is raised instead where one is set. `gate` holds `apply` back."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.error: Exception | None = None
        self.applied = Applied()
        self.planned = Planned((Step("+", "virtual server web", "wlc"),))
        self.drifts: tuple[DriftLine, ...] = ()
        self.notes: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()

    def _ask(self, *what: object) -> None:
        self.asked.append(what)
        if self.error is not None:
            raise self.error

    async def status(self) -> Status:
        self._ask("status")
        return {
            "daemon": {
                "pid": 1,
                "namespace": 1,
                "version": "0",
                "config": "f",
                "uptime_s": 0.0,
                "converged": True,
                "failures": [],
                "reload_refused": [],
                "waiting": [],
                "unconfirmed": None,
                "leaving": [],
                "drain_left_s": None,
                "drift": [],
                "drift_repaired": 0,
                "notes": [],
            },
            "virtual_servers": [],
        }

    async def drift(self) -> list[DriftLine]:
        self._ask("drift")
        return list(self.drifts)

    async def plan(self, text: str, source: str) -> Planned:
        self._ask("plan", text, source)
        return self.planned

    async def apply(
        self, text: str, source: str, confirm_s: float | None = None, drain_s: float | None = None
    ) -> Applied:
        self.begun.set()
        await self.gate.wait()
        self._ask("apply", text, source, *(each for each in (confirm_s, drain_s) if each is not None))
        return self.applied

    async def reload(self) -> Applied:
        self._ask("reload")
        return self.applied

    async def confirm(self) -> Applied:
        self._ask("confirm")
        return self.applied

    async def undo(self) -> Applied:
        self._ask("undo")
        return self.applied

    async def drain(self, ref: ServerRef) -> list[str]:
        self._ask("drain", ref)
        return self.notes

    async def enable(self, ref: ServerRef) -> list[str]:
        self._ask("enable", ref)
        return self.notes

    async def maintenance(self, ref: ServerRef, reason: str, for_s: float | None) -> list[str]:
        self._ask("maintenance", ref, reason, for_s)
        return self.notes

    async def explain(self, virtual_server: str, real_server: str | None) -> Explanation:
        self._ask("explain", virtual_server, real_server)
        return EXPLANATION

    async def weight(self, ref: ServerRef, weight: int) -> list[str]:
        self._ask("weight", ref, weight)
        return self.notes
