"""The l7proxy role as the tests use it: its variables and its configuration."""

from __future__ import annotations

from typing import Any

from tests.deploy.director import of_release
from tests.deploy.stage import BACKENDS, Played, Stage

ADDRESS = "10.8.0.2"
"""The machine's own on the clients' network."""


def config(**more: object) -> dict[str, Any]:
    """All requests to the backends, taken at port 80."""
    return {
        "listeners": {"http": {"bind": "0.0.0.0:80"}},
        "routes": [{"name": "all", "upstream": "web"}],
        "upstreams": {"web": {"backends": {name: {"address": where} for name, where in BACKENDS.items()}}},
        "agent": {"bind": "0.0.0.0:9181"},
        "admin": {"socket": "/run/l7proxy/admin.sock"},
        "access_log": "none",
        **more,
    }


def install(stage: Stage, version: str, configuration: dict[str, Any] | None = None, **variables: Any) -> Played:
    """Apply the role."""
    return stage.play("l7proxy", l7proxy_config=configuration or config(), **of_release(version), **variables)
