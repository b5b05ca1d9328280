"""One kernel for the whole run, and hosts on it for each module.

One rule: a kernel that cannot be booted is a failure with its reason, never a skip.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from director.lab import boot

if TYPE_CHECKING:
    from director.lab.hosts import Lab
    from director.lab.kernels import Kernel

# A slow machine is no counterexample, and chance may find one that the last run has not.
settings.register_profile("lvs", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=False)
settings.load_profile("lvs")


@pytest.fixture(scope="module", autouse=True)
def _earlier_tests_cost_nothing() -> None:
    """What earlier modules have left is collected now, and what stays of them is not looked at again: some tests count
    descriptors after a collection, which took 20 times as long at the end of a whole run."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def kernel() -> Iterator[Kernel]:
    """A booted kernel; LVS_LAB_KERNEL chooses `host` or `uml`."""
    with boot(os.environ.get("LVS_LAB_KERNEL", "auto")) as booted:
        yield booted


@pytest.fixture(scope="module")
def lab(kernel: Kernel) -> Iterator[Lab]:
    """The hosts of the default topology, fresh for the module."""
    with kernel.lay_out() as laid_out:
        yield laid_out
