"""A forwarded connection's record in the access log, and its two forms; see `logline.py`.

One rule: a line is ASCII, and nothing that a client sends can break it: of its bytes only the server name is told, and
that is a name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

from l7proxy.core.proxystatus import Cause

TcpRecord: TypeAlias = tuple[
    float,  # started_at: it was accepted
    float,  # chosen_at: the last attempt with a backend began; 0.0 where none did
    float,  # connected_at: it had a connection; 0.0 where it got none
    float,  # ended_at
    str,  # client: its address
    str,  # listener
    str | None,  # the server name of the ClientHello
    int,  # bytes_in: to the backend
    int,  # bytes_out: to the client
    str | None,  # upstream
    str | None,  # backend
    int,  # retries
    Cause | None,
]
"""One connection; times are on the loop's monotonic clock."""

_COMBINED = (
    '%s - - [%s] "TCP %s" - %d "-" "-" mode=tcp sni=%s in=%d queue=%.1f connect=%.1f total=%.1f upstream=%s backend=%s '
    "retries=%d cause=%s\n"
)

TcpFormatter: TypeAlias = Callable[[Sequence[TcpRecord], float], bytes]
"""Records, and the wall clock's distance from the monotonic one in seconds, to lines."""


def tcp_combined(records: Sequence[TcpRecord], wall_s: float) -> bytes:
    """Apache's combined format, with what a connection has of it; times in ms."""
    lines = []
    last_second, stamp = -1, ""
    for (
        started,
        chosen,
        connected,
        ended,
        client,
        listener,
        name,
        taken,
        sent,
        upstream,
        backend,
        tries,
        cause,
    ) in records:
        second = int(started + wall_s)
        if second != last_second:
            last_second = second
            stamp = datetime.fromtimestamp(second, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")
        chosen_at = chosen or ended
        lines.append(
            _COMBINED
            % (
                client or "-",
                stamp,
                listener,
                sent,
                name or "-",
                taken,
                (chosen_at - started) * 1000,
                ((connected or ended) - chosen_at) * 1000,
                (ended - started) * 1000,
                upstream or "-",
                backend or "-",
                tries,
                "-" if cause is None else cause.label,
            )
        )
    return "".join(lines).encode("ascii", "replace")


def tcp_json(records: Sequence[TcpRecord], wall_s: float) -> bytes:
    """One object a line; null is what was not known."""
    return "".join([_json(record, wall_s) for record in records]).encode("ascii", "replace")


def _json(record: TcpRecord, wall_s: float) -> str:
    started, chosen, connected, ended, client, listener, name, taken, sent, upstream, backend, tries, cause = record
    chosen = chosen or ended
    told = {
        "time": datetime.fromtimestamp(started + wall_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
        "mode": "tcp",
        "client": client,
        "listener": listener,
        "sni": name,
        "bytes_in": taken,
        "bytes_out": sent,
        "queue_ms": round((chosen - started) * 1000, 1),
        "connect_ms": round(((connected or ended) - chosen) * 1000, 1),
        "total_ms": round((ended - started) * 1000, 1),
        "upstream": upstream,
        "backend": backend,
        "retries": tries,
        "cause": cause.label if cause is not None else None,
    }
    return json.dumps(told, separators=(",", ":")) + "\n"
