"""A notification script gets the event, and its exit code counts."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from director.core.event import Event, EventKind
from director.core.notifying import Script
from director.receivers.delivery import deliver
from director.receivers.failure import NotDeliveredError

pytestmark = pytest.mark.unit

SH = str(Path("/bin/sh").resolve())
EVENT = Event(1e9, EventKind.HEALTH, "web", "a", "up", "down", "it said: $(id) ; ä")


def run(text: str, timeout_s: float = 10.0) -> str:
    """Why it did not arrive; empty when it did."""
    try:
        asyncio.run(deliver(Script((SH, "-c", text), timeout_s=timeout_s), [EVENT]))
    except NotDeliveredError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("test", "good"),
    [
        ('[ "$DIRECTOR_EVENT_KIND" = health ]', True),
        ('[ "$DIRECTOR_EVENT_VS/$DIRECTOR_EVENT_RS" = web/a ]', True),
        ('[ "$DIRECTOR_EVENT_NOW" = down ]', True),
        ("[ \"$DIRECTOR_EVENT_REASON\" = 'it said: $(id) ; ä' ]", True),
        (f"[ \"$(cat)\" = '{json.dumps(EVENT.plain())}' ]", True),
        ('[ -n "$(grep \'"now": "up"\')" ]', False),
    ],
)
def test_what_it_is_told(test: str, good: bool) -> None:
    assert run(test) == ("" if good else "exit code 1")


def test_what_goes_wrong_is_told() -> None:
    assert run("echo why >&2; exit 1") == "exit code 1: why"
    assert run("sleep 20", timeout_s=0.2).startswith("timed out after ")
    assert run("kill -9 $$") == "killed by SIGKILL"
    with pytest.raises(NotDeliveredError, match="/nowhere cannot be run: No such file"):
        asyncio.run(deliver(Script(("/nowhere",)), [EVENT]))
