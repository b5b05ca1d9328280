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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from director.advice import advice
from director.announcements import Announcements, Announces
from director.api.server import listening, serve
from director.core import status
from director.core.config import parse_config
from director.core.desired import adopted_weights, unproven_servers
from director.core.model import Config, ServerRef
from director.core.steps import Applied, Step, steps
from director.host import addresses
from director.host.announce import Announcer
from director.host.changes import Changes, HostChanges, woken_by
from director.host.lockfile import NamespaceLock, StateLock, namespace_inode
from director.ipvs.client import IpvsClient
from director.kit.configfile import InvalidConfigError, read_text
from director.kit.errors import ConfigError, DirectorError
from director.kit.schemawalk import suggestion
from director.memory import Memory
from director.monitor import Monitor
from director.overrides import Overrides
from director.reconcile import Addresses, Inputs, Kernel, Outcome, Reconciler

log = logging.getLogger(__name__)

RETRY_AFTER_S = 1.0  # doubled with each failure, up to the drift interval or this:
RETRY_AT_MOST_S = 30.0

Answer = TypeVar("Answer")


class Daemon:
    """One director of one network namespace, which `kernel`, `addresses` and `announcer` stand for."""

    def __init__(
        self,
        config_path: Path,
        config: Config,
        state_directory: Path,
        kernel: Kernel,
        addresses: Addresses,
        announcer: Announces,
        changes: Changes | None = None,
    ) -> None:
        self._changes = changes
        self._config_path = config_path
        self._config = config
        self._source = str(config_path)
        self._started_at = time.monotonic()
        self._woken = asyncio.Event()
        self._hung_up = asyncio.Event()
        self._stopped = asyncio.Event()
        self._announcements = Announcements(announcer)
        self._overrides = Overrides(state_directory)
        self._reconciler = Reconciler(kernel, addresses, Memory(state_directory), self._announcements.soon)
        self._monitor = Monitor(self._woken.set)
        self._adopted: dict[ServerRef, int] = {}
        self._unproven: frozenset[ServerRef] = frozenset()
        self._refused: tuple[str, ...] = ()
        self._unserved: frozenset[str] = frozenset()
        self._advice: tuple[str, ...] = ()
        self._writing = asyncio.Lock()
        # One thread: what a cancelled task began goes on in it, and must not meet the next.
        self._worker = ThreadPoolExecutor(1, "kernel")
        self._last: Outcome | None = None
        self._trouble = ""
        self._failed = 0  # looks in a row that did not bring the kernel to agree

    async def run(self, socket_path: Path) -> None:
        """Work until SIGTERM or SIGINT. Raises: DirectorError when it cannot begin."""
        loop = asyncio.get_running_loop()
        self._announcements.bind(loop)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopped.set)
        loop.add_signal_handler(signal.SIGHUP, self._hung_up.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # one that came early is heard now
        with ExitStack() as stack:
            stack.enter_context(self._worker)
            listener = stack.enter_context(listening(socket_path))  # before anything is changed
            if self._changes is not None:
                stack.enter_context(woken_by(self._changes, self._woken.set))
            async with self._writing:
                await self._take(self._config, self._source)
                outcome = await self._reconcile()
            await self._advise()
            if outcome.failures:
                log.warning("began with failures", extra={"count": len(outcome.failures)})
            async with serve(self, listener), asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._loop(), name="reconcile"),
                    group.create_task(self._reload_loop(), name="reload"),
                    group.create_task(self._monitor.run(), name="probes"),
                    group.create_task(self._announcements.run(), name="announce"),
                ]
                log.info("director is running", extra={"config": self._source, "socket": str(socket_path)})
                await self._stopped.wait()
                for task in tasks:
                    task.cancel()
        log.info("director stops; the kernel keeps forwarding")

    # What the API asks for.

    async def apply(self, text: str, source: str) -> Applied:
        """Use the configuration in `text` from now on. Raises: InvalidConfigError, and then nothing has changed."""
        # In a thread: a large file takes seconds to parse, and probes would time out meanwhile.
        config = await asyncio.to_thread(parse_config, text, source)
        # Under one holding: were it let go in between, the loop would make the changes and this find none to tell.
        async with self._writing:
            await self._take(config, source)
            log.info("configuration is in force", extra={"config": source})
            outcome = await self._settle()
        await self._advise()
        return Applied(outcome.steps, outcome.failures, outcome.waiting)

    async def plan(self, text: str, source: str) -> list[Step]:
        """What `apply` would change. Raises: InvalidConfigError."""
        config = await asyncio.to_thread(parse_config, text, source)
        async with self._writing:
            observed = await self._on_worker(lambda: self._reconciler.observe(config))
            adopted, unproven = adopted_weights(config, observed.table), unproven_servers(config, observed.table)
            inputs = replace(self._inputs(config), adopted=adopted, unproven=unproven)
            plan = self._reconciler.plan(inputs, observed)
        return steps(plan, config, inputs.weights())

    async def drain(self, ref: ServerRef) -> None:
        """Raises: ConfigError for a server that is not in force; HostError when it cannot be saved."""
        self._known(ref)
        await self._on_worker(lambda: self._overrides.drain(ref))
        await self._operator_changed("drained", ref)

    async def enable(self, ref: ServerRef) -> None:
        """Also for a server that is no longer in force and has a wish left. Raises: as `drain`."""
        if ref not in self._overrides.wishes:
            self._known(ref)
        await self._on_worker(lambda: self._overrides.enable(ref))
        await self._operator_changed("enabled", ref)

    async def weight(self, ref: ServerRef, weight: int) -> None:
        """Raises: as `drain`."""
        self._known(ref)
        await self._on_worker(lambda: self._overrides.weight(ref, weight))
        await self._operator_changed("weight set", ref)

    async def status(self) -> status.Status:
        """A fresh look at the kernel beside what is known. Raises: KernelError."""
        async with self._writing:
            config = self._config
            inputs = self._inputs(config)
            seen = await self._on_worker(lambda: self._reconciler.observe(config))
            agrees = not self._reconciler.plan(inputs, seen).acts
        failures = [*([self._trouble] if self._trouble else []), *(self._last.failures if self._last else ())]
        return {
            "daemon": {
                "pid": os.getpid(),
                "namespace": namespace_inode(),
                "version": version("lvs-director"),
                "config": self._source,
                "uptime_s": round(time.monotonic() - self._started_at, 3),
                "converged": self._converged() and agrees,
                "failures": failures,
                "reload_refused": list(self._refused),
                "waiting": list(self._last.waiting) if self._last else [],
            },
            "virtual_servers": status.virtual_servers(
                config,
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
        if self._config.find(ref) is not None:
            return
        servers = {vs.name: [real.name for real in vs.real_servers] for vs in self._config.virtual_servers}
        if ref.virtual_server in servers:
            what = f"virtual server {ref.virtual_server!r} has no real server {ref.real_server!r}"
            known = suggestion(ref.real_server, servers[ref.virtual_server])
        else:
            what = f"no virtual server {ref.virtual_server!r} in the configuration in force"
            known = suggestion(ref.virtual_server, servers)
        raise ConfigError(what + (known if any(servers.values()) else ""))

    async def _operator_changed(self, what: str, ref: ServerRef) -> None:
        log.info("operator: %s", what, extra={"vs": ref.virtual_server, "rs": ref.real_server})
        try:
            async with self._writing:
                outcome = await self._settle()
        except DirectorError as error:
            raise DirectorError(f"{ref}: {what} and saved, but this has not reached the kernel yet: {error}") from error
        found = self._config.find(ref)
        if found is None:
            return
        virtual, real = found
        due = self._inputs(self._config).weights()[ref].value
        table = outcome.observed.table
        reached = all(
            (row := status.found(table, place)) is not None and row.weight == due
            for place in virtual.placements
            if place.real is real
        )
        # What failed elsewhere is no answer to this request; `status` shows it.
        if outcome.failures and not reached:
            raise DirectorError("\n".join(outcome.failures))

    # The loops.

    async def _reload_loop(self) -> None:
        tries = 0
        while True:
            await self._hung_up.wait()
            self._hung_up.clear()
            try:
                config = await asyncio.to_thread(_read, self._config_path)
                async with self._writing:
                    await self._take(config, str(self._config_path))
                log.info("reloaded", extra={"config": self._source})
                self._woken.set()
                await self._advise()
            except InvalidConfigError as error:
                self._refused = tuple(error.lines())
                for line in self._refused:
                    log.error("reload refused, the old configuration stays", extra={"problem": line})
            except DirectorError as error:
                log.error("could not reload, trying again", extra={"reason": str(error)})
                tries += 1
                await asyncio.sleep(self._backoff_s(tries))
                self._hung_up.set()
                continue
            except Exception:
                log.exception("reload failed in itself, the old configuration stays")
            tries = 0

    async def _loop(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._wait_s()):
                    await self._woken.wait()
            self._woken.clear()
            try:
                async with self._writing:
                    await self._reconcile()
                await self._advise()  # settings drift too
            except Exception as error:  # noqa: BLE001 -- a director that ends repairs nothing any more
                self._tell_trouble(error)

    def _wait_s(self) -> float:
        waits = [self._config.drift_interval_s]
        deadline_s = self._monitor.next_deadline_s()
        if deadline_s is not None:
            waits.append(deadline_s)
        if self._failed:
            waits.append(self._backoff_s(self._failed))
        if self._last is not None and self._last.waiting:  # for connections to end, which nobody tells
            waits.append(RETRY_AFTER_S)
        return min(waits)

    def _backoff_s(self, failures: int) -> float:
        longest = min(self._config.drift_interval_s, RETRY_AT_MOST_S)
        return min(RETRY_AFTER_S * 2.0 ** min(failures - 1, 16), longest)

    def _converged(self) -> bool:
        return not self._trouble and self._last is not None and self._last.converged

    def _tell_trouble(self, error: Exception) -> None:
        expected = isinstance(error, DirectorError)
        trouble = str(error) if expected else f"internal error: {error!r}"
        if trouble != self._trouble:
            log.error(
                "could not reconcile, trying again",
                extra={"reason": trouble},
                exc_info=None if expected else error,
            )
        self._trouble = trouble
        self._failed += 1

    # These are called with `_writing` held; all but `_advise`.

    async def _take(self, config: Config, source: str) -> None:
        """Make `config` the one in force, with the kernel's weights for servers that await a verdict."""
        table = await self._on_worker(self._reconciler.read_table)
        self._adopted, self._unproven = adopted_weights(config, table), unproven_servers(config, table)
        self._refused = ()
        self._config, self._source = config, source
        self._monitor.watch(config)

    async def _settle(self) -> Outcome:
        """Reconcile for whoever asked, and let the loop look at its deadlines anew."""
        try:
            return await self._reconcile()
        except Exception as error:
            self._tell_trouble(error)
            raise
        finally:
            self._woken.set()

    async def _reconcile(self) -> Outcome:
        inputs = self._inputs(self._config)
        self._last = await self._on_worker(lambda: self._reconciler.reconcile(inputs))
        if self._trouble:
            log.info("reconciles again")
        self._trouble = ""
        self._failed = self._failed + 1 if self._last.failures else 0
        self._announcements.keep(self._last.observed.vips)
        self._tell_unserved(inputs)
        return self._last

    def _tell_unserved(self, inputs: Inputs) -> None:
        """Log, once, which virtual servers refuse every connection for want of a real server."""
        weights = inputs.weights()
        unserved = frozenset(
            vs.name
            for vs in inputs.config.virtual_servers
            if not any(weights[vs.ref(real)].value for real in vs.real_servers)
        )
        for name in sorted(unserved - self._unserved):
            log.error("no real server takes connections", extra={"vs": name})
        for name in sorted(self._unserved - unserved):
            log.info("real servers take connections again", extra={"vs": name})
        self._unserved = unserved

    async def _advise(self) -> None:
        """Log what this host's settings lack for the configuration in force, once."""
        config = self._config
        found = await self._on_worker(lambda: advice(config))
        for sentence in found:
            if sentence not in self._advice:
                log.warning("a setting of this host does not fit", extra={"reason": sentence})
        self._advice = found

    async def _on_worker(self, act: Callable[[], Answer]) -> Answer:
        """`act` in the worker's thread: netlink and fsync answer in milliseconds mostly, and not always."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, act)

    def _inputs(self, config: Config) -> Inputs:
        health = self._monitor.health(config)
        ready = self._monitor.ready(config)
        return Inputs(config, health, self._overrides.wishes, self._adopted, self._unproven, ready)


def run(config_path: Path, socket_path: Path, state_directory: Path) -> None:
    """Run a director until it is told to stop.

    Raises: DirectorError when it cannot begin, and then nothing has changed.
    """
    config = _read(config_path)
    purpose = f"director run {config_path}"
    with (
        NamespaceLock(purpose),
        StateLock(purpose, state_directory),
        IpvsClient.open() as kernel,
        Announcer() as announcer,
        HostChanges() as changes,
    ):
        daemon = Daemon(config_path, config, state_directory, kernel, addresses, announcer, changes)
        asyncio.run(daemon.run(socket_path))


def _read(path: Path) -> Config:
    return parse_config(read_text(path), str(path))
