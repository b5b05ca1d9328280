"""plan, apply, confirm and undo where no director runs: this process takes its place for the moment.

One rule: who writes holds the locks that a director would hold.
"""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from director.cli.configuration import parsed
from director.kit.errors import ConfigError, DirectorError

if TYPE_CHECKING:
    from director.core.answers import AppliedAnswer, PlannedAnswer
    from director.core.driftlines import DriftLine
    from director.core.model import Config
    from director.core.vip import Vip
    from director.guardian import Answer
    from director.ipvs.client import IpvsClient
    from director.journal import Journal
    from director.once import Once, Progress
    from director.reconcile import Reconciler
    from director.terms import Inputs

ANNOUNCE_EVERY_S = 0.05


def plan(config: Config, state_directory: Path) -> PlannedAnswer:
    """What an apply would change."""
    from director.ipvs.client import IpvsClient
    from director.undertaking import planned

    with IpvsClient.open() as kernel:
        reconciler = _reconciler(kernel, state_directory)
        inputs = _inputs(config, reconciler, state_directory)
        return planned(reconciler, inputs, reconciler.observe(config)).plain()


def drift(config: Config, state_directory: Path) -> list[DriftLine]:
    """What differs from `config` in the virtual servers that were applied: whoever applied them left them otherwise."""
    from director.core.desired import desired_table
    from director.core.drift import merge, reporting
    from director.core.driftlines import drift_lines
    from director.ipvs.client import IpvsClient
    from director.memory import Memory

    with IpvsClient.open() as kernel:
        reconciler = _reconciler(kernel, state_directory)
        inputs = _inputs(config, reconciler, state_directory)
        ours, theirs = desired_table(config, inputs.weights()), reconciler.read_table()
    applied = Memory(state_directory).load().virtual_servers
    if not applied & config.keys():
        return []
    left = MappingProxyType({key: entry for key, entry in ours.entries.items() if key in applied})
    drifts = merge(replace(ours, entries=left), theirs, ours, reporting(config))[1]
    return drift_lines(drifts, config, runs=False)


def left_behind(state_directory: Path) -> Iterator[str]:
    """A sentence about an apply that has not ended."""
    from director.host.lockfile import NamespaceLock
    from director.journal import Journal

    waits = waiting(state_directory)
    left = None if waits else Journal(state_directory).load()
    if waits:
        yield f"{waits}: `director confirm` keeps it, `director undo` takes it back now"
    elif left and NamespaceLock("").holder():
        yield f"{left} is on its way"
    elif left:
        yield (
            f"{left} was cut short: `director undo` puts back what was there before, `director confirm` finishes it, "
            "and another apply takes its place"
        )


def waiting(state_directory: Path) -> str:
    """What awaits a confirmation, if anything."""
    from director.guardian import ask

    for answer in ask(state_directory, "status"):
        return f"{answer['source']} awaits confirmation until {answer['until']}"
    return ""


def apply(
    config: Config, text: str, source: str, state_directory: Path, drain_s: float | None, tell: Progress
) -> AppliedAnswer:
    """Apply `text` and see to its end. Raises: DirectorError; an interruption of the drain leaves the journal."""
    from director.names import Names

    raised: list[Vip] = []
    with _writing(f"director apply {source}", state_directory, raised) as (reconciler, journal):
        once = _once(reconciler, journal, config, text, source, state_directory)
        changed = once.change(drains=drain_s is not None)
        rest = once.remove() if drain_s is None else once.drain(drain_s, tell)
        Names(state_directory).remember(config)
    _announce(raised)
    return replace(rest, steps=changed.steps + rest.steps).plain()


def apply_until_confirmed(
    config: Config, text: str, source: str, state_directory: Path, confirm_s: float, drain_s: float | None
) -> AppliedAnswer:
    """Apply `text` in a process that goes on without this one, until it is confirmed or undoes itself."""
    from director import guardian
    from director.names import Names

    def work(tell: Callable[[Answer], None]) -> None:
        from director.undertaking import clock

        raised: list[Vip] = []
        purpose = f"director apply {source}, which awaits `director confirm` or `director undo`"
        with _stop_signal() as stop, _writing(purpose, state_directory, raised) as (reconciler, journal):
            once = _once(reconciler, journal, config, text, source, state_directory)
            changed = once.change(drains=drain_s is not None)
            Names(state_directory).remember(config, keep=True)
            if not (changed.steps or changed.later):
                tell(once.remove().plain())
                return
            until_at, until = time.monotonic() + confirm_s, clock(confirm_s)
            guards = guardian.Guardian(once, source, until_at, until, drain_s)
            try:
                once.await_confirmation(until)
                with guardian.listening(state_directory) as listener:
                    tell(replace(changed, confirm_s=confirm_s).plain())
                    _announce(raised)
                    outcome = guards.guard(listener, stop)
            except DirectorError as error:  # what nobody could confirm must not stay
                raise once.refused(str(error)) from error
            _log(f"{source}: {outcome}")

    answer = guardian.detach(work)
    if "error" in answer:
        raise DirectorError(answer["error"])
    return cast("AppliedAnswer", answer)


def confirm(state_directory: Path, tell: Progress) -> AppliedAnswer:
    """Finish what awaits confirmation, or what was cut short."""
    from director.guardian import ask
    from director.journal import Journal

    for answer in ask(state_directory, "confirm"):
        if "draining" in answer:
            tell([(name, connections) for name, connections in answer["draining"]], answer["left_s"])
        else:
            return cast("AppliedAnswer", answer)
    left = Journal(state_directory).load()
    if left is None:
        raise ConfigError(NOTHING_WAITS)
    config = parsed(left.text, left.source, state_directory, presume=True)
    return apply(config, left.text, left.source, state_directory, None, tell)


