"""Where the director's metrics are served, as the file says it.

One rule: as schema.py; there is no login, so an address is named in full and never assumed.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PlainValidator, WithJsonSchema

from director.kit.configfile import Section
from director.kit.net import Endpoint, parse_endpoint
from director.kit.shown import shown

USUAL_PORT = 9109


def _bind(value: object) -> Endpoint:
    if isinstance(value, Endpoint):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536:
        raise ValueError(f'{value} is a port without an address: write "127.0.0.1:{value}"')
    if not isinstance(value, str):
        raise ValueError(f'{shown(value)} is not address:port: write one such as "127.0.0.1:{USUAL_PORT}"')
    endpoint = parse_endpoint(value)
    if endpoint.port == 0:
        raise ValueError(f"{value!r} has port 0: use 1 to 65535, such as {USUAL_PORT}")
    return endpoint


class MetricsSection(Section):
    """What Prometheus reads from a running director."""

    bind: Annotated[Endpoint, PlainValidator(_bind), WithJsonSchema({"type": "string"})] = Field(
        description=f"address:port for GET /metrics and /healthz, such as 127.0.0.1:{USUAL_PORT}; there is no login, "
        "so keep it local"
    )
