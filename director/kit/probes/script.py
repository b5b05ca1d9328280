"""The script probe: a program's exit code, and the weight that it may print.

One rule: at most `AT_ONCE` programs run at one time, however many probes may; the others wait, and their time begins
with their turn.
"""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from director.kit.checks.check import Check
from director.kit.checks.placeholders import filled_in
from director.kit.checks.script import ScriptProbe
from director.kit.duration import format_duration
from director.kit.errors import ProbeError
from director.kit.health import ProbeResult
from director.kit.probes.verdict import first_line, parse_share
from director.kit.scripts import ScriptError, ScriptOutcome, run_script

AT_ONCE = 64
MOST_OUTPUT_BYTES = 4096
OUTPUT_BYTES = 256

_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


async def probe_script(check: Check, probe: ScriptProbe) -> ProbeResult:
    """Run the program and judge how it ends.

    Raises: ProbeError when it cannot be run, which says nothing of the server.
    """
    turn = _turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE))
    timeout_s = check.timing.timeout_s
    try:
        async with asyncio.timeout(timeout_s):
            await turn.acquire()
    except TimeoutError:
        raise ProbeError(
            f"{AT_ONCE} scripts run, and none has ended within {format_duration(timeout_s)}: make them faster, or "
            "their interval longer"
        ) from None
    program, *words = probe.command
    address, port = check.target.address, check.target.port
    try:
        outcome = await run_script(
            (program, *(filled_in(word, check.target) for word in words)),
            user=probe.user,
            environment={"DIRECTOR_ADDRESS": str(address), "DIRECTOR_PORT": str(port) if port else ""},
            timeout_s=timeout_s,
            most_bytes=MOST_OUTPUT_BYTES,
        )
    except ScriptError as error:
        raise ProbeError(str(error)) from error
    finally:
        turn.release()
    return judge_outcome(outcome)


def judge_outcome(outcome: ScriptOutcome) -> ProbeResult:
    """Exit code 0 is good; a line `weight N` or `N%` sets the weight, and the first other line is the reason."""
    output = outcome.stdout or outcome.stderr
    if not outcome.ok:
        return ProbeResult(False, str(outcome), output=output[:OUTPUT_BYTES])
    weight, percent, reason = None, None, ""
    for line in outcome.stdout.splitlines():
        said = first_line(line)
        share = parse_share(said if said.endswith("%") else said.removeprefix("weight ").strip())
        if share is not None and (said.endswith("%") or said.startswith("weight ")):
            weight, percent = share
        elif not reason:
            reason = said
    shared = "" if weight is None and percent is None else f"weight {weight}" if percent is None else f"{percent}%"
    said = "; ".join(filter(None, (reason, shared))) or "exit code 0"
    return ProbeResult(True, said, weight=weight, percent=percent, output=output[:OUTPUT_BYTES])
