"""How many descriptors a process has, by what its kernel tells."""

from __future__ import annotations

import os

import pytest

from l7proxy import descriptors

pytestmark = pytest.mark.unit


def test_each_is_counted() -> None:
    before = descriptors.in_use()
    held = [os.dup(0) for _ in range(10)]
    try:
        assert descriptors.in_use() in {before, before + 10}, "older kernels are asked once a minute"
        descriptors._listed.cache_clear()
        assert before + 10 == descriptors._listed(0) == descriptors.in_use()
    finally:
        for each in held:
            os.close(each)
