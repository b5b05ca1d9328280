"""Who is measured by `make bench-health`, in a network namespace of its own beside its real servers: the director, with
and without sentinels, and keepalived.

One rule: all get the same intervals, timeouts and retries, written as each wants them, and the same kind of server.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from director.core.table import Protocol, VirtualKey
from director.ipvs import attributes as a
from director.ipvs import encode
from director.ipvs.channel import Channel
from director.ipvs.decode import decode_family
from director.ipvs.dump import Decoder
from director.lab.guest import syscalls

VIP, PORT = "10.9.0.100", 80
KEY = VirtualKey.of(Protocol.TCP, ip_address(VIP), PORT)
UP_S = 60.0
PEERS = Path(__file__).with_name("health_peers.py")


@dataclass(frozen=True, slots=True)
class Kind:
    """What is run: `keepalived` or `director`, and how it probes.

    `fast` is the time to the next try after a failure. keepalived's intervals have no `jitter`.
    """

    name: str
    program: str
    check: str = "tcp"
    sentinel: bool = False
    fast: str = "1s"
    jitter: str = "10%"


KEEPALIVED = Kind("keepalived", "keepalived")
DIRECTOR = Kind("director", "director", jitter="0%")
SENTINEL = Kind("sentinel", "director", sentinel=True, fast="50ms")


def director_text(kind: Kind, addresses: Iterable[str]) -> str:
    return "\n".join(
        [
            "defaults:",
            "  interface: lan",
            f"  check: {{type: {kind.check}, interval: 1s, fast_interval: {kind.fast}, timeout: 1s, rise: 1, fall: 2, "
            f"jitter: {kind.jitter}, sentinel: {str(kind.sentinel).lower()}}}",
            "virtual_servers:",
            f"  bench: {{address: {VIP}, port: {PORT}, forward: nat, scheduler: rr, real_servers: {{",
            *(f"    r{number}: {{address: {address}}}," for number, address in enumerate(addresses)),
            "  }}",
            "",
        ]
    )


_KEEPALIVED_CHECKS = {
    "tcp": "TCP_CHECK {\n connect_timeout 1\n retry 1\n delay_before_retry 1\n }",
    "http": "HTTP_GET {\n url {\n path /\n status_code 200\n }\n"
    " connect_timeout 1\n retry 1\n delay_before_retry 1\n }",
}


def keepalived_text(kind: Kind, addresses: Iterable[str]) -> str:
    """`retry 1`: a second failure in a row decides, as with `fall: 2`."""
    lines = ["global_defs {", " router_id bench", "}", f"virtual_server {VIP} {PORT} {{"]
    lines += [" delay_loop 1", " lvs_sched rr", " lvs_method NAT", " protocol TCP"]
    for address in addresses:
        lines += [f" real_server {address} {PORT} {{", " weight 100", " inhibit_on_failure"]
        lines += [f" {_KEEPALIVED_CHECKS[kind.check]}", " }"]
    return "\n".join([*lines, "}", ""])


class Namespace:
    """A network namespace of its own."""

    def __init__(self) -> None:
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        syscalls.unshare(syscalls.CLONE_NEWNET)
        self.number = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        syscalls.enter(home)
        os.close(home)

    @contextmanager
    def inside(self) -> Iterator[None]:
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        syscalls.enter(self.number)
        try:
            yield
        finally:
            syscalls.enter(home)
            os.close(home)

    def ip(self, *lines: str) -> None:
        with self.inside():
            subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)

    def start(self, *words: str, log: Path) -> subprocess.Popen[bytes]:
        """Its standard input and output are pipes that hold nothing back; its errors go to `log`."""
        with self.inside(), log.open("ab") as said:
            return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, bufsize=0)


def join(peers: Namespace, other: Namespace, number: int) -> None:
    """A cable from `other`, where it is `lan`, to the peers."""
    path = f"/proc/{os.getpid()}/fd/{other.number}"
    peers.ip(
        f"link add s{number} type veth peer name lan netns {path}",
        f"addr add 10.90.{number}.1/30 dev s{number}",
        f"link set s{number} up",
    )
    other.ip(
        "link set lo up",
        f"addr add 10.90.{number}.2/30 dev lan",
        "link set lan up",
        f"route add 10.77.0.0/16 via 10.90.{number}.1",
    )


class Peers:
    """Real servers in a namespace where every address of 10.77.0.0/16 is their own."""

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        self._process = namespace.start(sys.executable, "-I", "-S", str(PEERS), log=folder / "peers.log")
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._orders, self._said = self._process.stdin, self._process.stdout
        self._starting = 0
        self.pids: dict[str, int] = {}
        """The process of each address, once it listens."""

    def start(self, addresses: Iterable[str]) -> None:
        """Have a server started at each address; `hear` learns of it."""
        names = list(addresses)
        for name in names:
            self.pids.pop(name, None)
        self._say(" ".join(["start", *names]))
        self._starting += len(names)

    def hear(self, wait: bool = False) -> None:
        """Take in which servers have started since; `wait`: until all have."""
        while self._starting and (wait or select.select([self._said], [], [], 0)[0]):
            address, pid = self._said.readline().decode().split()
            self.pids[address] = int(pid)
            self._starting -= 1

    def kill(self, address: str) -> float:
        """SIGKILL the server at `address`; when that was."""
        killed_at = time.monotonic()
        os.kill(self.pids.pop(address), signal.SIGKILL)
        return killed_at

    def serve(self) -> None:
        """Serve all addresses in one process from now on."""
        self._say("serve")
        self._said.readline()

    def counts(self) -> tuple[int, int, float]:
        """How many connections and requests there were, and how long that process has worked, in seconds."""
        self._say("count")
        connections, requests, busy_s = self._said.readline().split()
        return int(connections), int(requests), float(busy_s)

    def end(self) -> None:
        self.hear(wait=True)
        for pid in self.pids.values():
            os.kill(pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()

    def _say(self, line: str) -> None:
        self._orders.write(line.encode() + b"\n")
        self._orders.flush()


class Table:
    """The weights in the kernel, read over netlink: that costs little while they are the same."""

    def __init__(self, namespace: Namespace) -> None:
        with namespace.inside():
            self._channel = Channel(5.0)
            names = self._channel.ask(a.GENL_ID_CTRL, encode.get_family(a.IPVS_GENL_NAME))
        self._family = decode_family(names[0])
        self._decoder = Decoder()
        self._bodies: list[bytes] = []
        self.weights: dict[str, int] = {}
        self.read_at = 0.0

    def read(self) -> bool:
        """Whether anything has changed; `read_at` is when that was known."""
        bodies = self._channel.ask(self._family, encode.list_destinations(KEY), dump=True)
        self.read_at = time.monotonic()
        if bodies == self._bodies:
            return False
        self._bodies = bodies
        rows = self._decoder.destinations(KEY, bodies).rows
        self.weights = {str(real.address): row.weight for real, row in rows.items()}
        return True

    def wait_for(self, addresses: Iterable[str], weight: int) -> None:
        """Until all `addresses` have `weight`."""
        wanted, until_at = set(addresses), time.monotonic() + UP_S
        while not all(self.weights.get(address) == weight for address in wanted):
            if time.monotonic() > until_at:
                raise SystemExit(f"weights are not {weight} after {UP_S:g} s: {self.weights}")
            time.sleep(0.02)
            self.read()


class Subject:
    """One of the kinds at work."""

    def __init__(self, kind: Kind, namespace: Namespace, addresses: Sequence[str], folder: Path) -> None:
        self.kind = kind
        self.addresses = tuple(addresses)
        self.table = Table(namespace)
        folder.mkdir()
        self._folder = folder
        if kind.program == "keepalived":
            file = folder / "keepalived.conf"
            file.write_text(keepalived_text(kind, addresses))
            words = ["keepalived", "--dont-fork", "--check", "--log-console", f"--use-file={file}"]
            words += [f"--pid={folder}/pid", f"--checkers_pid={folder}/checkers"]
        else:
            file = folder / "director.yaml"
            file.write_text(director_text(kind, addresses))
            words = [sys.executable, "-m", "director", "run", str(file)]
            words += ["--socket", f"{folder}/socket", "--state-dir", f"{folder}/state"]
        self._process = namespace.start("sh", "-c", 'exec "$@" >&2', "sh", *words, log=folder / "log")

    def wait_until_up(self) -> None:
        """Until the kernel has all at their weight, and first probes are made."""
        try:
            self.table.wait_for(self.addresses, 100)
        except SystemExit as error:
            raise SystemExit(f"{self.kind.name}: {error}\n{(self._folder / 'log').read_text()[-2000:]}") from error

    def rss_mb(self) -> float:
        """Resident memory of the process that probes."""
        is_alone = self.kind.program != "keepalived"
        pid = self._process.pid if is_alone else int((self._folder / "checkers").read_text())
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def end(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(20.0)
