"""A command that is forked from a Python which stands ready is as one that was started.

One rule: what holds for the forked one is asked of a fresh one too.
"""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from director.lab import boot, kernels
from director.lab.demo.scene import CONFIG, FILES
from director.lab.errors import LabError
from director.lab.hosts import Lab, LabHost, Process
from director.lab.kernels import Kernel
from director.lab.waiting import wait_until

pytestmark = pytest.mark.lab

LOOK = r"""
import json, os, signal, socket, sys, threading

def status(*keys):
    lines = (line.split(":", 1) for line in open("/proc/self/status"))
    return {key: value.strip() for key, value in lines if key in keys}

print(json.dumps({
    "arguments": sys.argv, "path": sys.path, "flags": list(sys.flags),
    "environment": dict(os.environ), "folder": os.getcwd(), "root": os.readlink("/proc/self/root"),
    "masks": status("Umask", "SigBlk", "SigIgn", "SigCgt"),
    "leads": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
    "namespaces": [os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "mnt", "uts", "pid", "ipc", "user")],
    "host": socket.gethostname(), "mounts": open("/proc/self/mounts").read(), "private": os.listdir("/tmp"),
    "descriptors": [fd for fd in sorted(os.listdir("/proc/self/fd"), key=int) if os.path.exists(f"/proc/self/fd/{fd}")],
    "input": sys.stdin.read(), "threads": threading.active_count(), "tasks": len(os.listdir("/proc/self/task")),
    "streams": [
        [each.encoding, each.errors, each.write_through, each.line_buffering, each.isatty(), each.fileno(), each.mode,
         each.newlines, each.name, type(each.buffer).__name__] for each in (sys.stdin, sys.stdout, sys.stderr)
    ],
    "limits": open("/proc/self/limits").read(), "name": __name__, "prefix": sys.prefix,
    "from the shell": os.popen("echo $HOME $PATH; umask; trap").read(),
}))
"""
ENDS = [
    "print('out'); import sys; print('err', file=sys.stderr); sys.exit(7)",
    "raise SystemExit",
    "raise SystemExit('words')",
    "1 / 0",
    "raise KeyboardInterrupt",
    "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "import atexit; atexit.register(print, 'at the end')",
    "import threading; threading.Timer(0.1, print, ['from a thread']).start()",
    "import sys; sys.stdout = open(1, 'w', closefd=False); sys.stdout.write('buffered')",
    "import sys, os; os.close(1); print('unheard')",
    "print('é', input())",
    "(",
]


@pytest.fixture
def host(lab: Lab) -> LabHost:
    return lab.host("director")


@pytest.fixture
def forker(host: LabHost) -> str:
    """The process id of the forker, which runs."""
    host.run("director", "--version").check()
    (line,) = host.run("pgrep", "-f", "guest.forker").check().stdout.split()
    return line


def python(host: LabHost, code: str, fresh: bool, **options: object) -> tuple[int, str, str]:
    result = host.run("python", "-c", code, fresh=fresh, **options)  # type: ignore[arg-type]
    return result.exit_code, result.stdout, result.stderr


def says(process: Process, words: str) -> bool:
    return words in process.output()


def test_a_forked_command_sees_what_a_fresh_one_sees(host: LabHost) -> None:
    host.write("/tmp/mine", "")
    seen = []
    for fresh in (True, False):
        result = host.run("python", "-c", LOOK, "a", "b c", stdin="line\n", cwd="/tmp", fresh=fresh)
        seen.append(json.loads(result.check().stdout))
    assert seen[1] == seen[0]
    assert seen[1]["input"] == "line\n"
    assert seen[1]["private"] == ["mine"]


def test_a_forked_module_sees_what_a_fresh_one_sees(host: LabHost) -> None:
    host.write("/tmp/look.py", LOOK)
    seen = [host.run("python", "-m", "look", "a", stdin="", cwd="/tmp", fresh=fresh).check() for fresh in (True, False)]
    assert json.loads(seen[1].stdout) == json.loads(seen[0].stdout)


@pytest.mark.parametrize("code", ENDS)
def test_a_forked_command_ends_as_a_fresh_one(host: LabHost, code: str) -> None:
    assert python(host, code, fresh=False, stdin="in\n") == python(host, code, fresh=True, stdin="in\n")


