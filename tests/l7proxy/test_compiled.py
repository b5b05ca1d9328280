"""Which code runs: what was compiled, or what it was compiled from."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import l7proxy
from l7proxy.core import head, scan

pytestmark = pytest.mark.unit

SAY = (
    "import l7proxy.http.front as f, l7proxy.core.scan as s; print(s.scan_request is s.plain_scan_request, f.__file__)"
)


def said(**environment: str) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-c", SAY], env={**os.environ, **environment}, check=True, capture_output=True, text=True
    )
    return run.stdout.split()


def test_python_runs_where_it_is_asked_for() -> None:
    plain, file = said(L7PROXY_PURE="1")
    assert plain == "True"
    assert file.endswith(".py")


@pytest.mark.skipif(l7proxy.CODE != "compiled", reason=f"what runs is {l7proxy.CODE}")
def test_what_is_compiled_is_used() -> None:
    assert said(L7PROXY_PURE="")[0] == "False"
    assert scan.scan_request is not scan.plain_scan_request
    assert head.RequestHead.__module__ == "l7proxy.core._scan"


ROOT = Path(l7proxy.__file__).parent


@pytest.mark.parametrize(
    "declared",
    [file for file in sorted(ROOT.rglob("*.pxd")) if file.with_suffix(".py").exists()],
    ids=lambda file: file.stem,
)
def test_what_a_compiled_class_sets_is_declared(declared: Path) -> None:
    """A compiled class has no other attributes than those of its .pxd."""
    text = declared.read_text()
    for node in ast.parse(declared.with_suffix(".py").read_text()).body:
        if not isinstance(node, ast.ClassDef) or f"cdef class {node.name}:" not in text:
            continue
        body = text.partition(f"cdef class {node.name}:")[2].partition("cdef class ")[0]
        known = set(re.findall(r"^ +cdef public .*?(\w+)$", body, re.MULTILINE))
        used = {
            each.attr
            for each in ast.walk(node)
            if isinstance(each, ast.Attribute)
            and isinstance(each.ctx, ast.Store)
            and isinstance(each.value, ast.Name)
            and each.value.id == "self"
        }
        assert used == known, f"{declared} does not declare what {node.name} sets: {sorted(used ^ known)}"


def test_a_source_that_changed_is_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("L7PROXY_PURE", raising=False)
    package = tmp_path / "l7proxy"
    (package / "core").mkdir(parents=True)
    source, made = package / "core" / "_scan.pyx", package / "core" / f"_scan{EXTENSION_SUFFIXES[0]}"
    assert l7proxy._compiled_in(package) == "python"
    source.touch()
    made.touch()
    os.utime(source, (1, 1))
    assert l7proxy._compiled_in(package) == "compiled"
    (tmp_path / "pyproject.toml").touch()
    assert l7proxy._compiled_in(package) == "compiled"
    os.utime(made, (0, 0))
    assert "older than its source" in l7proxy._compiled_in(package)
    (tmp_path / "pyproject.toml").unlink()  # an installed package: its files have the order of their unpacking
    assert l7proxy._compiled_in(package) == "compiled"
