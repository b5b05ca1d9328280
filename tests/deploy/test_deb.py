"""The Debian package's scripts, by the real dpkg on a root of its own; and what nfpm is told to put into it.

A release is stood in for by a folder of two scripts: what matters here is where it goes, and when. `make deb` makes the
whole one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "deploy" / "package"
FILLED = {"ARCH": "all", "LIBC": "2.36", "PYTHON": "3.11", "PYTHON_AFTER": "3.12~"}
PLACES = {
    "director.service": "/usr/lib/systemd/system/director.service",
    "director.sysusers": "/usr/lib/sysusers.d/director.conf",
    "director.tmpfiles": "/usr/lib/tmpfiles.d/director.conf",
    "director.modules-load": "/usr/lib/modules-load.d/director.conf",
    "l7proxy.service": "/usr/lib/systemd/system/l7proxy.service",
    "l7proxy.socket": "/usr/lib/systemd/system/l7proxy.socket",
    "l7proxy.sysusers": "/usr/lib/sysusers.d/l7proxy.conf",
}

needs_dpkg = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("dpkg", "systemd-sysusers"))),
    reason="packages are installed by root, with dpkg and systemd-sysusers",
)


def _packed(version: str, folder: Path) -> Path:
    """A package of that version, as `make deb` makes it, but for the release in it."""
    at = folder / version
    programs = at / "root" / "opt" / "lvs-director" / "package" / "bin"
    programs.mkdir(parents=True)
    for program in ("director", "l7proxy"):
        (programs / program).write_text(f"#!/bin/sh\necho {program} {version}\n")
        (programs / program).chmod(0o755)
    for name in ("nfpm.yaml", "postinst"):
        text = (PACKAGE / name).read_text()
        for key, value in {**FILLED, "VERSION": version, "BUILD": str(at)}.items():
            text = text.replace(f"@{key}@", value)
        assert not re.search("@[A-Z_]+@", text)
        (at / name).write_text(text)
    command = [str(Path(sys.executable).parent / "nfpm"), "package", "--packager", "deb", "--target", str(at)]
    subprocess.run([*command, "--config", str(at / "nfpm.yaml")], cwd=ROOT, check=True, capture_output=True)
    (made,) = at.glob("*.deb")
    return made


class _Dpkg:
    """dpkg on a root of its own, where no service manager runs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("etc", "var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers"):
            (root / folder).mkdir(parents=True)
        for file in ("var/lib/dpkg/status", "var/lib/dpkg/available", "etc/passwd", "etc/group"):
            (root / file).touch()

    def __call__(self, *words: str | Path) -> None:
        options = [f"--root={self.root}", "--force-script-chrootless", "--force-depends", "--force-architecture"]
        done = subprocess.run(["dpkg", *options, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    @property
    def releases(self) -> set[str]:
        return {path.name for path in (self.root / "opt/lvs-director/releases").iterdir()}

    def runs(self) -> str:
        """What an operator who types `director` gets: the link is followed in this root."""
        link = (self.root / "usr/sbin/director").readlink()
        program = self.root / link.relative_to("/")
        return subprocess.run([program], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("script", ["postinst", "prerm", "postrm"])
def test_scripts_are_what_a_bare_shell_takes(script: str) -> None:
    subprocess.run(["sh", "-n", PACKAGE / script], check=True)
    assert (PACKAGE / script).read_text().startswith("#!/bin/sh\n")


def test_the_builder_is_what_bash_takes() -> None:
    subprocess.run(["bash", "-n", PACKAGE / "build-deb"], check=True)


def test_every_unit_file_has_its_place() -> None:
    told = dict(re.findall(r"src: deploy/systemd/(\S+), dst: (\S+),", (PACKAGE / "nfpm.yaml").read_text()))
    assert told == PLACES
    assert {path.name for path in (ROOT / "deploy" / "systemd").iterdir()} == set(PLACES)


@needs_dpkg
def test_releases_stand_side_by_side_and_two_are_kept(tmp_path: Path) -> None:
    dpkg = _Dpkg(tmp_path / "root")
    dpkg("--install", _packed("0.1.0", tmp_path))
    assert dpkg.runs() == "director 0.1.0"
    assert (dpkg.root / "etc/director").stat().st_mode & 0o777 == 0o750
    users = (dpkg.root / "etc/passwd").read_text()
    assert "director:x:" in users
    assert "l7proxy:x:" in users

    running = dpkg.root / "opt/lvs-director/releases/0.1.0/bin/director"
    before = running.stat().st_ino
    dpkg("--install", _packed("0.2.0", tmp_path))
    assert dpkg.runs() == "director 0.2.0"
    assert dpkg.releases == {"0.1.0", "0.2.0"}
    assert running.stat().st_ino == before  # what runs has lost none of its files
    assert running.read_text().endswith("0.1.0\n")

    dpkg("--install", _packed("0.3.0", tmp_path))
    assert dpkg.runs() == "director 0.3.0"
    assert dpkg.releases == {"0.2.0", "0.3.0"}


@needs_dpkg
def test_the_same_again_and_the_former_again_change_what_they_must(tmp_path: Path) -> None:
    dpkg, first, second = _Dpkg(tmp_path / "root"), _packed("0.1.0", tmp_path), _packed("0.2.0", tmp_path)
    for package, says, there in (
        (first, "director 0.1.0", {"0.1.0"}),
        (first, "director 0.1.0", {"0.1.0"}),
        (second, "director 0.2.0", {"0.1.0", "0.2.0"}),
        (first, "director 0.1.0", {"0.1.0", "0.2.0"}),
    ):
        dpkg("--install", package)
        assert dpkg.runs() == says
        assert dpkg.releases == there


@needs_dpkg
def test_removal_keeps_what_was_written_and_a_purge_what_the_operator_wrote(tmp_path: Path) -> None:
    dpkg = _Dpkg(tmp_path / "root")
    dpkg("--install", _packed("0.1.0", tmp_path))
    mine, state = dpkg.root / "etc/director/director.yaml", dpkg.root / "var/lib/director/state.json"
    state.parent.mkdir()
    for file in (mine, state):
        file.write_text("mine\n")

    dpkg("--remove", "lvs-director")
    assert mine.exists()
    assert state.exists()
    assert not (dpkg.root / "opt/lvs-director").exists()
    assert not (dpkg.root / "usr/sbin/director").is_symlink()

    dpkg("--purge", "lvs-director")
    assert mine.exists()
    assert not state.exists()
    assert not (dpkg.root / "etc/l7proxy").exists()  # nobody has put anything there


@needs_dpkg
def test_a_release_that_somebody_else_has_put_there_stays(tmp_path: Path) -> None:
    dpkg = _Dpkg(tmp_path / "root")
    foreign = dpkg.root / "opt/lvs-director/releases/by-hand/bin"
    foreign.mkdir(parents=True)
    for version in ("0.1.0", "0.2.0"):
        dpkg("--install", _packed(version, tmp_path))
    assert dpkg.releases == {"by-hand", "0.1.0", "0.2.0"}

    current = dpkg.root / "opt/lvs-director/current"
    current.unlink()
    current.symlink_to("releases/by-hand")  # the operator has moved on
    dpkg("--purge", "lvs-director")
    assert dpkg.releases == {"by-hand"}
    assert current.readlink() == Path("releases/by-hand")
