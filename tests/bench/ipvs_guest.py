"""Times the director beside ipvsadm inside of the lab, where no other program runs.

`ipvs_guest.py rounds ROUNDS FOLDER` prints JSON; the other commands are its children, each in a process of its own.
One rule: both do the same work in the same round, in turn, on the same kernel, and what they made is compared.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from statistics import median

from director.core.diff import EditReal
from director.core.model import Config, Method, RealServer, ServerRef, VirtualServer
from director.core.table import Forward, Protocol, RealRow, VirtualKey, VirtualRow
from director.core.vip import Vip
from director.core.weight import Wish
from director.ipvs.client import IpvsClient
from director.kit.net import Endpoint
from director.memory import Memory
from director.reconcile import Reconciler
from director.terms import Inputs, Outcome

VIRTUALS, REALS = 200, 50
SIZES = (1_000, 3_000, 10_000, 30_000, 100_000)
CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
Timing = dict[str, float]


class NoAddresses:
    """The configurations here have none."""

    def present(self, vips: Iterable[Vip]) -> frozenset[Vip]:
        return frozenset()

    def missing(self, vips: Iterable[Vip]) -> dict[Vip, str]:
        return {}

    def add(self, vip: Vip) -> bool:
        raise NotImplementedError

    def remove(self, vip: Vip) -> bool:
        raise NotImplementedError


def yaml_text(virtuals: int, reals: int) -> str:
    lines = ["virtual_servers:"]
    for v in range(virtuals):
        lines += [f"  v{v}:", "    address: 10.9.0.100", f"    port: {1000 + v}", "    forward: dr"]
        lines += ["    scheduler: wlc", "    real_servers:"]
        lines += [f"      r{r}: {{address: 10.20.{v}.{r + 1}, weight: 100}}" for r in range(reals)]
    return "\n".join(lines) + "\n"


def keepalived_text(virtuals: int, reals: int) -> str:
    lines = ["global_defs {", "  router_id bench", "}"]
    for v in range(virtuals):
        lines += [f"virtual_server 10.9.0.100 {1000 + v} {{", "  lvs_sched wlc", "  lvs_method DR", "  protocol TCP"]
        lines += [f"  real_server 10.20.{v}.{r + 1} {1000 + v} {{\n    weight 100\n  }}" for r in range(reals)]
        lines.append("}")
    return "\n".join(lines) + "\n"


def config_of(servers: int) -> Config:
    """`servers` real servers, 50 behind each virtual server: what `yaml_text` is parsed to."""
    first = int(IPv4Address("10.20.0.1"))
    return Config(
        tuple(
            VirtualServer(
                f"v{v}",
                (VirtualKey.of(Protocol.TCP, ip_address("10.9.0.100"), 1000 + v),),
                VirtualRow("wlc"),
                Method.DR,
                tuple(RealServer(f"r{r}", IPv4Address(first + v * 256 + r), 100) for r in range(REALS)),
            )
            for v in range(servers // REALS)
        )
    )


def reconciler(kernel: IpvsClient, directory: str) -> Reconciler:
    return Reconciler(kernel, NoAddresses(), Memory(Path(directory)))


def settle(of: Reconciler, inputs: Inputs) -> Outcome:
    outcome = of.reconcile(inputs)
    if not outcome.converged:
        raise SystemExit(f"the kernel does not agree: {outcome.failures[:1]}")
    return outcome


def timed(act: Callable[[], object]) -> float:
    began_at = time.perf_counter()
    act()
    return time.perf_counter() - began_at


def cpu(act: Callable[[], object], times: int) -> float:
    """CPU seconds of one `act`. A user-mode kernel counts them in hundredths: several make one measurement."""
    began = time.process_time()
    for _ in range(times):
        act()
    return (time.process_time() - began) / times


def run(*words: str, text: str | None = None) -> str:
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout[-500:]}{done.stderr[-500:]}")
    return done.stdout


def child(*words: str) -> dict[str, float]:
    found: dict[str, float] = json.loads(run(sys.executable, __file__, *words))
    return found


class Namespaces:
    """Fresh network namespaces; the old ones stay until the end: none is taken down while something is timed."""

    def __init__(self) -> None:
        self._kept: list[int] = []
        self._libc = ctypes.CDLL(None, use_errno=True)

    def enter(self) -> None:
        self._kept.append(os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        if self._libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        run("ip", "link", "set", "lo", "up")


def cold(file: str) -> Timing:
    """From a parsed configuration to a kernel that was read back and agrees, once, in a process that did neither."""
    from director.core.config import parse_config

    inputs = Inputs(parse_config(Path(file).read_text(), file))
    with tempfile.TemporaryDirectory() as directory, IpvsClient.open() as kernel:
        of = reconciler(kernel, directory)
        found: list[Outcome] = []
        took = timed(lambda: found.append(settle(of, inputs)))
        if sum(len(entry.reals) for entry in found[0].observed.table.entries.values()) != VIRTUALS * REALS:
            raise SystemExit("real servers are missing")
    return {"s": took}


def warm(rounds: int) -> dict[str, list[float]]:
    """What a director does all day, over 10,000 real servers that are as they should be."""
    config = config_of(VIRTUALS * REALS)
    key, real = VirtualKey.of(Protocol.TCP, ip_address("10.9.0.100"), 1000), Endpoint(IPv4Address("10.20.0.1"), 1000)
    row, other = RealRow(Forward.DR, 100), RealRow(Forward.DR, 50)
    found: dict[str, list[float]] = {name: [] for name in ("read", "save", "weight", "pass", "pass_weight", "idle_cpu")}
    with tempfile.TemporaryDirectory() as directory, IpvsClient.open() as kernel:
        of = reconciler(kernel, directory)
        plain = Inputs(config)
        lowered = Inputs(config, wishes={ServerRef("v0", "r0"): Wish(weight=50)})
        settle(of, plain)
        for _ in range(rounds):
            found["read"].append(timed(kernel.read))
            found["save"].append(timed(partial(run, "ipvsadm", "-Sn")))
            for change in (EditReal(key, real, row, other), EditReal(key, real, other, row)) * 10:
                found["weight"].append(timed(partial(kernel.write, [change])))
            found["pass_weight"] += [timed(partial(settle, of, lowered)), timed(partial(settle, of, plain))]
            found["idle_cpu"].append(cpu(partial(settle, of, plain), 5))
            found["pass"].append(timed(partial(settle, of, plain)))
    return found


def scale(servers: int) -> Timing:
    """One pass with nothing to do over `servers` real servers, and the most memory that the process ever took."""
    inputs = Inputs(config_of(servers))
    with tempfile.TemporaryDirectory() as directory, IpvsClient.open() as kernel:
        of = reconciler(kernel, directory)
        settle(of, inputs)
        cpu_s = median(cpu(partial(settle, of, inputs), max(1, 20_000 // servers)) for _ in range(3))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"servers": servers, "cpu_s": cpu_s, "rss_mb": most / 1024}


def keepalived(file: str) -> float:
    """From its start until the kernel has all real servers; it is ended then."""
    began_at = time.perf_counter()
    words = ("keepalived", "--dont-fork", "--check", "--use-file", file, "--log-console")
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while run("ipvsadm", "-Sn").count("\n") < VIRTUALS * (REALS + 1):
                if process.poll() is not None or time.perf_counter() - began_at > 60:
                    raise SystemExit("keepalived did not come up")
                time.sleep(0.05)
            return time.perf_counter() - began_at
        finally:
            process.terminate()


def rounds(count: int, folder: Path) -> dict[str, object]:
    file, rules = folder / "bench.yaml", ""
    file.write_text(yaml_text(VIRTUALS, REALS))
    (folder / "keepalived.conf").write_text(keepalived_text(VIRTUALS, REALS))
    found: dict[str, list[float]] = {"cold": [], "restore": [], "process": [], "keepalived": []}
    fresh = Namespaces()
    for number in range(count):
        fresh.enter()
        found["cold"].append(child("cold", str(file))["s"])
        rules = rules or run("ipvsadm", "-Sn")
        same(rules)
        fresh.enter()
        found["restore"].append(timed(partial(run, "ipvsadm", "-R", text=rules)))
        same(rules)
        fresh.enter()
        state = str(folder / f"state{number}")
        found["process"].append(timed(partial(run, "director", "apply", str(file), "--state-dir", state)))
        same(rules)
        if shutil.which("keepalived"):
            fresh.enter()
            found["keepalived"].append(keepalived(str(folder / "keepalived.conf")))
    fresh.enter()
    steady = json.loads(run(sys.executable, __file__, "warm", str(count)))
    sizes = []
    for servers in SIZES:
        fresh.enter()
        sizes.append(child("scale", str(servers)))
    return {**found, **steady, "scale": sizes}


def same(rules: str) -> None:
    """The kernel holds what `rules` say, however it was brought there."""
    if sorted(run("ipvsadm", "-Sn").splitlines()) != sorted(rules.splitlines()):
        raise SystemExit("the two made different tables")


def main() -> None:
    match sys.argv[1:]:
        case ["cold", file]:
            result: object = cold(file)
        case ["warm", count]:
            result = warm(int(count))
        case ["scale", servers]:
            result = scale(int(servers))
        case ["rounds", count, folder]:
            result = rounds(int(count), Path(folder))
        case _:
            raise SystemExit(__doc__)
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
