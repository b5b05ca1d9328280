"""Releases of this project as an operator has them: a folder of wheels, the project's own and all it depends on.

One rule: made from the checkout as it is, with the pinned versions; two releases differ in nothing but their numbers.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from director.lab.bytecode import PROJECT
from tests.deploy.cache import cached, key_of

FROM = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "director", "l7proxy", "deploy")
_LEFT = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info", "ansible", ".*")


class WheelsError(Exception):
    """A release was not made, and why."""


def release(version: str, tree: Path) -> Path:
    """A folder with the wheels of a release that says it is `version`, for the Python of `tree`.

    l7proxy's compiled modules are left out: they take a minute, and change nothing but its speed.

    Raises: WheelsError, with what pip has said.
    """
    sources = [part for path in _files() for part in (str(path.relative_to(PROJECT)), path.read_bytes())]
    pins = (PROJECT / "constraints.txt").read_bytes()
    python = (tree / "usr/bin/python3").readlink().name.removeprefix("python")
    key = key_of(version, python, pins, *sources)
    return cached("release", key, lambda folder: _make(version, python, folder))


def _make(version: str, python: str, folder: Path) -> None:
    source = folder / "source"
    for name in FROM:
        path = PROJECT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=_LEFT)
        elif path.exists():
            source.mkdir(exist_ok=True)
            shutil.copy(path, source / name)
    project = source / "pyproject.toml"
    project.write_text(re.sub(r'(?m)^version = ".*"$', f'version = "{version}"', project.read_text(), count=1))
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source))
    shutil.rmtree(source)
    for wheel in _dependencies(python).iterdir():
        os.link(wheel, folder / wheel.name)


def _dependencies(python: str) -> Path:
    project = (PROJECT / "pyproject.toml").read_text()
    wanted = tomllib.loads(project)["project"]["dependencies"]
    pins = PROJECT / "constraints.txt"
    key = key_of(python, pins.read_bytes(), *wanted)
    chosen = ("--only-binary=:all:", "--python-version", python, "--constraint", str(pins))
    return cached("wheels", key, lambda folder: _pip("download", *chosen, "--dest", str(folder), *wanted))


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    environment = {**os.environ, "L7PROXY_PURE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise WheelsError(f"{' '.join(command)} failed with {done.returncode}:\n{done.stderr[-4000:]}")


def _files() -> Iterator[Path]:
    for name in FROM:
        path = PROJECT / name
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        for each in found:
            kept = each.suffix not in (".so", ".pyc") and "deploy/ansible" not in str(each)
            if each.is_file() and kept and ".egg-info" not in str(each):
                yield each
