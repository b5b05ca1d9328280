"""Programs that are run: good, broken and hostile ones, for real."""

from __future__ import annotations

import asyncio
import os
import pwd
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from director.kit import scripts
from director.kit.scripts import ScriptError, ScriptOutcome, command_problems, run_script
from tests.director.fakes import until

pytestmark = pytest.mark.unit

IS_ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not IS_ROOT, reason="only root becomes another user")
SH = str(Path("/bin/sh").resolve())
Make = Callable[..., str]


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A directory that any user may enter, and only we may write: pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture
def script(open_to_all: Path) -> Make:
    def make(text: str, mode: int = 0o755, interpreter: str = SH) -> str:
        path = open_to_all / "script"
        path.write_text(f"#!{interpreter}\n{text}\n")
        path.chmod(mode)
        return str(path)

    return make


def run(*command: str, timeout_s: float = 10.0, **more: Any) -> ScriptOutcome:
    return asyncio.run(run_script(command, timeout_s=timeout_s, **more))


def sh(text: str, **more: Any) -> ScriptOutcome:
    return run(SH, "-c", text, **more)


def test_a_program_gets_its_words_and_input_and_its_answer_comes_back() -> None:
    found = run(SH, "-c", 'cat; echo "$1" >&2; exit 3', "sh", "a b;$(id)", input=b"in\0put")
    assert (found.exit_code, found.signal, found.timed_out) == (3, None, False)
    assert (found.stdout, found.stderr) == (b"in\0put", b"a b;$(id)\n")
    assert str(found) == "exit code 3: a b;$(id)"
    assert not found.ok
    assert 0 < found.duration_s < 10


def test_every_event_loop_will_do() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(run_script((SH, "-c", "cat"), input=b"x" * 200_000, timeout_s=10, most_bytes=300_000))
        assert (found.ok, len(found.stdout)) == (True, 200_000)
        with pytest.raises(ScriptError):
            runner.run(run_script(("/nowhere",), timeout_s=1))


def test_what_it_is_started_with_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "of the director")
    with Path(os.devnull).open() as inherited:
        os.set_inheritable(inherited.fileno(), True)
        text = (
            "env; echo; pwd; umask; ulimit -c; echo $$; cut -d' ' -f6 /proc/$$/stat; ls /proc/self/fd; "
            "exec cat /proc/self/status"  # dash blocks signals for the moment of a vfork
        )
        found = sh(text, environment={"GIVEN": "yes"}, most_bytes=100_000)
    variables, _, rest = found.stdout.decode().partition("\n\n")
    environment = dict(line.split("=", 1) for line in variables.splitlines())
    assert {each: environment.pop(each, "") for each in ("PWD", "_")}["PWD"] == "/"  # the shell's own
    assert environment == {"GIVEN": "yes", **scripts.ENVIRONMENT}
    cwd, umask, core, own, session, *descriptors = rest.partition("Name:")[0].split()
    assert (cwd, umask, core, session) == ("/", "0022", "0", own)
    assert descriptors == ["0", "1", "2", "3"]  # the last is the directory that is listed
    status = dict(line.split(":\t", 1) for line in rest.splitlines() if ":\t" in line)
    assert int(status["SigBlk"], 16) == 0
    if shutil.which("setpriv"):
        assert status["NoNewPrivs"].strip() == "1"
    if IS_ROOT:
        nobody = pwd.getpwnam("nobody")
        assert status["Uid"].split() == [str(nobody.pw_uid)] * 4
        assert status["Gid"].split() == [str(nobody.pw_gid)] * 4
        assert status["Groups"].split() == []
        assert {int(status[each], 16) for each in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}


def test_our_own_limit_of_core_files_is_left_alone() -> None:
    before = resource.getrlimit(resource.RLIMIT_CORE)
    assert sh("true").ok
    assert resource.getrlimit(resource.RLIMIT_CORE) == before


