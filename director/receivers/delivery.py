"""Hands events to a receiver, once.

One rule: it ends within the receiver's own timeout, with an arrival or with a sentence that says why not, and holds
no secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from director.core.event import Event
from director.core.notifying import Mail, Receiver, Script, Webhook
from director.receivers import mail, script, webhook
from director.receivers.failure import NotDeliveredError, RefusedError

__all__ = ["NotDeliveredError", "RefusedError", "at_once", "deliver"]


def at_once(receiver: Receiver) -> int:
    """How many events go into one delivery."""
    match receiver:
        case Script():
            return 1
        case Webhook():
            return webhook.AT_ONCE
        case Mail():
            return mail.AT_ONCE
        case _:
            assert_never(receiver)


async def deliver(receiver: Receiver, events: Sequence[Event]) -> None:
    """Raises: NotDeliveredError; RefusedError where another attempt with these events is of no use."""
    match receiver:
        case Script():
            await script.run(receiver, events[0])
        case Webhook():
            await webhook.post(receiver, events)
        case Mail():
            await mail.send(receiver, events)
        case _:
            assert_never(receiver)
