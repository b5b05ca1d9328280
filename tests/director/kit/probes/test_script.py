"""The script probe: what a program says, and programs that misbehave."""

from __future__ import annotations

import asyncio
import os
import time
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.kit.checks.base import Timing
from director.kit.checks.check import Check
from director.kit.checks.script import ScriptProbe
from director.kit.errors import ProbeError
from director.kit.health import ProbeResult
from director.kit.net import Endpoint
from director.kit.probes import script
from director.kit.probes.run import run_check
from director.kit.probes.script import judge_outcome
from director.kit.scripts import ScriptOutcome

pytestmark = pytest.mark.unit

SERVER = Endpoint(ip_address("10.0.0.11"), 8080)


def _check(*words: str, timeout_s: float = 5.0, target: Endpoint = SERVER) -> Check:
    return Check(target, ScriptProbe(words), Timing(timeout_s=timeout_s))


def _sh(text: str, *words: str, timeout_s: float = 5.0, target: Endpoint = SERVER) -> ProbeResult:
    return asyncio.run(run_check(_check("/bin/sh", "-c", text, "sh", *words, timeout_s=timeout_s, target=target)))


@pytest.mark.parametrize(
    ("text", "ok", "reason"),
    [
        ("exit 0", True, "exit code 0"),
        ("echo fine; echo more", True, "fine"),
        ("echo no good; exit 3", False, "exit code 3: no good"),
        ("echo why >&2; exit 1", False, "exit code 1: why"),
        ("kill -9 $$", False, "killed by SIGKILL"),
        ("exit 255", False, "exit code 255"),
    ],
)
def test_exit_code_decides(text: str, ok: bool, reason: str) -> None:
    result = _sh(text)
    assert (result.ok, result.reason) == (ok, reason)


@pytest.mark.parametrize(
    ("text", "weight", "percent", "reason"),
    [
        ("echo weight 40", 40, None, "weight 40"),
        ("echo weight 0", 0, None, "weight 0"),
        ("echo load is low; echo 75%", None, 75, "load is low; 75%"),
        ("echo 0%", 0, None, "weight 0"),
        ("echo weight 65535", 65535, None, "weight 65535"),
        ("echo weight 65536", None, None, "weight 65536"),
        ("echo 101%", None, None, "101%"),
        ("echo 40", None, None, "40"),
        ("echo weight -1", None, None, "weight -1"),
        ("echo weight 1; echo weight 2", 2, None, "weight 2"),
        ("echo weight 7; exit 1", None, None, "exit code 1: weight 7"),
    ],
)
def test_weight(text: str, weight: int | None, percent: int | None, reason: str) -> None:
    result = _sh(text)
    assert (result.weight, result.percent, result.reason) == (weight, percent, reason)


def test_what_it_is_given() -> None:
    words = ("{address}", "[{address}]:{port}", "{other}", "")
    result = _sh('echo "$@" "$DIRECTOR_ADDRESS" "$DIRECTOR_PORT"', *words)
    assert result.reason == "10.0.0.11 [10.0.0.11]:8080 {other}  10.0.0.11 8080"
    without = _sh('echo "$DIRECTOR_ADDRESS,$DIRECTOR_PORT,"', target=Endpoint(ip_address("2001:db8::1"), 0))
    assert without.reason == "2001:db8::1,,"


def test_no_shell_reads_its_words() -> None:
    assert asyncio.run(run_check(_check("/bin/echo", "$(id);", "*"))).reason == "$(id); *"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another")
def test_it_is_nobody() -> None:
    assert _sh("id -un").reason == "nobody"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("/no/such/script",), r"/no/such/script cannot be run: No such file or directory"),
        (("/etc/passwd",), r"/etc/passwd is not executable: chmod \+x it"),
        (("/etc",), r"/etc is not a file: name a program"),
    ],
)
def test_what_cannot_be_run_is_not_the_servers_fault(command: tuple[str, ...], message: str) -> None:
    with pytest.raises(ProbeError, match=message):
        asyncio.run(run_check(_check(*command)))


