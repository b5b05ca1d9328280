"""What is left when a layout, a kernel or its owner ends: nothing.

One rule: each test looks at the machine's own processes and folders, not at what the lab says of itself.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from director.lab import boot, folder
from director.lab.bytecode import PROJECT
from director.lab.errors import KernelLostError, KernelUnavailableError, LabError
from director.lab.folder import SESSION, end_session, processes_of, sweep
from director.lab.kernels import Kernel
from director.lab.waiting import wait_until

pytestmark = pytest.mark.lab

OWNER = """
import sys, time
from director.lab import boot
kernel = boot(sys.argv[1], ipvs=False)
lab = kernel.lay_out()
lab.host("client").start("sleep", "4720")
print(kernel.folder, flush=True)
time.sleep(600)
"""
SLEEP = "import time; time.sleep(4715)"


def kinds(kernel: Kernel) -> list[str]:
    """The kernel that tests use, and the machine's own where it is allowed, IPVS or not."""
    return sorted({kernel.kind, *(["host"] if os.geteuid() == 0 else [])})


def own_links() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir()}


def mentioning(text: str) -> list[str]:
    """Command lines on this machine that hold `text`."""
    return [line for path in Path("/proc").glob("[0-9]*/cmdline") if text in (line := _command_line(path))]


def _command_line(path: Path) -> str:
    try:
        return path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def folders_of(owner: int) -> set[Path]:
    """Folders of the labs that a process has booted, by its keepers' command lines."""
    lines = mentioning(f"director.lab.keeper import main; main() {owner} ")
    return {Path(line.partition(f"main() {owner} ")[2].split()[0]) for line in lines}


def is_gone(place: Path) -> bool:
    return not place.exists() and not mentioning(str(place))


def start_owner(kind: str) -> tuple[subprocess.Popen[str], Path, int]:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, kind], stdout=subprocess.PIPE, text=True, cwd=PROJECT)
    assert owner.stdout is not None
    with owner.stdout:
        place = Path(owner.stdout.readline().strip())
    assert place.name.startswith(folder.PREFIX)
    return owner, place, int((place / SESSION).read_text())


def test_layouts_follow_each_other_and_take_their_processes_along(kernel: Kernel) -> None:
    for turn in range(3):
        with kernel.lay_out() as lab:
            host = lab.host("web-1")
            assert host.run("pgrep", "-f", "sleep 4715").exit_code == 1
            host.run(
                "sh", "-c", "unshare -n setsid sleep 4715 & setsid sleep 4715 & (setsid sleep 4715 &) ; true"
            ).check()
            background = [host.start("sleep", "4715"), host.start("python", "-c", SLEEP, fresh=False)]
            host.write("/tmp/turn", str(turn))
            host.run("ip", "link", "add", "left", "type", "veth", "peer", "name", "right").check()
            assert all(process.alive() for process in background)
        assert not any(process.alive() for process in background)
        with pytest.raises(LabError):
            host.run("true")


def test_a_layout_can_go_while_a_command_waits_for_its_fork(kernel: Kernel) -> None:
    with kernel.lay_out() as lab, ThreadPoolExecutor(1) as pool:
        host = lab.host("client")
        host.run("director", "--version").check()
        forker = host.run("pgrep", "-f", "guest.forker").check().stdout.strip()
        host.run("kill", "-STOP", forker).check()
        waiting = pool.submit(host.run, "director", "--version")
        assert wait_until(lambda: any(kernel.folder.glob("*.order")))
        host.run("true").check()
        lab.close()
        assert waiting.result(10.0).exit_code == -signal.SIGKILL
    with kernel.lay_out() as lab:
        lab.host("client").run("director", "--version").check()


@pytest.mark.parametrize("turn", ["first", "second"])
def test_host_kernel_lays_out_runs_and_leaves_nothing(turn: str) -> None:
    if os.geteuid() != 0:
        with pytest.raises(KernelUnavailableError, match="root"):
            boot("host", ipvs=False)
        return
    links_before = own_links()
    with boot("host", ipvs=False) as kernel, kernel.lay_out() as lab:
        assert kernel.reason == "asked for"
        lab.host("client").run("ping", "-c1", "-W5", lab.host("director").address("lan")).check()
        lab.host("web-1").run("ping", "-c1", "-W5", lab.host("director").address("inside", 6)).check()
        lab.host("client").write("/etc/director/turn", turn)
        lab.host("client").start("sleep", "4716")
        assert lab.host("client").run("touch", f"{PROJECT}/touched").exit_code != 0
        assert own_links() == links_before
        place = kernel.folder
    assert not place.exists()
    assert wait_until(lambda: not mentioning("sleep 4716"))
    assert not Path("/etc/director/turn").exists()
    assert own_links() == links_before


