"""One contract for the kernel's IPVS table: the fake keeps it, and so does a real kernel."""

from __future__ import annotations

import json
from typing import cast

import pytest

from director.lab.hosts import Lab
from tests.contract.fake_kernel import FakeKernel
from tests.contract.suite import TRIALS


@pytest.mark.unit
@pytest.mark.parametrize("name", TRIALS)
def test_fake_keeps_the_contract(name: str) -> None:
    TRIALS[name](FakeKernel())


@pytest.fixture(scope="module")
def outcomes(lab: Lab) -> dict[str, str | None]:
    """The suite on the lab's director, in one process."""
    done = lab.host("director").run("python", "-m", "tests.contract.guest_kernel", timeout_s=90).check()
    return cast("dict[str, str | None]", json.loads(done.stdout))


@pytest.mark.lab
@pytest.mark.parametrize("name", TRIALS)
def test_kernel_keeps_the_contract(outcomes: dict[str, str | None], name: str) -> None:
    assert outcomes[name] is None, outcomes[name]
