"""A dialogue held with a script in place of a peer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from itertools import pairwise

from director.kit.health import ProbeResult
from director.kit.net import Endpoint
from director.kit.probes.dialogue import Dialogue, Leave, Reconnect, StartTls

TARGET = Endpoint(ip_address("10.0.0.1"), 8080)


def talk(dialogue: Dialogue, *script: bytes | Sequence[bytes]) -> tuple[ProbeResult | None, bytes]:
    """What comes of it, None if it still waits, and all that was said to the peer.

    Each part of `script` is what one connection brings, or TLS begun on it: bytes, or pieces of them. A script that
    is used up ends the connection.
    """
    said = b""
    reconnects = True
    for part in script:
        step = dialogue.opened() if reconnects else dialogue.secured()
        for piece in [part] if isinstance(part, bytes) else part:
            assert isinstance(step, bytes), f"{step} before {piece!r}"
            said += step
            step = dialogue.heard(piece)
            if not isinstance(step, bytes):
                break
        if isinstance(step, Leave):
            step = step.result
        if isinstance(step, ProbeResult):
            return step, said
        if isinstance(step, bytes):
            said += step
            return dialogue.ended(), said
        assert isinstance(step, StartTls | Reconnect)
        reconnects = isinstance(step, Reconnect)
    return None, said


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """`data` in pieces, none of them empty."""
    at = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(at)]
