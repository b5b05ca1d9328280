"""Which probe a check is, and runs of it.

One rule: whatever the peer does, the answer is a `ProbeResult` within the check's timeout.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from director.kit.checks.agent import AgentProbe
from director.kit.checks.base import Tls
from director.kit.checks.check import Check
from director.kit.checks.dns import DnsProbe
from director.kit.checks.file import FileProbe
from director.kit.checks.http import HttpProbe
from director.kit.checks.icmp import IcmpProbe
from director.kit.checks.mail import MailProbe
from director.kit.checks.mysql import MysqlProbe
from director.kit.checks.postgresql import PostgresqlProbe
from director.kit.checks.redis import RedisProbe
from director.kit.checks.script import ScriptProbe
from director.kit.checks.tcp import TcpProbe
from director.kit.checks.udp import UdpProbe
from director.kit.duration import format_duration
from director.kit.errors import ProbeError
from director.kit.health import ProbeResult
from director.kit.probes.agent import AgentDialogue
from director.kit.probes.attempt import Done, Outcome
from director.kit.probes.dialogue import Dialogue
from director.kit.probes.dns import DnsDialogue, probe_dns
from director.kit.probes.failures import failure
from director.kit.probes.file import probe_file
from director.kit.probes.http import HttpDialogue
from director.kit.probes.icmp import probe_icmp
from director.kit.probes.mail import mail_dialogue
from director.kit.probes.mysql import MysqlDialogue
from director.kit.probes.postgresql import PostgresqlDialogue
from director.kit.probes.redis import RedisDialogue
from director.kit.probes.script import probe_script
from director.kit.probes.secondlook import SecondLook, Stoppable, direct_check, told
from director.kit.probes.secret import secret_of
from director.kit.probes.sentinels import Place, Sentinels
from director.kit.probes.tcp import tcp_dialogue
from director.kit.probes.udp import probe_udp
from director.kit.probes.wire import Engine, converse


def dialogue_of(check: Check, lasting: bool = False) -> tuple[Dialogue, Tls | None] | None:
    """A new dialogue for `check`, and the TLS it begins with; None for a probe that `run_alone` knows.

    `lasting`: one that leaves the connection open where it can (`Lasting`).
    """
    match check.probe:
        case TcpProbe() as probe:
            return tcp_dialogue(probe), probe.tls
        case HttpProbe() as probe:
            return HttpDialogue(probe, check.target, lasting), probe.tls
        case DnsProbe(tcp=True) as probe:
            return DnsDialogue(probe), None
        case MailProbe() as probe:
            return mail_dialogue(probe), None if probe.starttls else probe.tls
        case RedisProbe() as probe:
            return RedisDialogue(probe, secret_of), probe.tls
        case PostgresqlProbe() as probe:
            return PostgresqlDialogue(probe), None
        case MysqlProbe() as probe:
            return MysqlDialogue(probe), None
        case AgentProbe() as probe:
            return AgentDialogue(probe), None
        case _:
            return None


async def run_alone(check: Check) -> ProbeResult:
    """Run a probe that is a coroutine; it keeps to the check's timeout itself, and says more than that it is over.

    Raises: OSError, which counts against the server; ProbeError, which does not.
    """
    match check.probe:
        case UdpProbe() as probe:
            return await probe_udp(check, probe)
        case DnsProbe() as probe:
            return await probe_dns(check, probe)
        case IcmpProbe() as probe:
            return await probe_icmp(check, probe)
        case ScriptProbe() as probe:
            return await probe_script(check, probe)
        case FileProbe() as probe:
            return await probe_file(check, probe)
        case _:
            raise AssertionError(f"{check} is held as a dialogue")


async def run_check(check: Check) -> ProbeResult:
    """Probe `check.target` once.

    Raises: ProbeError when this host lacks what a probe takes, and nothing else but CancelledError.
    """
    result = await _run_once(check)
    direct = direct_check(check)
    return result if result.ok or direct is None else told(result, await _run_once(direct))


async def _run_once(check: Check) -> ProbeResult:
    held = dialogue_of(check)
    return await (run_in_time(check) if held is None else converse(check, *held))


async def run_in_time(check: Check) -> ProbeResult:
    """`run_alone`, its time taken, and its OSErrors told as what they amount to.

    Raises: ProbeError when this host lacks what a probe takes, and nothing else but CancelledError.
    """
    started_at = time.monotonic()
    try:
        result = await run_alone(check)
    except TimeoutError:
        result = ProbeResult(False, f"no answer within {format_duration(check.timing.timeout_s)}")
    except OSError as error:
        met = failure(error, check)
        if isinstance(met, ProbeError):
            raise met from error
        result = met
    return replace(result, duration_s=time.monotonic() - started_at)


class Runs:
    """Begins probes of all kinds in one loop. `probe` stands in place of the checks' own probes.

    At most `most_kept` connections are kept as sentinels; `on_end` is told of those that a peer ends.
    """

    def __init__(
        self,
        group: asyncio.TaskGroup,
        now: Callable[[], float],
        probe: Callable[[Check], Awaitable[ProbeResult]] | None,
        most_kept: int,
        on_end: Callable[[Place, float], None],
    ) -> None:
        self._group = group
        self._now = now
        self._probe = probe or run_in_time
        self._engine = Engine(now) if probe is None else None
        self._failing: set[Check] = set()  # through the VIP
        self._sentinels = Sentinels(self._engine, most_kept, on_end) if self._engine is not None else None

    def begin(self, check: Check, done: Done, now: float) -> Stoppable:
        """Probe once. `done` is called from the loop, and never from within; `now` is what the clock says."""
        if check.route.real is not None:
            return SecondLook(self._begin, check, done, now, self._failing)
        return self._begin(check, done, now)

    def _begin(self, check: Check, done: Done, now: float) -> Stoppable:
        if self._engine is not None and self._sentinels is not None:
            lasting = self._sentinels.is_wanted(check)
            held = dialogue_of(check, lasting)
            if held is not None:
                dialogue, tls = held
                if check.sentinel is None and isinstance(dialogue, HttpDialogue):
                    done = self._sentinels.learning(check, dialogue, done)
                return (self._sentinels if lasting else self._engine).begin(check, dialogue, tls, done, now)
        alone = _Alone(done)
        alone.task = self._group.create_task(alone.run(self._probe, check, self._now), name=f"probe {check}")
        return alone

    def keep_at(self, places: Iterable[Place]) -> None:
        """Keep sentinels only there."""
        self._failing.clear()  # of checks that are watched no more; the others come again
        if self._sentinels is not None:
            self._sentinels.watch(places)

    def close(self) -> None:
        """End what runs without outcomes, as far as it is a dialogue; the others are the group's."""
        if self._engine is not None:
            self._engine.close()


class _Alone:
    """A probe in a task of its own."""

    __slots__ = ("_done", "_is_cancelled", "task")

    def __init__(self, done: Done) -> None:
        self._done = done
        self._is_cancelled = False
        self.task: asyncio.Task[None]

    async def run(
        self, probe: Callable[[Check], Awaitable[ProbeResult]], check: Check, now: Callable[[], float]
    ) -> None:
        outcome: Outcome
        try:
            outcome = await probe(check)
        except asyncio.CancelledError:
            if self._is_cancelled or self.task.cancelling():
                raise
            outcome = RuntimeError("it was cancelled by itself")
        except Exception as error:  # noqa: BLE001 -- told by whoever began it
            outcome = error
        if not self._is_cancelled:
            self._done(outcome, now())

    def cancel(self) -> None:
        self._is_cancelled = True
        self.task.cancel()
