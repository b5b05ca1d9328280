"""What is asked of a running director, by its API: each request is one decision about inputs, and its outcome.

One rule: nothing here writes to the kernel; `control` does, and what it raises is the answer.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from importlib.metadata import version

from director.api.asking import asked_by
from director.control import Control
from director.core import status
from director.core.answers import Applied, Planned
from director.core.config import parse_config
from director.core.desired import adopted_weights
from director.core.driftlines import DriftLine, drift_lines
from director.core.event import Event, EventKind
from director.core.explain import Asked, Explanation, explain
from director.core.foreign import notes
from director.core.model import ServerRef, VirtualServer
from director.core.steps import Names
from director.kit.collector import paused
from director.kit.errors import ConfigError, DirectorError
from director.kit.schemawalk import suggestion
from director.kit.yamltree import places_in
from director.overrides import Overrides
from director.reloading import Reloading
from director.resolution import Resolution

log = logging.getLogger(__name__)


class Requests:
    """The operations of a director that manages network namespace `namespace` (its inode)."""

    def __init__(
        self,
        control: Control,
        overrides: Overrides,
        namespace: int,
        resolution: Resolution,
        reloading: Reloading,
        tell: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self._resolution = resolution
        self._reloading = reloading
        self._tell = tell
        self._control = control
        self._overrides = overrides
        self._namespace = namespace
        self._started_at = time.monotonic()

    async def apply(
        self, text: str, source: str, confirm_s: float | None = None, drain_s: float | None = None
    ) -> Applied:
        """Use the configuration in `text` from now on.

        Raises: InvalidConfigError, and NotAppliedError when a part failed; then nothing has changed.
        """
        # In a thread: a large file takes seconds to parse, and probes would time out meanwhile.
        config = await asyncio.to_thread(parse_config, text, source, self._resolution.names.look_up)
        applied = await self._control.change(config, source, text, confirm_s, drain_s)
        self._reloading.refused = ()
        return applied

    async def plan(self, text: str, source: str) -> Planned:
        """What `apply` would change. Raises: InvalidConfigError."""
        config = await asyncio.to_thread(parse_config, text, source, self._resolution.names.look_up)
        async with self._control.writing:
            return await self._control.preview(config)

    async def drift(self) -> list[DriftLine]:
        """What somebody else has changed in the kernel, and not been put right yet. Raises: KernelError."""
        async with self._control.writing:
            config, inputs = self._control.config, self._control.inputs()
            plan = await self._control.plan(inputs, await self._control.observe(config))
        return drift_lines(plan.drifts, config)

    async def reload(self) -> Applied:
        """Take the director's own file as it is now. Raises: as `apply`."""
        return await self._reloading.reload()

    async def confirm(self) -> Applied:
        """Keep what was applied. Raises: ConfigError when nothing awaits it."""
        return await self._control.confirm()

    async def undo(self) -> Applied:
        """Take it back. Raises: ConfigError when nothing awaits confirmation."""
        return await self._control.undo()

    async def drain(self, ref: ServerRef) -> list[str]:
        """Sentences about what that means. Raises: ConfigError for a server not in force; HostError if not saved."""
        self._known(ref)
        await self._control.on_worker(lambda: self._overrides.drain(ref))
        return await self._operator_changed("drained", ref)

    async def enable(self, ref: ServerRef) -> list[str]:
        """Undo all three, also for a server that is no longer in force and has a wish left. Otherwise as `drain`."""
        if ref not in self._overrides.wishes:
            self._known(ref)
        await self._control.on_worker(lambda: self._overrides.enable(ref))
        return await self._operator_changed("enabled", ref)

    async def weight(self, ref: ServerRef, weight: int) -> list[str]:
        """As `drain`."""
        self._known(ref)
        await self._control.on_worker(lambda: self._overrides.weight(ref, weight))
        return await self._operator_changed(f"weight set to {weight}", ref)

    async def status(self) -> status.Status:
        """A fresh look at the kernel beside what is known. Raises: KernelError."""
        control = self._control
        async with control.writing:
            force, pending, last = control.force, control.unconfirmed, control.last
            inputs = control.inputs()
            seen = await control.observe(force.config)
            plan = await control.plan(inputs, seen)
            agrees = control.converged and not plan.acts
        failures = [*([control.trouble] if control.trouble else []), *(last.failures if last else ())]
        now, repaired, troubles = time.monotonic(), control.drift.repaired.copy(), control.troubles()
        unserved = [f"metrics are not served: {control.metrics.trouble}"] if control.metrics.trouble else []
        more = [*([control.undone] if control.undone else []), *self._resolution.notes(), *unserved]
        refused = list(self._reloading.refused)

        def tell() -> status.Status:
            names = Names.of(force.config, force.former) if plan.leaving else Names({}, {}, {})
            drift = status.DriftStatus(drift_lines(plan.drifts, force.config), repaired)
            return {
                "daemon": {
                    "pid": os.getpid(),
                    "namespace": self._namespace,
                    "version": version("lvs-director"),
                    "config": force.source,
                    "uptime_s": round(now - self._started_at, 3),
                    "converged": agrees,
                    "failures": failures,
                    "reload_refused": refused,
                    "waiting": list(last.waiting) if last else [],
                    "unconfirmed": {"until": pending.until, "left_s": round(pending.until_at - now, 3)}
                    if pending
                    else None,
                    "leaving": [
                        {"name": names.leaving(each), "connections": each.connections} for each in plan.leaving
                    ],
                    "drift": drift.sentences(""),
                    "drift_repaired": drift.repaired.total(),
                    "notes": [*notes(seen.foreign, plan.in_the_way, force.config.exclusive), *more],
                    "drain_left_s": round(force.drain_until_at - now, 3) if force.drain_until_at is not None else None,
                },
                "virtual_servers": status.virtual_servers(
                    force.config,
                    seen.table,
                    seen.counters,
                    seen.vips,
                    inputs.serving(),
                    inputs.health,
                    inputs.wishes,
                    now,
                    drift,
                    troubles,
                ),
            }

        # In a thread: with thousands of real servers it takes longer than a probe may be late.
        return await asyncio.to_thread(paused()(tell))

    async def maintenance(self, ref: ServerRef, reason: str, for_s: float | None) -> list[str]:
        """As `drain`; until `for_s` have passed, or for good."""
        self._known(ref)
        await self._control.on_worker(lambda: self._overrides.maintenance(ref, reason, for_s))
        return await self._operator_changed("in maintenance", ref)

    async def explain(self, virtual_server: str, real_server: str | None) -> Explanation:
        """Why every weight is what it is. Raises: ConfigError for a name that is not in force; KernelError."""
        control = self._control
        virtual = self._named(virtual_server, real_server)
        async with control.writing:
            force, inputs = control.force, control.inputs()
            seen = await control.observe(force.config)
        places = await asyncio.to_thread(places_in, force.text, force.source)
        asked = Asked(
            serving=inputs.serving(),
            health=inputs.health,
            wishes=inputs.wishes,
            kernel=adopted_weights(force.config, seen.table),
            probing=control.probing,
            places=places,
            source=force.source,
            now=time.monotonic(),
            clock=time.time(),
            names=self._resolution.names.known,
        )
        return explain(virtual, asked, real_server)

    def _named(self, virtual_server: str, real_server: str | None) -> VirtualServer:
        virtuals = self._control.config.virtual_servers
        virtual = next((each for each in virtuals if each.name == virtual_server), None)
        if virtual is None or real_server is not None:
            self._known(ServerRef(virtual_server, real_server or ""))
        assert virtual is not None  # noqa: S101 -- what is not known was refused
        return virtual

    def _known(self, ref: ServerRef) -> None:
        config = self._control.config
        if config.find(ref) is not None:
            return
        servers = {vs.name: [real.name for real in vs.real_servers] for vs in config.virtual_servers}
        if ref.virtual_server in servers:
            what = f"virtual server {ref.virtual_server!r} has no real server {ref.real_server!r}"
            known = suggestion(ref.real_server, servers[ref.virtual_server])
        else:
            what = f"no virtual server {ref.virtual_server!r} in the configuration in force"
            known = suggestion(ref.virtual_server, servers)
        raise ConfigError(what + (known if any(servers.values()) else ""))

    async def _operator_changed(self, what: str, ref: ServerRef) -> list[str]:
        by = f"asked by {asked_by()}" if asked_by() else ""
        log.info("operator: %s", what, extra={"vs": ref.virtual_server, "rs": ref.real_server})
        self._tell(Event(time.time(), EventKind.WISH, *(ref.virtual_server, ref.real_server), now=what, reason=by))
        try:
            async with self._control.writing:
                outcome = await self._control.settle()
        except DirectorError as error:
            raise DirectorError(f"{ref}: {what} and saved, but this has not reached the kernel yet: {error}") from error
        found = self._control.config.find(ref)
        if found is None:
            return []
        virtual, real = found
        config, weights = self._control.config, self._control.inputs().weights()
        table = outcome.observed.table
        reached = all(
            (row.weight if (row := status.found(table, place)) is not None else None)
            == status.due_weight(config, virtual, place, weights[ref])
            for place in virtual.placements
            if place.real is real
        )
        # What failed elsewhere is no answer to this request; `status` shows it.
        if outcome.failures and not reached:
            raise DirectorError("\n".join(outcome.failures))
        serving = self._control.inputs().serving()
        if virtual.sorry is not None and not serving.standings[virtual.name].quorate:
            return [f"quorum of {virtual.name} is lost now: its sorry server serves"]
        if any(weights[each].value for each in virtual.refs):
            return []
        return [f"no real server of {virtual.name} takes connections now"]
