"""Servers and both event loops for the tests of this folder, and a host beside a router."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from tests.director.kit.probes.network import Beside, network
from tests.director.kit.probes.servers import make_certificate


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner


@pytest.fixture(scope="session")
def beside_router() -> Iterator[Beside]:
    with network() as beside:
        yield beside


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate of www.example.org and 127.0.0.1, and its key."""
    return make_certificate(tmp_path_factory.mktemp("tls"))
