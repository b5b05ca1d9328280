"""The running director: builds the parts and keeps them in one task group.

One rule: API, signals and probes change inputs and wake the loop; only the loop writes. It ends by
leaving the kernel as it is: a stopped director keeps forwarding.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from director.api.server import serve
from director.core import status
from director.core.config import parse_config
from director.core.desired import adopted_weights
from director.core.model import Config, ServerRef
from director.core.plan import Step, steps
from director.core.vip import Vip
from director.host import addresses
from director.host.announce import Announcer
from director.host.lockfile import NamespaceLock
from director.ipvs.client import IpvsClient
from director.kit.configfile import InvalidConfigError, read_text
from director.kit.errors import ConfigError, DirectorError
from director.memory import Memory
from director.monitor import Monitor
from director.overrides import Overrides
from director.reconcile import Inputs, Outcome, Reconciler

log = logging.getLogger(__name__)

ANNOUNCEMENTS = 5  # keepalived: vrrp_garp_master_repeat
ANNOUNCE_EVERY_S = 1.0
RETRY_AFTER_S = 1.0


class Daemon:
    """One director of one network namespace. `socket_path` is where its API listens."""

    def __init__(self, config_path: Path, config: Config, kernel: IpvsClient, state_directory: Path) -> None:
        self._config_path = config_path
        self._config = config
        self._started_at = time.monotonic()
        self._woken = asyncio.Event()
        self._stopped = asyncio.Event()
        self._announcer = Announcer()
        self._announce_left: dict[Vip, int] = {}
        self._overrides = Overrides(state_directory)
        self._reconciler = Reconciler(kernel, addresses, Memory(state_directory), self._begin_announcing)
        self._monitor = Monitor(self._woken.set)
        self._adopted: dict[ServerRef, int] = {}
        self._writing = asyncio.Lock()
        self._last: Outcome | None = None
        self._pending_reload: Config | None = None

    async def run(self, socket_path: Path) -> None:
        """Work until SIGTERM or SIGINT. Raises: DirectorError when it cannot begin."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopped.set)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        await self._take(self._config)
        outcome = await self._reconcile()
        if outcome.failures:
            log.warning("began with failures", extra={"count": len(outcome.failures)})
        async with serve(self, socket_path), asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._loop(), name="reconcile"),
                group.create_task(self._monitor.run(), name="probes"),
                group.create_task(self._announce_loop(), name="announce"),
            ]
            log.info("director is running", extra={"config": str(self._config_path), "socket": str(socket_path)})
            await self._stopped.wait()
            for task in tasks:
                task.cancel()
        log.info("director stops; the kernel keeps forwarding")

    # What the API, signals and the monitor ask for.

    async def apply(self, text: str, source: str) -> list[Step]:
        """Use the configuration in `text` from now on. Raises: InvalidConfigError, and then nothing has changed."""
        config = parse_config(text, source)
        await self._take(config)
        outcome = await self._reconcile()
        log.info("configuration is in force", extra={"config": source, "steps": len(outcome.steps)})
        if outcome.failures:
            raise DirectorError("\n".join(outcome.failures))
        return list(outcome.steps)

    async def plan(self, text: str, source: str) -> list[Step]:
        """What `apply` would change. Raises: InvalidConfigError."""
        config = parse_config(text, source)
        async with self._writing:
            observed = await asyncio.to_thread(self._reconciler.observe, config)
            inputs = replace(self._inputs(config), adopted=adopted_weights(config, observed.table))
            plan = self._reconciler.plan(inputs, observed)
        return steps(plan, config, inputs.weights())

    async def drain(self, ref: ServerRef) -> None:
        """Raises: ConfigError for a server that is not in force; HostError when it cannot be saved."""
        self._known(ref)
        self._overrides.drain(ref)
        await self._operator_changed("drained", ref)

    async def enable(self, ref: ServerRef) -> None:
        """Raises: as `drain`."""
        self._known(ref)
        self._overrides.enable(ref)
        await self._operator_changed("enabled", ref)

    async def weight(self, ref: ServerRef, weight: int) -> None:
        """Raises: as `drain`."""
        self._known(ref)
        self._overrides.weight(ref, weight)
        await self._operator_changed("weight set", ref)

    async def status(self) -> status.Status:
        """A fresh look at the kernel beside what is known. Raises: KernelError."""
        inputs = self._inputs(self._config)
        async with self._writing:
            seen = await asyncio.to_thread(self._reconciler.observe, self._config)
        return {
            "daemon": {
                "pid": os.getpid(),
                "version": version("lvs-director"),
                "config": str(self._config_path),
                "uptime_s": round(time.monotonic() - self._started_at, 3),
                "converged": self._last is not None and self._last.converged,
                "failures": list(self._last.failures) if self._last else [],
            },
            "virtual_servers": status.virtual_servers(
                self._config,
                seen.table,
                seen.counters,
                seen.vips,
                inputs.weights(),
                inputs.health,
                inputs.wishes,
                time.monotonic(),
            ),
        }

    def _known(self, ref: ServerRef) -> None:
        if self._config.find(ref) is None:
            known = ", ".join(str(vs.ref(rs)) for vs in self._config.virtual_servers for rs in vs.real_servers)
            raise ConfigError(f"no real server {ref} in the configuration in force: use one of {known}")

    async def _operator_changed(self, what: str, ref: ServerRef) -> None:
        log.info("operator: %s", what, extra={"vs": ref.virtual_server, "rs": ref.real_server})
        outcome = await self._reconcile()
        if outcome.failures:
            raise DirectorError("\n".join(outcome.failures))

    def _on_hangup(self) -> None:
        try:
            config = parse_config(read_text(self._config_path), str(self._config_path))
        except InvalidConfigError as error:
            for line in error.lines():
                log.error("reload refused, the old configuration stays", extra={"problem": line})
            return
        self._pending_reload = config
        self._woken.set()

    # The loop.

    async def _loop(self) -> None:
        while True:
            outcome = self._last
            wait_s = self._config.drift_interval_s
            deadline_s = self._monitor.next_deadline_s()
            if deadline_s is not None:
                wait_s = min(wait_s, deadline_s)
            if outcome is None or not outcome.converged:
                wait_s = min(wait_s, RETRY_AFTER_S)
            try:
                async with asyncio.timeout(wait_s):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()
            try:
                if self._pending_reload is not None:
                    config, self._pending_reload = self._pending_reload, None
                    await self._take(config)
                    log.info("reloaded", extra={"config": str(self._config_path)})
                await self._reconcile()
            except DirectorError as error:
                self._last = None
                log.error("could not reconcile, trying again", extra={"reason": str(error)})

    async def _take(self, config: Config) -> None:
        """Make `config` the one in force, with the kernel's weights for servers that await a verdict."""
        async with self._writing:
            self._adopted = await asyncio.to_thread(self._reconciler.adopted, config)
            self._config = config
            self._monitor.watch(config)

    async def _reconcile(self) -> Outcome:
        async with self._writing:
            # In a thread: netlink answers in milliseconds, but a large table or a busy kernel takes longer.
            self._last = await asyncio.to_thread(self._reconciler.reconcile, self._inputs(self._config))
        return self._last

    def _inputs(self, config: Config) -> Inputs:
        health = self._monitor.health(config)
        return Inputs(config, health, self._overrides.wishes, self._adopted, self._monitor.ready())

    def _begin_announcing(self, vip: Vip) -> None:
        self._announce_left[vip] = ANNOUNCEMENTS
        self._announce(vip)

    async def _announce_loop(self) -> None:
        while True:
            await asyncio.sleep(ANNOUNCE_EVERY_S)
            for vip in list(self._announce_left):
                self._announce(vip)

    def _announce(self, vip: Vip) -> None:
        try:
            self._announcer.send_once(vip)
        except DirectorError as error:
            log.warning("could not announce", extra={"vip": str(vip), "reason": str(error)})
        self._announce_left[vip] -= 1
        if self._announce_left[vip] <= 0:
            del self._announce_left[vip]


def run(config_path: Path, socket_path: Path, state_directory: Path) -> None:
    """Run a director until it is told to stop.

    Raises: DirectorError when it cannot begin, and then nothing has changed.
    """
    config = parse_config(read_text(config_path), str(config_path))
    with NamespaceLock(f"director run {config_path}"), IpvsClient.open() as kernel:
        asyncio.run(Daemon(config_path, config, kernel, state_directory).run(socket_path))
