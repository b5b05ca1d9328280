"""The container file and what stands beside it: linted, whole, and of one mind. Built where an engine runs."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from director.core.config import parse_config
from l7proxy.core.config import load_config

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "container"
FILE = FOLDER / "Containerfile"
USER = "971"


def _instructions(name: str) -> list[str]:
    """What stands behind each NAME, lines that go on joined."""
    text = re.sub(r"^\s*#.*\n", "", FILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [line.partition(" ")[2].strip() for line in text.splitlines() if line.startswith(f"{name} ")]


def _copied() -> list[tuple[list[str], str]]:
    """What is copied from the repository, and to where."""
    words = [line.split() for line in _instructions("COPY") if not line.startswith("--from=")]
    return [(sources, to) for *sources, to in words]


def test_the_linter_has_nothing_against_it() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, "--no-color", FILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_shells_take_what_is_run() -> None:
    runs = _instructions("RUN")
    assert len(runs) >= 4
    for line in runs:
        subprocess.run(["sh", "-n"], input=line, text=True, check=True)


def test_what_is_copied_is_enough_to_build_the_very_wheel(tmp_path: Path) -> None:
    context = tmp_path / "context"
    for sources, to in _copied():
        for source in sources:
            place = context / to / Path(source).name if to == "./" else context / to
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, place)
    command = [sys.executable, "-m", "build", "--no-isolation", "--skip-dependency-check", "--wheel"]
    environment = {**os.environ, "L7PROXY_PURE": "1"}
    done = subprocess.run([*command, str(context)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = (context / "dist").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    modules = {
        str(path.relative_to(ROOT)) for package in ("director", "l7proxy") for path in ROOT.glob(f"{package}/**/*.py")
    }
    assert modules <= names
    assert {f"share/lvs-director/schemas/{program}.schema.json" for program in ("director", "l7proxy")} <= {
        name.partition(".data/data/")[2] for name in names
    }


def test_nothing_secret_and_nothing_made_is_in_the_context() -> None:
    assert not re.search(r"password|token|secret|BEGIN", FILE.read_text(), re.IGNORECASE)
    left_out = (ROOT / ".dockerignore").read_text().splitlines()
    assert {".git", ".venv", "build", "dist", "**/*.so"} <= set(left_out)


def test_l7proxy_is_nobody_in_particular() -> None:
    assert _instructions("USER") == [USER]
    stage = FILE.read_text().partition("AS l7proxy\n")[2].partition("\nFROM ")[0]
    assert f"USER {USER}" in stage


def test_the_programs_are_asked_as_they_can_be() -> None:
    """Each health check is a command that is there, with these options."""
    for line in _instructions("HEALTHCHECK"):
        words = yaml.safe_load(line.partition(" CMD ")[2])
        done = subprocess.run(
            [Path(sys.executable).parent / words[0], *words[1:], "--socket", "/nonexistent"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1, done.stderr  # asked, and nobody is there; a wrong line would be 64


# what is written beside it


def _readme_runs() -> dict[str, str]:
    text = (FOLDER / "README.md").read_text().replace("\\\n", " ")
    return {match[1]: match[0] for match in re.finditer(r"^podman run .*--name (\w+) .*$", text, re.MULTILINE)}


def _services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    return found


def _quadlet(program: str) -> dict[str, list[str]]:
    keys: dict[str, list[str]] = {}
    for line in (FOLDER / f"{program}.container").read_text().splitlines():
        name, is_key, value = line.partition("=")
        if is_key and not line.startswith("#"):
            keys.setdefault(name, []).append(value)
    return keys


@pytest.mark.parametrize("program", ["director", "l7proxy"])
def test_all_three_ways_grant_the_same(program: str) -> None:
    service, quadlet, run = _services()[program], _quadlet(program), _readme_runs()[program]
    granted = sorted(service.get("cap_add", []))
    assert granted == (["NET_ADMIN", "NET_RAW"] if program == "director" else [])
    assert sorted(" ".join(quadlet.get("AddCapability", [])).split()) == granted
    assert sorted(re.findall(r"--cap-add (\S+)", run)) == granted

    assert (service["cap_drop"], quadlet["DropCapability"], "--cap-drop ALL" in run) == (["ALL"], ["ALL"], True)
    assert (service["read_only"], quadlet["ReadOnly"], "--read-only" in run) == (True, ["true"], True)
    assert "no-new-privileges" in run
    assert quadlet["NoNewPrivileges"] == ["true"]
    assert service["security_opt"] == ["no-new-privileges:true"]

    is_host = service.get("network_mode") == "host"
    assert is_host == (program == "director")
    assert (quadlet.get("Network") == ["host"], "--network host" in run) == (is_host, is_host)
    ports = service.get("ports", [])
    assert quadlet.get("PublishPort", []) == ports
    assert re.findall(r"-p (\S+)", run) == ports


@pytest.mark.parametrize("program", ["director", "l7proxy"])
def test_the_compose_file_builds_what_is_there(program: str) -> None:
    build = _services()[program]["build"]
    assert (FOLDER / build["context"]).resolve() == ROOT
    assert ROOT / build["dockerfile"] == FILE
    assert f" AS {build['target']}\n" in FILE.read_text()


@pytest.mark.parametrize("program", ["director", "l7proxy"])
def test_a_quadlet_is_a_unit_file(program: str) -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # keys have capitals
    parser.read(FOLDER / f"{program}.container")
    assert set(parser.sections()) == {"Unit", "Container", "Service", "Install"}
    generator = next(filter(os.path.exists, ("/usr/libexec/podman/quadlet", "/usr/lib/podman/quadlet")), None)
    if generator is not None:
        subprocess.run([generator, "-dryrun"], env={"QUADLET_UNIT_DIRS": str(FOLDER)}, check=True)


def test_configurations_that_are_shown_are_taken() -> None:
    shown = re.findall(r"```yaml\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
    assert shown
    for text in shown:
        load_config(text, "README.md")
    least = (
        "virtual_servers: {w: {address: 192.0.2.1, port: 80, forward: dr, real_servers: {a: {address: 192.0.2.2}}}}\n"
    )
    parse_config(f"settings: report\n{least}", "README.md")


def test_it_is_built_where_an_engine_runs() -> None:
    engine = next((name for name in ("podman", "docker") if _answers(name)), None)
    if engine is None:
        pytest.skip("no podman and no docker answers here: the images are linted, and not built")
    if not os.environ.get("LVS_BUILD_IMAGES"):
        pytest.skip("LVS_BUILD_IMAGES=1 has the images built: it takes minutes, and a registry")
    for target in ("director", "l7proxy"):
        command = [engine, "build", "--file", str(FILE), "--target", target, "--tag", f"{target}:test", str(ROOT)]
        subprocess.run(command, check=True)
        said = subprocess.run([engine, "run", "--rm", f"{target}:test", "--version"], check=True, capture_output=True)
        assert target in said.stdout.decode()


def _answers(engine: str) -> bool:
    if shutil.which(engine) is None:
        return False
    return subprocess.run([engine, "info"], capture_output=True, check=False, timeout=30).returncode == 0
