"""A conversation over one connection, as pure steps: what to send, what was heard, and when it is decided.

One rule: a dialogue has no socket, clock or loop; whoever drives it (`wire.py`) owns the connection, the deadline and
the bound on what may be heard. A dialogue keeps no more than it needs to decide, whatever it hears.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from director.kit.checks.base import Tls
from director.kit.health import ProbeResult

_TLS = Tls()


@dataclass(frozen=True, slots=True)
class StartTls:
    """The rest of the conversation goes over TLS on the same connection: `secured` is called once that stands."""

    tls: Tls = _TLS


@dataclass(frozen=True, slots=True)
class Reconnect:
    """This connection is of no more use: make another one to the same target; `opened` is called once that stands."""


@dataclass(frozen=True, slots=True)
class Leave:
    """It is decided. No more is said (FIN), and the peer's own end is waited for, so that its log has no complaint."""

    result: ProbeResult


Step = bytes | StartTls | Reconnect | Leave | ProbeResult
"""What to do next: send these bytes (none: only wait for more), begin TLS, connect anew, or end with this result."""

MOST_HEARD_BYTES = 256 * 1024
"""What a peer may say to most dialogues."""


class Dialogue(Protocol):
    """One conversation, from the connection's start to a result; `ProbeResult.duration_s` is filled in by the driver.

    Whatever the peer sends, each method returns: garbage is a result with a reason, never an exception.
    `opened` and `secured` may raise ProbeError where this host lacks what is to be said.
    """

    @property
    def most_heard_bytes(self) -> int:
        """What a peer may say, TLS included, before there is a result. Beyond it the dialogue is asked no more."""

    def opened(self) -> Step:
        """The connection stands (and TLS with it, where the probe begins with TLS)."""

    def heard(self, data: bytes) -> Step:
        """`data` has come; never empty."""

    def secured(self) -> Step:
        """TLS that `StartTls` asked for stands."""

    def ended(self) -> ProbeResult:
        """The peer has closed its side before there was a result."""


class Lasting(Dialogue, Protocol):
    """A dialogue after whose good result the connection can stay, and serve another dialogue of the same check."""

    def lasts(self) -> bool:
        """Whether it can: asked once, after a good result. The peer has not said that it will close."""
