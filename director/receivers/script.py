"""A notification script: the event's JSON on standard input, and its main words in the environment."""

from __future__ import annotations

import json

from director.core.event import Event
from director.core.notifying import Script
from director.kit.errors import HostError
from director.kit.scripts import run_script
from director.receivers.failure import NotDeliveredError, reason


async def run(script: Script, event: Event) -> None:
    """Run it; exit code 0 is an arrival. Raises: NotDeliveredError."""
    try:
        outcome = await run_script(
            script.command,
            user=script.user,
            environment={
                "DIRECTOR_EVENT_KIND": event.kind.value,
                "DIRECTOR_EVENT_VS": event.virtual_server,
                "DIRECTOR_EVENT_RS": event.real_server,
                "DIRECTOR_EVENT_NOW": event.now,
                "DIRECTOR_EVENT_REASON": event.reason,
            },
            input=json.dumps(event.plain()).encode() + b"\n",
            timeout_s=script.timeout_s,
        )
    except HostError as error:
        raise NotDeliveredError(reason(error)) from error
    if not outcome.ok:
        raise NotDeliveredError(str(outcome))
