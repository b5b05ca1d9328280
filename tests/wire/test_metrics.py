"""What Prometheus reads at the admin endpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.wire.harness import Origin, fields_of, free_port, live, named, running

pytestmark = pytest.mark.unit


@live
async def test_metrics_tell_of_backends_and_their_links(tmp_path: Path) -> None:
    port = free_port()
    more = f"admin: {{bind: '127.0.0.1:{port}'}}"
    async with running(tmp_path, Origin(named), free_port(), more=more) as proxy:
        for _ in range(4):
            await proxy.get()
        proxy.port = port
        answer = await proxy.get("/metrics")
    assert fields_of(answer, b"content-type") == [b"text/plain; version=0.0.4; charset=utf-8"]
    lines = dict(line.rsplit(" ", 1) for line in answer.decode().splitlines() if line.startswith("l7proxy_"))
    at_b0 = '{backend="b0",upstream="up"}'
    assert lines[f"l7proxy_backend_requests_total{at_b0}"] == "4.0"
    assert lines[f"l7proxy_backend_connections_total{at_b0}"] == "1.0"
    assert lines[f"l7proxy_backend_reuses_total{at_b0}"] == "3.0"
    assert lines[f"l7proxy_backend_idle_connections{at_b0}"] == "1.0"
    assert lines[f"l7proxy_backend_up{at_b0}"] == "1.0"
    assert lines["l7proxy_requests_in_flight"] == "0.0"
    assert 10 < float(lines["l7proxy_open_descriptors"]) < float(lines["l7proxy_descriptors_limit"])
    assert 0 < float(lines["l7proxy_client_connections_limit"]) <= 10_000
    assert (lines["l7proxy_workers"], lines["l7proxy_worker_deaths_total"]) == ("1.0", "0.0")
    assert lines["l7proxy_config_last_reload_successful"] == "1.0"
