"""A world for each test, its retries and announcements hurried."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.director.daemon.world import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("director.daemon.RETRY_AFTER_S", 0.02)
    monkeypatch.setattr("director.announcements.EVERY_S", 0.01)
    monkeypatch.setattr("director.daemon.advice", lambda config: ())
    before = signal.getsignal(signal.SIGTERM)
    yield World(tmp_path)
    assert signal.getsignal(signal.SIGTERM) == before