@pytest.mark.skipif(os.geteuid() != 0, reason="only for root does it matter")
def test_what_others_may_write_is_not_run() -> None:
    path = Path(f"/opt/.director-test-{os.getpid()}")
    path.write_text("#!/bin/sh\nexit 0\n")
    try:
        path.chmod(0o777)
        with pytest.raises(ProbeError, match="is writable by everybody"):
            asyncio.run(run_check(_check(str(path))))
        path.chmod(0o755)
        assert asyncio.run(run_check(_check(str(path)))).ok
    finally:
        path.unlink()


# programs that misbehave


def _lives(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def _soon_dead(pid: int) -> bool:
    deadline_at = time.monotonic() + 5
    while _lives(pid) and time.monotonic() < deadline_at:
        time.sleep(0.01)
    return not _lives(pid)


@pytest.mark.parametrize("text", ["sleep 60", "trap '' TERM INT HUP; while :; do sleep 1; done", "while :; do :; done"])
def test_one_that_does_not_end_is_ended(runner: asyncio.Runner, text: str) -> None:
    result = runner.run(run_check(_check("/bin/sh", "-c", text, timeout_s=0.3)))
    assert not result.ok
    assert result.reason.startswith("timed out after ")
    assert 0.25 < result.duration_s < 3


def test_children_that_stay_are_ended(runner: asyncio.Runner) -> None:
    result = runner.run(run_check(_check("/bin/sh", "-c", "sleep 300 & echo $!")))
    assert result.ok
    assert result.duration_s < 3
    assert _soon_dead(int(result.reason))


def test_megabytes_are_not_kept(runner: asyncio.Runner) -> None:
    result = runner.run(run_check(_check("/bin/sh", "-c", "echo first; head -c 5000000 /dev/zero; echo last")))
    assert result.ok
    assert result.reason == "first"
    assert len(result.output) == 256


def test_an_endless_flood_ends_with_the_timeout(runner: asyncio.Runner) -> None:
    result = runner.run(run_check(_check("/bin/sh", "-c", "yes 'no end'", timeout_s=0.3)))
    assert not result.ok
    assert result.reason.endswith(": no end")
    assert result.duration_s < 3


def _wait_for_line(path: Path) -> None:
    deadline_at = time.monotonic() + 5
    while not (path.exists() and path.read_text().strip()) and time.monotonic() < deadline_at:
        time.sleep(0.01)


def test_cancelled_probe_ends_its_script(runner: asyncio.Runner, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for each in tmp_path.parents:
        if str(each).startswith("/tmp/pytest"):
            each.chmod(0o755)
    told = tmp_path / "pid"

    async def story() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(run_check(_check("/bin/sh", "-c", f"echo $$ > {told}; sleep 300", timeout_s=60)))
            await asyncio.to_thread(_wait_for_line, told)
            task.cancel()

    runner.run(story())
    assert _soon_dead(int(told.read_text()))


def test_no_more_than_so_many_run_at_one_time(runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "AT_ONCE", 2)
    slow = _check("/bin/sleep", "0.3", timeout_s=2.0)

    async def story() -> list[ProbeResult | BaseException]:
        return await asyncio.gather(*(run_check(slow) for _ in range(4)), return_exceptions=True)

    began_at = time.monotonic()
    results = runner.run(story())
    assert time.monotonic() - began_at >= 0.6
    assert [isinstance(each, ProbeResult) and each.ok for each in results] == [True] * 4

    async def crowd() -> list[ProbeResult | BaseException]:
        hasty = _check("/bin/sleep", "0", timeout_s=0.1)
        return list(await asyncio.gather(run_check(slow), run_check(slow), run_check(hasty), return_exceptions=True))

    assert "2 scripts run, and none has ended within 100ms" in str(runner.run(crowd())[2])


# what it prints


@given(st.binary(max_size=400), st.integers(0, 255))
def test_any_output_is_judged(output: bytes, code: int) -> None:
    result = judge_outcome(ScriptOutcome(code, None, False, output, b"", 0.1))
    assert result.ok is (code == 0)
    assert result.reason.isprintable()
    assert result.reason
    assert len(result.reason) < 300
    assert result.weight is None or 0 <= result.weight <= 65535
    assert result.percent is None or 1 <= result.percent <= 100
