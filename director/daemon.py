"""The running director: builds the parts and keeps them in one task group.

One rule: API, signals and probes change inputs and wake the loop; only `control` writes. It ends by leaving the
kernel as it is, but for what nobody has confirmed: a stopped director keeps forwarding.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

from director.advice import advice
from director.announcements import Announcements, Announces
from director.api.server import serve
from director.control import Control
from director.core.config import parse_config
from director.core.event import Event, EventKind
from director.core.model import Config
from director.core.naming import Lookup
from director.eventlog import EventLog
from director.heartbeat import Heartbeat
from director.hooks import Hooks
from director.host import addresses
from director.host.announce import Announcer
from director.host.changes import Changes, HostChanges, woken_by
from director.host.lockfile import NamespaceLock, StateLock, namespace_inode
from director.host.surroundings import Surroundings as HostSurroundings
from director.ipvs.client import IpvsClient
from director.journal import Journal
from director.kit.adminsocket import listening
from director.kit.configfile import read_text
from director.kit.errors import ConfigError
from director.kit.service import ServiceManager
from director.lastknown import LastKnown
from director.measures import Measures
from director.memory import Memory
from director.monitor import Monitor
from director.names import Names
from director.notifier import Notifier
from director.overrides import Overrides
from director.reconcile import Reconciler
from director.reloading import Reloading
from director.requests import Requests
from director.resolution import Resolution
from director.terms import Addresses, Kernel, Surroundings
from director.witness import Witness

log = logging.getLogger(__name__)

RETRY_AFTER_S = 1.0  # doubled with each failure, up to the drift interval or this:
RETRY_AT_MOST_S = 30.0
THREADS = 32
LAST_NOTIFICATIONS_S = 3.0  # to arrive before the end
LAST_EVENTS_S = 2.0  # to be written


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
        surroundings: Surroundings | None = None,
        text: str = "",
        names: Names | None = None,
        manager: ServiceManager | None = None,
    ) -> None:
        self._changes = changes
        self._config_path = config_path
        self._woken = asyncio.Event()
        self._stopped = asyncio.Event()
        self._announcements = Announcements(announcer)
        self._monitor = Monitor(self._woken.set)
        self._hooks = Hooks(self.tell)
        self._events = EventLog(state_directory)
        self._notifier = Notifier(self.tell)
        overrides = self._overrides = Overrides(state_directory)
        self._control = Control(
            config,
            str(config_path),
            Reconciler(kernel, addresses, Memory(state_directory), self._announcements.soon, surroundings),
            Journal(state_directory),
            self._monitor,
            lambda: overrides.wishes,
            self._announcements,
            Witness(LastKnown(state_directory), self.tell, self._hooks.want),
            advice,
            self._woken.set,
            text,
            self.tell,
        )
        self._names = names or Names(state_directory)
        self._resolution = Resolution(self._names, self._control, self.tell)
        busy, late = self._control.worker, self._monitor
        self._heartbeat = Heartbeat(manager or ServiceManager({}), lambda: busy.busy_s, lambda: late.late_s)
        self._reloading = Reloading(
            *(config_path, self._control, self._names.look_up, self._heartbeat, self.tell, self._backoff_s)
        )
        self._requests = Requests(
            *(self._control, overrides, namespace_inode(), self._resolution, self._reloading, self.tell)
        )
        self._measures = Measures(self._requests, self._control, self._hooks, self._notifier)

    def tell(self, event: Event) -> None:
        """Keep `event`, and have it told to whom the configuration in force names. For the loop's thread."""
        self._events.tell(event)
        if event.kind in {EventKind.CONFIGURATION, EventKind.DAEMON}:  # not in the middle of an apply, which may fail
            self._notifier.use(self._control.config.notifications)
            self._resolution.wake()
        self._notifier.tell(event)

    async def run(self, socket_path: Path) -> None:
        """Work until SIGTERM or SIGINT. Raises: DirectorError when it cannot begin."""
        loop = asyncio.get_running_loop()
        self._announcements.bind(loop)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopped.set)
        loop.add_signal_handler(signal.SIGHUP, self._reloading.hang_up)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # one that came early is heard now
        # Names of receivers are looked up in threads, which a name server that is down holds for long: enough of them
        # that the journal and the programs always find one.
        loop.set_default_executor(ThreadPoolExecutor(THREADS, "helper"))
        with ExitStack() as stack:
            stack.enter_context(self._control.worker)
            stack.callback(self._names.close)  # no thread is waited for that waits for a name server
            listener = stack.enter_context(listening(socket_path))  # before anything is changed
            if self._changes is not None:
                stack.enter_context(woken_by(self._changes, self._woken.set))
            self.tell(Event(time.time(), EventKind.DAEMON, now="started", reason=str(self._config_path)))
            self._heartbeat.starting()
            outcome = await self._control.start()
            await self._control.advise()
            if outcome.failures:
                log.warning("began with failures", extra={"count": len(outcome.failures)})
            async with serve(self._requests, listener, self._events), asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._loop(), name="reconcile"),
                    group.create_task(self._reloading.run(), name="reload"),
                    group.create_task(self._monitor.run(), name="probes"),
                    group.create_task(self._announcements.run(), name="announce"),
                    group.create_task(self._hooks.run(), name="hooks"),
                    group.create_task(self._events.run(), name="events"),
                    group.create_task(self._notifier.run(), name="notifications"),
                    group.create_task(self._resolution.run(), name="names"),
                    group.create_task(self._control.metrics.run(self._measures), name="metrics"),
                ]
                self._heartbeat.watch(tasks)
                tasks.append(group.create_task(self._heartbeat.run(), name="heartbeat"))
                self._heartbeat.ready(self._reloading.standing())
                log.info("director is running", extra={"config": str(self._config_path), "socket": str(socket_path)})
                await self._stopped.wait()
                self._heartbeat.stopping()
                self._names.close()
                await self._control.stop()
                self.tell(Event(time.time(), EventKind.DAEMON, was="runs", now="stopped"))
                await self._notifier.finish(LAST_NOTIFICATIONS_S)
                await self._events.finish(LAST_EVENTS_S)
                for task in tasks:
                    task.cancel()
        log.info("director stops; the kernel keeps forwarding")

    async def _loop(self) -> None:
        while True:
            wait_s = self._wait_s()
            self._heartbeat.waits(wait_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._woken.wait()
            self._woken.clear()
            self._heartbeat.looks()
            try:
                if await self._control.look():
                    await self._control.advise()  # settings and files drift too
            except Exception as error:  # noqa: BLE001 -- a director that ends repairs nothing any more
                self._control.tell_trouble(error)
            self._heartbeat.say(self._reloading.standing())

    def _wait_s(self) -> float:
        control, now = self._control, time.monotonic()
        waits = [control.config.drift_interval_s]
        deadline_s = self._monitor.next_deadline_s()
        if deadline_s is not None:
            waits.append(deadline_s)
        ramp_s = control.next_ramp_s()
        if ramp_s is not None:
            waits.append(max(0.01, ramp_s))
        expiry_s = self._overrides.next_expiry_s(time.time())
        if expiry_s is not None:
            waits.append(expiry_s)
        if control.failed:
            waits.append(self._backoff_s(control.failed))
        if control.last is not None and control.last.waiting:  # for connections to end, which nobody tells
            waits.append(RETRY_AFTER_S)
        if control.unconfirmed is not None:
            waits.append(max(0.0, control.unconfirmed.until_at - now))
        if control.force.drain_until_at is not None and control.force.drain_until_at > now:
            waits.append(control.force.drain_until_at - now)
        return min(waits)

    def _backoff_s(self, failures: int) -> float:
        longest = min(self._control.config.drift_interval_s, RETRY_AT_MOST_S)
        return min(RETRY_AFTER_S * 2.0 ** min(failures - 1, 16), longest)


def run(config_path: Path, socket_path: Path, state_directory: Path) -> None:
    """Run a director until it is told to stop.

    Raises: DirectorError when it cannot begin, and then nothing has changed.
    """
    manager = ServiceManager()
    text = read_text(config_path)
    names = Names(state_directory)
    config = begin_with(text, str(config_path), names)
    purpose = f"director run {config_path}"
    with (
        NamespaceLock(purpose),
        StateLock(purpose, state_directory),
        IpvsClient.open() as kernel,
        Announcer() as announcer,
        HostChanges() as changes,
    ):
        around = HostSurroundings(state_directory)
        daemon = Daemon(
            *(config_path, config, state_directory, kernel, addresses, announcer, changes, around, text, names),
            manager,
        )
        asyncio.run(daemon.run(socket_path))


def begin_with(text: str, source: str, names: Names) -> Config:
    """The configuration in `text`; where the addresses that names have now make it wrong, with their last ones.

    Raises: InvalidConfigError.
    """
    last: Lookup = names.last()
    try:
        return parse_config(text, source, names.look_up)
    except ConfigError:
        with suppress(ConfigError):
            return parse_config(text, source, last)
        raise