def test_two_boots_at_once_do_not_meet(kernel: Kernel) -> None:
    with boot(kernel.kind) as other, other.lay_out() as lab:
        lab.host("client").write("/tmp/other", "other")
        assert lab.host("director").run("ipvsadm", "-Ln").exit_code == 0
        place = other.folder
        assert place != kernel.folder
    assert not place.exists()
    with kernel.lay_out() as lab:
        assert lab.host("client").run("cat", "/tmp/other").exit_code == 1


def test_killed_owner_leaves_nothing(kernel: Kernel) -> None:
    for kind in kinds(kernel):
        owner, place, session = start_owner(kind)
        assert processes_of(session)
        owner.kill()
        owner.wait(10)
        assert wait_until(partial(is_gone, place), 20), kind
        assert processes_of(session) == []


def test_owner_killed_during_its_boot_leaves_nothing(kernel: Kernel) -> None:
    code = f"from director.lab import boot; boot({kernel.kind!r})"
    owner = subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT)
    assert wait_until(lambda: any((place / SESSION).exists() for place in folders_of(owner.pid)), 60)
    (place,) = folders_of(owner.pid)
    owner.kill()
    owner.wait(10)
    assert wait_until(partial(is_gone, place), 20)


def test_next_boot_sweeps_what_a_killed_keeper_left(kernel: Kernel) -> None:
    for kind in kinds(kernel):
        owner, place, session = start_owner(kind)
        (line,) = mentioning(f"main() {owner.pid} ")
        assert str(place) in line
        owner.send_signal(signal.SIGSTOP)
        for pid in _pids_of(line):
            os.kill(pid, signal.SIGKILL)
        owner.kill()
        owner.wait(10)
        assert place.exists()
        assert wait_until(partial(_swept, place))
        assert wait_until(partial(_is_empty, session), 1.0)
        assert kernel.folder.exists()


def _is_empty(session: int) -> bool:
    return not processes_of(session)


def _swept(place: Path) -> bool:
    sweep()
    return is_gone(place)


def _pids_of(line: str) -> list[int]:
    return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if _command_line(path) == line]


def test_lost_kernel_is_an_error_with_its_console(kernel: Kernel) -> None:
    with boot(kernel.kind) as other:
        session = int((other.folder / SESSION).read_text())
        end_session(session)
        with pytest.raises(KernelLostError, match="console"):
            other.lay_out()
        place = other.folder
    assert not place.exists()


def test_boot_that_takes_too_long_says_what_the_console_said(kernel: Kernel) -> None:
    before = folders_of(os.getpid())
    started_at = time.monotonic()
    with pytest.raises(KernelLostError, match="console"):
        boot(kernel.kind, timeout_s=0.01)
    assert time.monotonic() - started_at < 30
    assert folders_of(os.getpid()) == before


def test_missing_user_mode_kernel_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KernelUnavailableError, match="apt-get install user-mode-linux"):
        boot("uml")


def test_unknown_kernel_names_those_there_are() -> None:
    with pytest.raises(KernelUnavailableError, match="auto, host or uml"):
        boot("hurd")


@pytest.fixture
def clone() -> Iterator[Path]:
    """A copy of the package in the machine's /tmp, wherever TMPDIR points."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        shutil.copytree(PROJECT / "director", Path(folder) / "director", ignore=shutil.ignore_patterns("__pycache__"))
        yield Path(folder)


@pytest.mark.parametrize("kind", ["uml", "host"])
def test_a_project_below_tmp_is_still_seen_by_hosts(kind: str, clone: Path) -> None:
    """Hosts have a /tmp of their own; a clone that lies in the machine's must not vanish under it."""
    script = (
        "from director.lab import boot\n"
        f"with boot({kind!r}, ipvs=False) as kernel, kernel.lay_out() as lab:\n"
        "    where = 'import director; print(director.__file__)'\n"
        "    print(lab.host('client').run('python', '-c', where).check().stdout)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(clone)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        cwd=clone,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{clone}/director/__init__.py"
