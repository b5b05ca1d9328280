"""What `python -m build` makes is whole: installed alone, it is both programs, and they serve.

Nothing is downloaded: packages that they need are found in the Python that runs the tests.
"""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.director.kit.probes.servers import running
from tests.wire.harness import free_port

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
PACKAGES = ("director", "l7proxy")
COMPILED_FROM = (".pyx", ".pxd")
QUICK = {"L7PROXY_CFLAGS": "-O0 -g0"}  # a fifth of the time, and the same program


def _build(source: Path, kind: str, to: Path, environment: Mapping[str, str]) -> Path:
    command = [sys.executable, "-m", "build", "--no-isolation", "--skip-dependency-check", f"--{kind}"]
    done = subprocess.run(
        [*command, "--outdir", str(to), str(source)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    (made,) = to.iterdir()
    return made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"), {})


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = folder.iterdir()
    return source


@pytest.fixture(scope="module")
def pure(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(unpacked, "wheel", tmp_path_factory.mktemp("pure"), {"L7PROXY_PURE": "1"})


@pytest.fixture(scope="module")
def compiled(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("there is no C compiler: apt-get install gcc python3-dev")
    source = tmp_path_factory.mktemp("compiled") / "source"
    shutil.copytree(unpacked, source)
    shutil.rmtree(source / "build", ignore_errors=True)
    made = ROOT / "build" / "l7proxy"
    if made.is_dir():  # half of the work: Cython makes C anew of what is newer than it
        shutil.copytree(made, source / "build" / "l7proxy")
    return _build(source, "wheel", tmp_path_factory.mktemp("wheel"), QUICK)


def _tree(*left_out: str) -> set[str]:
    """The files of both packages, as they stand here."""
    found = {path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()}
    made = {".pyc", ".so"}
    return {str(path.relative_to(ROOT)) for path in found if path.suffix not in made and path.suffix not in left_out}


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def _below(names: set[str]) -> set[str]:
    return {name for name in names if name.partition("/")[0] in PACKAGES and not name.endswith("/")}


def test_the_sdist_has_all_that_a_build_needs_and_no_more(unpacked: Path) -> None:
    names = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    names = {name for name in names if not name.startswith("build/")}
    assert _below(names) == _tree()
    assert any(name.endswith(".pxd") for name in names)
    others = {name for name in names - _below(names) if not name.startswith("lvs_director.egg-info/")}
    assert others == {
        *("LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg", "setup.py"),
        *(f"deploy/schemas/{program}.schema.json" for program in PACKAGES),
    }


def test_the_pure_wheel_has_the_packages_and_no_more(pure: Path) -> None:
    assert pure.name.endswith("-py3-none-any.whl")
    names = _names(pure)
    assert _below(names) == _tree(*COMPILED_FROM)
    others = {re.sub(r"^[^/]*\.(data|dist-info)/", r"\1/", name) for name in names - _below(names)}
    assert others == {
        *(f"data/data/share/lvs-director/schemas/{program}.schema.json" for program in PACKAGES),
        *(f"dist-info/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt")),
        "dist-info/licenses/LICENSE",
    }


def test_the_compiled_wheel_has_the_same_and_every_module_that_is_compiled(pure: Path, compiled: Path) -> None:
    assert re.search(r"-cp3\d+-cp3\d+t?-linux_\w+\.whl$", compiled.name), compiled.name
    made = {name for name in _names(compiled) if name.endswith(".so")}
    assert _names(compiled) - made == _names(pure)
    from_names = re.findall(r'^    "(l7proxy/.*)\.pyx?",$', (ROOT / "setup.py").read_text(), re.MULTILINE)
    assert {name.partition(".")[0] for name in made} == set(from_names)


def test_the_version_is_the_same_wherever_a_release_is_named() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    role = (ROOT / "deploy/ansible/roles/program/defaults/main.yml").read_text()
    assert f"program_release: {version}\n" in role


@pytest.mark.parametrize("kind", ["pure", "compiled"])
def test_what_is_installed_runs_and_serves(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    _install(request.getfixturevalue(kind), venv)
    files = _examples(tmp_path)

    assert _said(venv, "director", "--version").startswith("director, version ")
    assert f"({'python' if kind == 'pure' else 'compiled'})" in _said(venv, "l7proxy", "--version")
    for program, file in files.items():
        assert ": ok" in _said(venv, program, "check", str(file))
        schema = venv / "share" / "lvs-director" / "schemas" / f"{program}.schema.json"
        assert schema.read_text() == _said(venv, program, "schema")
    assert "client" in _said(venv, "director", "lab", "topology")

    port, file = free_port(), tmp_path / "served.yaml"
    file.write_text(
        f"listeners: {{http: {{bind: '127.0.0.1:{port}'}}}}\n"
        "routes: [{respond: {status: 200, body: released}}]\n"
        "upstreams: {none: {backends: {a: {address: '127.0.0.1:1'}}}}\n"
    )
    url = f"http://127.0.0.1:{port}/"
    with (
        running([str(venv / "bin" / "l7proxy"), "run", str(file)], tmp_path, [port]),
        urlopen(url, timeout=10) as answer,
    ):
        assert answer.read() == b"released"


def _install(wheel: Path, venv: Path) -> None:
    """The wheel alone, in a Python that sees this one's packages behind its own."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    python = str(venv / "bin" / "python")
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, "--no-index", "--no-deps", "--no-compile", str(wheel)], check=True)
    packages = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    )
    borrowed = next(path for path in site.getsitepackages() if Path(path, "click").is_dir())
    Path(packages.stdout.strip(), "borrowed.pth").write_text(f"{borrowed}\n")
    found = subprocess.run(
        [python, "-c", "import director, l7proxy; print(*director.__path__, *l7proxy.__path__)"],
        cwd=venv, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert all(path.startswith(str(venv)) for path in found.stdout.split()), "it is the tree that would be tried"


def _said(venv: Path, *words: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "L7PROXY"))}
    done = subprocess.run(
        [venv / "bin" / words[0], *words[1:]], cwd=venv, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _examples(folder: Path) -> dict[str, Path]:
    """The first file of README for each program."""
    found = {}
    for program in PACKAGES:
        text = (ROOT / "README.md").read_text()
        match = re.search(rf"`/etc/{program}/{program}\.yaml`:\n\n```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        assert match is not None, f"README has no {program}.yaml"
        found[program] = folder / f"{program}.yaml"
        found[program].write_text(match[1])
    return found