def undo(state_directory: Path) -> AppliedAnswer:
    """Put back what was there before what awaits confirmation, or was cut short."""
    from director import once
    from director.core.model import Config
    from director.guardian import ask
    from director.terms import Inputs

    for answer in ask(state_directory, "undo"):
        return cast("AppliedAnswer", answer)
    raised: list[Vip] = []
    with _writing("director undo", state_directory, raised) as (reconciler, journal):
        left = journal.load()
        if left is None:
            raise ConfigError(NOTHING_WAITS)
        undone = once.undo(reconciler, journal, left, Inputs(_named(left.text, state_directory) or Config()))
    _announce(raised)
    return undone.plain()


def forget(state_directory: Path) -> str:
    """Leave to the operator all that is ours; what that was, in a sentence. Raises: DirectorError."""
    from director.host.firewall import Firewall
    from director.host.kept import KeptSettings
    from director.host.lockfile import NamespaceLock, StateLock
    from director.journal import Journal
    from director.memory import Memory, Owned

    purpose = "director down --keep-table"
    with NamespaceLock(purpose), StateLock(purpose, state_directory):
        memory = Memory(state_directory)
        owned = memory.load()
        chains = Firewall().leave()
        settings = KeptSettings(state_directory).forget()
        memory.save(Owned())
        Journal(state_directory).remove()
    found = (
        (len(owned.virtual_servers), "virtual server"),
        (len(owned.vips), "address"),
        (sum(rules for _, rules in chains), "packet-filter rule"),
        (settings, "setting"),
    )
    what = ", ".join(f"{number} {noun}{('es' if noun == 'address' else 's') * (number != 1)}" for number, noun in found)
    again = "A director that starts again takes over what its file names."
    if chains:
        names = ", ".join(name for name, _ in chains)
        again += f" It makes rules of its own then: remove yours, which are now in {names}."
    return f"Left as it is, and no longer the director's: {what}. {again}"


NOTHING_WAITS = (
    "nothing awaits confirmation and no apply was cut short: what was not confirmed in time has undone itself; "
    "`director plan FILE` shows what differs from a file"
)


def _named(text: str, state_directory: Path) -> Config | None:
    """The configuration in `text`, for its names."""
    with suppress(ConfigError):
        return parsed(text, "", state_directory, presume=True)
    return None


@contextmanager
def _writing(purpose: str, state_directory: Path, raised: list[Vip]) -> Iterator[tuple[Reconciler, Journal]]:
    from director.host.lockfile import NamespaceLock, StateLock
    from director.ipvs.client import IpvsClient
    from director.journal import Journal

    with NamespaceLock(purpose), StateLock(purpose, state_directory), IpvsClient.open() as kernel:
        yield _reconciler(kernel, state_directory, raised.append), Journal(state_directory)


def _once(
    reconciler: Reconciler, journal: Journal, config: Config, text: str, source: str, state_directory: Path
) -> Once:
    from director.once import Once

    return Once(reconciler, journal, _inputs(config, reconciler, state_directory), source, text)


def _inputs(config: Config, reconciler: Reconciler, state_directory: Path) -> Inputs:
    from director.journal import Journal
    from director.once import inputs_once
    from director.overrides import Overrides

    left = Journal(state_directory).load()
    table = reconciler.read_table()
    # A server that an apply which was cut short has lowered is not one that was at 0.
    return inputs_once(config, left.before.over(table) if left else table, Overrides(state_directory).wishes)


def _reconciler(
    kernel: IpvsClient, state_directory: Path, announce: Callable[[Vip], None] = lambda vip: None
) -> Reconciler:
    import logging

    from director.host import addresses
    from director.host.surroundings import Surroundings
    from director.memory import Memory
    from director.reconcile import Reconciler

    # What the log would say is said by this command itself.
    logging.getLogger("director").addHandler(logging.NullHandler())
    return Reconciler(kernel, addresses, Memory(state_directory), announce, Surroundings(state_directory))


def _announce(vips: list[Vip]) -> None:
    """Tell the neighbours as often as a director does, closer together: somebody waits for this command."""
    from director.announcements import TIMES
    from director.cli.lines import note
    from director.host.announce import Announcer
    from director.kit.errors import HostError

    if not vips:
        return
    try:
        with Announcer() as announcer:
            for number in range(TIMES):
                if number:
                    time.sleep(ANNOUNCE_EVERY_S)
                for vip in vips:
                    announcer.send_once(vip)
    except HostError as error:  # the address is there, and neighbours learn of it when their ARP entries expire
        note([str(error)])


@contextmanager
def _stop_signal() -> Iterator[socket.socket]:
    """Readable once SIGTERM has come."""
    here, there = socket.socketpair()
    with here, there:
        there.setblocking(False)
        handler = signal.signal(signal.SIGTERM, lambda *_: None)
        wakes = signal.set_wakeup_fd(there.fileno())
        try:
            yield here
        finally:
            signal.set_wakeup_fd(wakes)
            signal.signal(signal.SIGTERM, handler)


def _log(sentence: str) -> None:
    """Tell the system's log: nobody else listens to a process without a terminal."""
    import syslog

    syslog.openlog("director", syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(syslog.LOG_NOTICE, sentence)
