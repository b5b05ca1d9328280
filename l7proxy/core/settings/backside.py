"""How backends are spoken to: TLS, PROXY protocol, DSCP: the keys, and what they mean.

One rule: what has no findings can be built.
"""

from __future__ import annotations

from dataclasses import dataclass

from director.kit.configfile import Section


class BackendTlsSection(Section):
    """`{name: app.internal, ca: /etc/ssl/internal.pem}`"""


@dataclass(frozen=True, slots=True)
class BackendTls:
    """What that means."""


def build_backend_tls(section: BackendTlsSection) -> BackendTls:
    """`section`, which has no findings."""
    return BackendTls()