def test_director_is_forked_unless_it_is_to_be_fresh(host: LabHost, forker: str) -> None:
    host.write(CONFIG, FILES.joinpath("director.yaml").read_text())
    forked = host.run("director", "check", CONFIG)
    fresh = host.run("director", "check", CONFIG, fresh=True)
    assert (forked.exit_code, forked.stdout, forked.stderr) == (fresh.exit_code, fresh.stdout, fresh.stderr)
    for is_fresh in (False, True):
        process = host.start("director", "run", CONFIG, fresh=is_fresh)
        assert wait_until(partial(says, process, "director is running"), 20.0)
        assert host.read(f"/proc/{process.pid}/comm") == "director\n"
        assert ("guest.forker" in host.read(f"/proc/{process.pid}/cmdline")) is not is_fresh
        process.kill()
        assert process.wait(10.0) == 0, process.output()


def test_a_forked_command_over_its_limit_dies_with_what_it_started(host: LabHost, forker: str) -> None:
    code = "import os; print('before'); os.system('sleep 4730 & setsid sleep 4730 & wait')"
    result = host.run("python", "-c", code, timeout_s=1.0, fresh=False)
    assert result.timed_out
    assert (result.exit_code, result.stdout) == (-signal.SIGKILL, "before\n")
    assert wait_until(lambda: host.run("pgrep", "-f", "sleep 4730").exit_code == 1)


def test_signals_reach_a_forked_command_and_its_group(host: LabHost, forker: str) -> None:
    code = "import os; print('here'); os.system('sleep 4731')"
    process = host.start("python", "-c", code, fresh=False)
    assert wait_until(lambda: process.output() == "here\n")
    process.kill(signal.SIGKILL, group=True)
    assert process.wait(10.0) == -signal.SIGKILL
    assert wait_until(lambda: host.run("pgrep", "-f", "sleep 4731").exit_code == 1)


def test_many_forked_commands_at_once(host: LabHost, forker: str) -> None:
    with ThreadPoolExecutor(12) as pool:
        results = list(pool.map(lambda n: host.run("python", "-c", f"print({n})", fresh=False), range(12)))
    assert [result.stdout for result in results] == [f"{n}\n" for n in range(12)]


def test_an_order_too_long_for_the_forker_is_run_all_the_same(host: LabHost) -> None:
    long = "x" * 50_000
    assert host.run("python", "-c", "import sys; print(sys.argv[1])", long, fresh=False).check().stdout == f"{long}\n"


def test_what_cannot_be_forked_is_refused_and_a_missing_folder_is_an_error(host: LabHost) -> None:
    for argv, env in ((("sh", "-c", "true"), None), (("python", "script.py"), None), (("director", "-h"), {"A": "b"})):
        with pytest.raises(LabError, match="can be forked"):
            host.run(*argv, env=env, fresh=False)
    with pytest.raises(LabError, match="No such file"):
        host.run("director", "--version", cwd="/nowhere")
    host.run("director", "--version", env={"A": "b"}).check()


def test_a_lost_forker_takes_its_commands_along_and_another_follows(host: LabHost, forker: str) -> None:
    process = host.start("python", "-c", "import time; print('here'); time.sleep(600)", fresh=False)
    assert wait_until(lambda: process.output() == "here\n")
    host.run("kill", "-9", forker).check()
    assert process.wait(10.0) == -signal.SIGKILL
    host.run("director", "--version").check()
    assert host.run("pgrep", "-f", "guest.forker").check().stdout.split() != [forker]


def test_this_machines_own_kernel_forks_too(kernel: Kernel) -> None:
    if os.geteuid() != 0:
        pytest.skip("namespaces on this machine's own kernel need root")
    with boot("host", ipvs=False) as other, other.lay_out() as lab:
        host = lab.host("client")
        assert host.run("python", "-c", "import socket; print(socket.gethostname())", fresh=False).stdout == "client\n"
        host.run("pgrep", "-f", "guest.forker").check()


def test_a_forker_that_cannot_begin_is_done_without(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_forker_command", lambda: ["/bin/false"])
    with boot(kernel.kind) as other, other.lay_out() as lab:
        for _ in range(2):
            assert "version" in lab.host("client").run("director", "--version").check().stdout
        assert "forker did not come up" in other.console()
