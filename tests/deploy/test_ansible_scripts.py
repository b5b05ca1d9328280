"""What the program's role runs on a machine, in a mount namespace: broken off, somebody else's release, still needed.

One rule: the scripts are run as Ansible runs them, by `sh -s`; a release is stood in for by its folder.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.unit,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes a mount namespace: run as root"),
]

FILES = Path(__file__).parents[2] / "deploy/ansible/roles/program/files"
UNITS = "/usr/lib/systemd/system"
OWN = ("/usr/local/sbin", "/etc", UNITS)
"""Folders that are the namespace's own where they are there."""


class Host:
    """A root for releases, and this machine's other folders hidden below empty ones that last."""

    def __init__(self, place: Path) -> None:
        self.root, self.state = place / "lvs", place / "state"
        self.state.mkdir()
        (self.root / "releases").mkdir(parents=True)
        self.own = {folder: place / folder.strip("/").replace("/", "-") for folder in OWN if Path(folder).is_dir()}
        for folder in self.own.values():
            folder.mkdir()
        (self.own["/etc"] / "systemd/system").mkdir(parents=True)
        (self.own["/etc"] / "group").write_text("root:x:0:\n")
        (self.own["/etc"] / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")

    def run(self, script: str, *words: str | Path, path: str = "") -> subprocess.CompletedProcess[str]:
        """One of the role's scripts, for this root."""
        return self.shell((FILES / script).read_text(), self.root, *words, path=path)

    def shell(self, text: str, *words: str | Path, path: str = "") -> subprocess.CompletedProcess[str]:
        """A script, with programs of `path` before the machine's, in a network of its own."""
        mounts = f"mount -t tmpfs none /run; mount --bind {self.state} /var/lib; "
        mounts += "".join(f"mount --bind {ours} {folder}; " for folder, ours in self.own.items())
        inside = f'{mounts} exec sh -s -- "$@"'
        command = ["unshare", "--mount", "--net", "sh", "-c", inside, "sh", *map(str, words)]
        env = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"}
        return subprocess.run(command, input=text, env=env, capture_output=True, text=True, timeout=30, check=False)

    def install(self, release: str, path: str = "") -> subprocess.CompletedProcess[str]:
        return self.run("install.sh", release, "/bin/false", "wheels", "/nowhere", "", "lvs-director", path=path)

    def release(self, name: str, *, complete: bool = True) -> Path:
        at = self.root / "releases" / name
        (at / "bin").mkdir(parents=True)
        if complete:
            (at / ".complete").write_text("wheels\n")
        return at

    def look(self, release: str, *paths: Path) -> dict[str, str]:
        done = self.run("look.sh", release, "", "root", self.root, *paths)
        assert done.returncode == 0, done.stderr
        return dict(line.split("=", 1) for line in done.stdout.splitlines())


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_run_that_is_killed_at_the_switch_is_made_up_for(host: Host, tmp_path: Path) -> None:
    for name in ("1", "2", "3"):
        host.release(name)
        assert name == "3" or host.install(name).returncode == 0
    killing = tmp_path / "killing"
    killing.mkdir()
    (killing / "mv").write_text('#!/bin/sh\n/bin/mv "$@"\nkill -9 $PPID\n')
    (killing / "mv").chmod(0o755)
    links = [host.own["/usr/local/sbin"] / name for name in ("director", "l7proxy")]
    for link in links:
        link.unlink()

    assert host.install("3", path=str(killing)).returncode != 0
    # Nothing looks undone to the next run, so nothing may be.
    assert host.look("3")["current"] == "3"
    assert [str(link.readlink()) for link in links] == [f"{host.root}/current/bin/{link.name}" for link in links]
    assert (host.root / ".former").read_text() == "2\n"
    assert host.install("3").returncode == 0
    assert sorted(path.name for path in (host.root / "releases").iterdir()) == ["2", "3"]


def test_a_release_in_use_that_the_role_has_not_made_is_left_alone(host: Host) -> None:
    at = host.release("1", complete=False)
    (host.root / "current").symlink_to("releases/1")
    done = host.install("1")
    assert done.returncode == 1
    assert f"{at} is in use, and this role has not made it" in done.stderr
    assert (at / "bin").is_dir()


def test_a_release_that_was_left_half_made_is_made_anew(host: Host) -> None:
    at = host.release("1", complete=False)
    host.install("1")  # with a Python that makes nothing
    assert not (at / "bin").exists()


def test_files_that_the_system_has_not_read_are_seen(host: Host, tmp_path: Path) -> None:
    unit, stamp = tmp_path / "unit", host.root / ".settled-root"
    unit.touch()
    assert host.look("1", unit)["settled"] == "no"
    stamp.touch()
    os.utime(stamp, (unit.stat().st_mtime + 1,) * 2)
    assert host.look("1", unit)["settled"] == "yes"
    os.utime(unit, (unit.stat().st_mtime + 2,) * 2)
    assert host.look("1", unit)["settled"] == "no"


def test_a_setting_that_is_not_named_any_more_goes_back(host: Host, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "systemctl").write_text("#!/bin/sh\n")  # there may be no systemd; its part is not looked at here
    (there / "systemctl").chmod(0o755)
    for number, text in enumerate(
        ("net.ipv4.tcp_fin_timeout = 31\nnet.ipv4.tcp_retries2 = 9\n", "net.ipv4.tcp_retries2 = 9\n")
    ):
        (tmp_path / f"{number}.conf").write_text(text)
    settle = f"sh {FILES}/settle.sh {host.root} root {tmp_path}/folder >/dev/null"
    asked = "sysctl -n net.ipv4.tcp_fin_timeout net.ipv4.tcp_retries2"
    lines = ["mkdir /etc/sysctl.d", asked]
    for number in (0, 1):
        lines += [f"cp {tmp_path}/{number}.conf /etc/sysctl.d/60-root.conf", settle, asked]
    done = host.shell("\n".join(["set -eu", *lines]), path=str(there))
    assert done.returncode == 0, done.stderr
    before, both, one = (done.stdout.split()[at : at + 2] for at in (0, 2, 4))
    assert both == ["31", "9"]
    assert one == [before[0], "9"]
    assert (host.root / "root.sysctls").read_text() == f"net.ipv4.tcp_retries2 = {before[1]}\n"


@pytest.mark.parametrize("enabled", [False, True])
def test_the_units_of_a_package_keep_the_program_only_where_one_is_enabled(host: Host, enabled: bool) -> None:
    if UNITS not in host.own:
        pytest.skip("there is no systemd here")
    (host.own[UNITS] / "l7proxy.service").write_text("[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=a.target\n")
    if enabled:
        wants = host.own["/etc"] / "systemd/system/a.target.wants"
        wants.mkdir()
        (wants / "l7proxy.service").symlink_to(f"{UNITS}/l7proxy.service")
    done = host.run("remove.sh", "no")
    assert done.returncode == 0, done.stderr
    assert ("kept: l7proxy.service needs it" in done.stdout) == enabled
    assert host.root.exists() == enabled


@pytest.mark.parametrize("role", ["director", "l7proxy", "realserver"])
def test_absence_changes_nothing_where_nothing_was(host: Host, tmp_path: Path, role: str) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "modprobe").write_text("#!/bin/sh\n")
    (there / "modprobe").chmod(0o755)
    words = ["no", f"{host.root}/none", *([] if role == "realserver" else ["no", "no"])]
    if role == "realserver":  # but a director, by a package: it is enabled, and remembers what it made
        (host.own[UNITS] / "director.service").write_text("[Service]\nExecStart=/bin/true\n")
        wants = host.own["/etc"] / "systemd/system/multi-user.target.wants"
        wants.mkdir()
        (wants / "director.service").symlink_to(f"{UNITS}/director.service")
        (host.state / "director").mkdir()
    no_manager = 'systemctl() { [ "$1" = daemon-reload ] || command systemctl "$@"; }\n'
    script = (FILES.parents[1] / role / "files/remove.sh").read_text()
    done = host.shell(no_manager + script, *words, path=str(there))
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert (host.state / "director").exists() == (role == "realserver")
