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


def release(version: str, *, compiled: bool = False) -> Path:
    """A folder with the wheels of a release that says it is `version`; `compiled` has l7proxy's faster modules.

    Raises: CalledProcessError, with what pip has said.
    """
    sources = [part for path in _files() for part in (str(path.relative_to(PROJECT)), path.read_bytes())]
    pins = (PROJECT / "constraints.txt").read_bytes()
    python = sys.version.split()[0].rpartition(".")[0]
    key = key_of(version, python, str(compiled), pins, *sources)
    return cached("release", key, lambda folder: _make(version, compiled, folder))


def _make(version: str, compiled: bool, folder: Path) -> None:
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
    environment = {**os.environ} if compiled else {**os.environ, "L7PROXY_PURE": "1"}
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source), env=environment)
    shutil.rmtree(source)
    for wheel in _dependencies().iterdir():
        os.link(wheel, folder / wheel.name)


def _dependencies() -> Path:
    project = (PROJECT / "pyproject.toml").read_text()
    wanted = tomllib.loads(project)["project"]["dependencies"]
    pins = PROJECT / "constraints.txt"
    key = key_of(sys.version, pins.read_bytes(), *wanted)
    return cached("wheels", key, lambda folder: _pip("wheel", "-c", str(pins), "-w", str(folder), *wanted))


def _pip(*arguments: str, env: dict[str, str] | None = None) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with {done.returncode}:\n{done.stderr[-4000:]}")


def _files() -> Iterator[Path]:
    for name in FROM:
        path = PROJECT / name
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        for each in found:
            kept = each.suffix not in (".so", ".pyc") and "deploy/ansible" not in str(each)
            if each.is_file() and kept and ".egg-info" not in str(each):
                yield each