def test_signals_that_we_block_or_ignore_are_its_own_again() -> None:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    ignored = signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    try:
        found = sh("grep -E 'SigBlk|SigIgn' /proc/self/status")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGQUIT, ignored)
    masks = [int(line.split()[1], 16) for line in found.stdout.splitlines()]
    own = 1 << 31 | 1 << 32  # the C library's own: make(1) starts what it runs by posix_spawn, which ignores them
    assert [mask & ~own for mask in masks] == [0, 0]


@as_root
def test_without_setpriv_the_user_is_left_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "_setpriv", lambda change: [])
    found = sh("id -u; id -g; id -G; grep CapEff /proc/self/status")
    nobody = pwd.getpwnam("nobody")
    assert found.stdout.split() == [
        *(str(each).encode() for each in (nobody.pw_uid, nobody.pw_gid, nobody.pw_gid)),
        *(b"CapEff:", b"0" * 16),
    ]


def test_setpriv_that_is_slow_once_is_tried_again(open_to_all: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a busy machine says at the boot must not hold for months: without setpriv nothing is run in a unit."""
    real = shutil.which("setpriv")
    tried, slow = open_to_all / "tried", open_to_all / "setpriv"
    slow.write_text(f'#!/bin/sh\n[ -e {tried} ] || {{ touch {tried}; exec sleep 9; }}\nexec {real} "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setattr(scripts, "ENVIRONMENT", {"PATH": f"{open_to_all}:{os.environ['PATH']}", "LANG": "C"})
    monkeypatch.setattr(scripts, "TRIED_WITHIN_S", 0.5)
    scripts._setpriv.cache_clear()
    try:
        with pytest.raises(ScriptError, match=r"could not try .*/setpriv: no answer within 500ms"):
            scripts._setpriv(())
        monkeypatch.setattr(scripts, "TRIED_WITHIN_S", 20.0)
        assert scripts._setpriv(())[0] == str(slow)
        assert "--ambient-caps=-all" in scripts._setpriv(())
    finally:
        scripts._setpriv.cache_clear()


@as_root
def test_root_is_root_only_when_asked_for() -> None:
    assert sh("id -u", user="root").stdout == b"0\n"


def test_a_program_that_outlives_its_time_is_killed_with_all_its_children(open_to_all: Path) -> None:
    # Ignores SIGTERM; forks; forks twice; and each of them would go on for a minute.
    text = (
        "trap '' TERM; sleep 61 & (sleep 62 & sleep 63) & (trap '' TERM; (sleep 64 &) ; sleep 65) & echo $$; sleep 66"
    )
    began = time.monotonic()
    found = sh(text, timeout_s=0.5)
    assert (found.timed_out, found.exit_code, found.signal) == (True, None, None)
    assert time.monotonic() - began < 3
    assert str(found).startswith("timed out after ")
    assert _wait_until_gone(session=int(found.stdout))


def test_a_child_that_keeps_the_pipes_open_ends_with_the_program() -> None:
    began = time.monotonic()
    found = sh("echo $$; sleep 61 & exit 0")
    assert found.ok
    assert time.monotonic() - began < 3
    assert _wait_until_gone(session=int(found.stdout))


def test_a_program_that_cannot_even_be_looked_up_costs_the_timeout() -> None:
    """Its file system, or who knows of its user, hangs: here because every thread does."""
    ends = threading.Event()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        hangs = loop.run_in_executor(None, ends.wait, 10)
        try:
            with pytest.raises(ScriptError, match=r"could not run /bin/true: .* within 100ms: see to its file system"):
                await run_script(("/bin/true",), timeout_s=0.1)
        finally:
            ends.set()
            await hangs

    began = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - began < 5


def test_a_descendant_that_left_the_session_does_not_hold_us_up() -> None:
    began = time.monotonic()
    found = sh("setsid sh -c 'echo $$; exec sleep 4' & sleep 0.3")
    assert found.ok
    assert time.monotonic() - began < 3
    with suppress(ProcessLookupError):
        os.kill(int(found.stdout), signal.SIGKILL)


def test_megabytes_of_output_take_no_memory_of_ours() -> None:
    found = sh("head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; exit 5", most_bytes=1000)
    assert (found.exit_code, len(found.stdout), len(found.stderr)) == (5, 1000, 1000)


def test_output_without_end_leaves_time_for_others() -> None:
    async def main() -> tuple[ScriptOutcome, float]:
        began = time.thread_time()
        found = await run_script((shutil.which("yes") or "yes",), timeout_s=0.7, most_bytes=100)
        return found, time.thread_time() - began

    found, busy_s = asyncio.run(main())
    assert (found.timed_out, found.stdout) == (True, b"y\n" * 50)
    assert busy_s < 0.35


def test_a_program_that_closes_everything_is_still_waited_for() -> None:
    found = sh("exec <&- >&- 2>&-; sleep 0.3; exit 7", input=b"x" * 1_000_000)
    assert (found.exit_code, found.stdout) == (7, b"")


def test_a_large_input_that_is_never_read_harms_nobody() -> None:
    assert sh("sleep 61", input=b"x" * 1_000_000, timeout_s=0.3).timed_out
    assert sh("exit 0", input=b"x" * 1_000_000).ok


def test_a_signal_is_told_by_its_name() -> None:
    found = sh("kill -SEGV $$")
    assert (found.exit_code, found.signal, found.timed_out) == (None, signal.SIGSEGV, False)
    assert str(found) == "killed by SIGSEGV"


def test_what_it_prints_cannot_steer_a_terminal() -> None:
    assert str(sh(r"printf '\033[31mred\nmore'; exit 1")) == "exit code 1: ?[31mred"


def test_whoever_is_cancelled_leaves_no_process_behind() -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(run_script((SH, "-c", "exec sleep 67"), timeout_s=60))
            await until(lambda: bool(_with_words("sleep", "67")))
            task.cancel()
        assert not _with_words("sleep", "67")

    asyncio.run(main())


def test_many_at_once_leave_no_descriptor_and_no_child_behind() -> None:
    async def main() -> None:
        assert (await run_script((SH, "-c", "true"), timeout_s=10)).ok
        before = _descriptors()
        async with asyncio.TaskGroup() as group:
            for number in range(40):
                words = (SH, "-c", ("exit 0", "sleep 60", "kill -9 $$", "yes")[number % 4])
                group.create_task(run_script(words, timeout_s=0.3 if number % 4 in {1, 3} else 30))
        assert _descriptors() == before

    asyncio.run(main())
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


# What an operator gets wrong: each in a sentence, by the check and by the run.


def refused(*command: str, user: str | None = None) -> str:
    told = command_problems(command, user)
    assert told is not None
    with pytest.raises(ScriptError) as caught:
        run(*command, user=user)
    assert str(caught.value) == told
    return told


def test_a_command_that_cannot_be_run_is_told() -> None:
    assert "is not an absolute path" in refused("notify")
    assert refused("/nowhere/at/all") == "/nowhere/at/all cannot be run: No such file or directory"
    assert refused("/etc/passwd/x") == "/etc/passwd/x cannot be run: Not a directory"
    assert refused("/etc") == "/etc is not a file: name a program"
    assert refused("/etc/passwd") == "/etc/passwd is not executable: chmod +x it"
    assert "has a zero byte" in refused("/bin/true", "a\0b")
    assert "is empty" in refused()


def test_a_script_whose_interpreter_is_missing_is_told(script: Make) -> None:
    path = script("exit 0", interpreter="/no/such/interpreter")
    assert command_problems((path,), None) is None
    with pytest.raises(
        ScriptError, match=r"could not run .*: No such file or directory: see to the file and to the int"
    ):
        run(path)


def test_an_environment_that_cannot_be_is_told() -> None:
    with pytest.raises(ScriptError, match="could not run /bin/true: embedded null byte"):
        run("/bin/true", environment={"A": "x\0y"})


@as_root
def test_an_unknown_user_is_told() -> None:
    assert refused("/bin/true", user="no-such-user").startswith("there is no user 'no-such-user' on this host")


@as_root
@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_what_others_may_write_is_not_started_by_root(script: Make, open_to_all: Path, mode: int) -> None:
    path = Path(script("exit 0"))
    assert command_problems((str(path),), None) is None
    for each in (path, open_to_all):
        good = each.stat().st_mode
        os.chown(each, 0, 65534)
        each.chmod(mode)
        assert refused(str(path)).startswith(f"{each} is writable by ")
        each.chmod(good)
        os.chown(each, 65534, 0)
        assert refused(str(path)).startswith(f"{each} belongs to user ")
        os.chown(each, 0, 0)


@as_root
def test_a_link_on_the_way_is_followed_as_the_kernel_does(script: Make, open_to_all: Path) -> None:
    path = Path(script("echo here"))
    others = open_to_all / "others"
    others.mkdir()
    (others / "within").symlink_to("../script")
    (open_to_all / "link").symlink_to("others/../others/within")
    assert run(str(open_to_all / "link")).stdout == b"here\n"
    os.chown(others, 65534, 65534)  # who may exchange the link that the link leads to
    assert refused(str(open_to_all / "link")).startswith(f"{others} belongs to user ")
    assert command_problems((str(path),), None) is None
    os.chown(others, 0, 0)
    os.chown(others / "within", 65534, 65534, follow_symlinks=False)
    assert refused(str(open_to_all / "link")).startswith(f"{others / 'within'} belongs to user ")
    (open_to_all / "loop").symlink_to("loop")
    assert "Too many levels" in refused(str(open_to_all / "loop"))


@as_root
def test_what_the_user_may_not_reach_is_told(script: Make, open_to_all: Path) -> None:
    path = script("exit 0", mode=0o700)
    assert refused(path).startswith(f"user nobody may not execute {path}")
    assert command_problems((path,), "root") is None
    Path(path).chmod(0o755)
    open_to_all.chmod(0o700)
    assert refused(path).startswith(f"user nobody may not enter {open_to_all}")


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _with_words(*words: str) -> list[int]:
    """Processes with exactly these words."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (place / "cmdline").read_bytes() == b"".join(f"{word}\0".encode() for word in words):
                found.append(int(place.name))
    return found


def _wait_until_gone(session: int) -> bool:
    """Whether nobody of `session` is left: those that init has still to reap do not count."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        left = []
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                fields = (place / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] not in "ZX":
                    left.append(place.name)
        if not left:
            return True
        time.sleep(0.01)
    return False


_AS_UNIT = """
import asyncio
from director.kit import scripts
command = ("/bin/grep", "-E", "^(Uid|Cap(Inh|Prm|Eff|Amb))", "/proc/self/status")
print(asyncio.run(scripts.run_script(command, timeout_s=10)).stdout.decode())
scripts._setpriv = lambda change: []
try:
    asyncio.run(scripts.run_script(command, timeout_s=10))
except scripts.ScriptError as error:
    print(error)
"""


@as_root
def test_capabilities_of_a_director_that_is_not_root_end_with_it() -> None:
    """CAP_KILL stands for those of the unit: it is one that root of a container has, too."""
    command = [
        *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
        *("--inh-caps=-all,+kill", "--ambient-caps=-all,+kill", "--bounding-set=-all,+kill"),
        *(sys.executable, "-c", _AS_UNIT),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path.cwd(), timeout=30)
    if "Permission" in done.stderr or "No module" in done.stderr:
        pytest.skip("this checkout can be read by its owner only")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["Uid:", *["65534"] * 4]
    assert [int(line.split()[1], 16) for line in lines[1:5]] == [0, 0, 0, 0]
    assert lines[-1].startswith("/bin/grep is not run: it would have this process's capabilities, and setpriv")
