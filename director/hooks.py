"""Runs the operator's programs when quorum is held again or lost.

One rule: a hook hears of the state that lasts: one virtual server's hooks never overlap, and of several changes while
one runs only the last is told.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable

from director.core.event import Event, EventKind, printable
from director.kit.duration import format_duration
from director.kit.errors import DirectorError
from director.kit.scripts import ScriptOutcome, run_script
from director.witness import HookDue

log = logging.getLogger(__name__)

AT_ONCE = 8
"""Hooks of different virtual servers that run at one time; the others wait."""


class Hooks:
    """What is to be run, at most one for each virtual server; `tell` hears how each ended, and both
    counters count them by virtual server."""

    def __init__(self, tell: Callable[[Event], None] = lambda event: None) -> None:
        self.run_for: Counter[str] = Counter()
        self.failed_for: Counter[str] = Counter()
        self._tell = tell
        self._due: dict[str, HookDue] = {}
        self._running: set[str] = set()
        self._woken = asyncio.Event()

    def want(self, due: HookDue) -> None:
        """Run `due` as soon as may be, in place of an older one of its virtual server that has not begun."""
        self._due[due.virtual_server] = due
        self._woken.set()

    async def run(self) -> None:
        """Run hooks until cancelled; then those that run are killed."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._woken.wait()
                self._woken.clear()
                for name in [name for name in self._due if name not in self._running]:
                    if len(self._running) >= AT_ONCE:
                        break
                    self._running.add(name)
                    group.create_task(self._run(self._due.pop(name)), name=f"hook {name}")

    async def _run(self, due: HookDue) -> None:
        hook, state = due.hook, "held" if due.held else "lost"
        environment = {
            "DIRECTOR_VIRTUAL_SERVER": due.virtual_server,
            "DIRECTOR_QUORUM": state,
            "DIRECTOR_ALIVE": str(due.alive),
        }
        try:
            outcome = await run_script(hook.command, user=hook.user, environment=environment, timeout_s=hook.timeout_s)
            said = "" if outcome.ok else _complaint(outcome, hook.timeout_s)
        except DirectorError as error:
            said = str(error)
        except Exception as error:  # a hook that cannot be run must not end the director
            log.exception("a quorum hook failed in itself", extra={"vs": due.virtual_server})
            said = f"internal error: {type(error).__name__}"
        finally:
            self._running.discard(due.virtual_server)
            self._woken.set()
        self.run_for[due.virtual_server] += 1
        self.failed_for[due.virtual_server] += bool(said)
        fields = {"vs": due.virtual_server, "command": hook.command[0], "quorum": state}
        if said:
            log.error("a quorum hook failed", extra={**fields, "reason": said})
        else:
            log.info("a quorum hook was run", extra=fields)
        now = "failed" if said else "run"
        event = Event(time.time(), EventKind.NOTIFICATION, due.virtual_server, now=f"hook {now}", reason=said)
        self._tell(event)


def _complaint(outcome: ScriptOutcome, timeout_s: float) -> str:
    if outcome.timed_out:
        return f"killed: it took longer than {format_duration(timeout_s)}"
    how = f"ended by signal {outcome.signal}" if outcome.signal is not None else f"exit code {outcome.exit_code}"
    said = printable((outcome.stderr or outcome.stdout).strip())
    return f"{how}: {said}" if said else how
