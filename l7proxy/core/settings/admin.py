"""Where operators ask, and what is remembered for them: the keys, and what they mean.

One rule: what has no findings can be built.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from director.kit.configfile import Finding, Section
from l7proxy.core.settings.fields import EndpointText, FileText, no_port_alone

LONGEST_SOCKET_BYTES = 107
"""unix(7): sun_path has 108, the last one 0."""


class AdminSection(Section):
    """The admin endpoint: what reads is also at `bind`, what changes something only at `socket`."""

    bind: Annotated[EndpointText, no_port_alone("127.0.0.1")] | None = Field(
        None, description="address:port for GET /healthz, /v1/status and /metrics; there is no login, so keep it local"
    )
    socket: FileText | None = Field(
        None,
        description="a Unix socket for `l7proxy status`, `drain`, `failures` and the like, mode 0660; they look for "
        "/run/l7proxy/admin.sock",
    )


def admin_findings(section: AdminSection | None, state: str | None) -> Iterator[Finding]:
    """What is wrong about both."""
    if section is None:
        return
    if section.bind is None and section.socket is None:
        yield ("admin",), "nobody can ask: name a `socket`, such as /run/l7proxy/admin.sock, or a `bind`"
    if section.socket is not None:
        size = len(section.socket.encode())
        if size > LONGEST_SOCKET_BYTES:
            yield (
                ("admin", "socket"),
                f"the path has {size} bytes, and a socket's has {LONGEST_SOCKET_BYTES} at most: write a shorter one, "
                "such as /run/l7proxy/admin.sock",
            )
        elif section.socket.endswith("/"):
            yield ("admin", "socket"), f"{section.socket!r} is a directory: name the socket in it, such as admin.sock"
        if state is not None and state == section.socket:
            yield ("state",), "is the admin socket already: name another file"
