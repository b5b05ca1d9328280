"""The examples in docstrings of the pure packages hold."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from types import ModuleType

import pytest

import director.core
import director.doctor
import director.kit
import l7proxy.core

pytestmark = pytest.mark.unit


def _modules(*packages: ModuleType) -> list[str]:
    return [info.name for each in packages for info in pkgutil.walk_packages(each.__path__, f"{each.__name__}.")]


@pytest.mark.parametrize("name", _modules(director.core, director.doctor, director.kit, l7proxy.core))
def test_examples_hold(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_examples_are_found() -> None:
    assert doctest.testmod(importlib.import_module("director.kit.net")).attempted > 0
