"""A laid out lab as tests see it: hosts that run commands, hold files and can be cut off.

One rule: what a command did is a value (`Result`); only the lab's own failure, or `check`, raises.
"""

from __future__ import annotations

import os
import shlex
import signal as signals
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

from director.lab.channel import Answer, Channel, Pending
from director.lab.errors import CommandError, LabError, StillRunningError
from director.lab.topology import Host, Topology, as_plain

START_LIMIT_S = 30.0
"""How long the agent may take for what it does at once; it answers within milliseconds unless a layout is built."""

_GRACE_S = 30.0


@dataclass(frozen=True, slots=True)
class Result:
    """What a command did. `exit_code` is negative for a signal, 127 when there is no such program.

    At most 8 MiB of each output is kept; `dropped_bytes` says how much more there was.
    """

    command: str
    exit_code: int
    stdout: str
    stderr: str
    duration_s: float
    timed_out: bool = False
    dropped_bytes: int = 0

    def check(self) -> Result:
        """Itself, if the exit code is 0.

        Raises: CommandError, with the full output.
        """
        if self.exit_code != 0:
            raise CommandError(str(self))
        return self

    def __str__(self) -> str:
        end = f"was killed at its limit, after {self.duration_s:.1f} s" if self.timed_out else f"exit {self.exit_code}"
        cut = f"\n[{self.dropped_bytes} more bytes were dropped]" if self.dropped_bytes else ""
        return f"{self.command}: {end}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}{cut}"


class Process:
    """A command in the background; it ends with the lab at the latest. Its errors go where its output goes."""

    def __init__(self, channel: Channel, pending: Pending, name: str, pid: int) -> None:
        self.name = name
        self.pid = pid
        self._channel = channel
        self._pending = pending

    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return not self._pending.ended.is_set()

    def kill(self, signal: int = signals.SIGTERM, *, group: bool = False) -> None:
        """Send a signal to the process itself, or to its whole group; none if it has ended."""
        self._signal(int(signal), "group" if group else "process")

    def kill_tree(self) -> None:
        """SIGKILL it and everything it started."""
        self._signal(int(signals.SIGKILL), "tree")

    def wait(self, timeout_s: float) -> int:
        """Its exit code, negative for a signal.

        Raises: StillRunningError when it has not ended in time.
        """
        if not self._pending.ended.wait(timeout_s):
            raise StillRunningError(f"{self.name} still runs after {timeout_s:g} s; it said:\n{self.output()[-4000:]}")
        return int(str(self._channel.wait(self._pending, self._pending.ended, 0)["exit"]))

    def output(self) -> str:
        """What it has written so far, at most 8 MiB, then a note of what was dropped."""
        if self.alive():
            self._channel.order("flush", target=self._pending.number, limit_s=START_LIMIT_S)
        try:
            data = self._channel.path(self._pending.number, "out").read_bytes()
        except FileNotFoundError:
            data = b""
        dropped = _total(self._pending.answer, "dropped")
        return data.decode(errors="replace") + (f"\n[{dropped} more bytes were dropped]" if dropped else "")

    def _signal(self, number: int, to: str) -> None:
        self._channel.order("signal", target=self._pending.number, signal=number, to=to, limit_s=START_LIMIT_S)


class Cable:
    """What joins a host to a network."""

    def __init__(self, channel: Channel, name: str, port: str, mac: str) -> None:
        self.name = name
        self.mac = mac
        self._channel = channel
        self._port = port

    def down(self) -> None:
        """Pull the plug: the host keeps its addresses and loses the carrier."""
        self._channel.order("cable", port=self._port, state="down", limit_s=START_LIMIT_S)

    def up(self) -> None:
        """Plug it in again."""
        self._channel.order("cable", port=self._port, state="up", limit_s=START_LIMIT_S)


class LabHost:
    """One host of a lab. It has private /run, /tmp, /var/lib, /var/log and /etc, and a loopback of its own."""

    def __init__(
        self, channel: Channel, host: Host, cables: Mapping[str, Cable], environment: Mapping[str, str]
    ) -> None:
        self.name = host.name
        self.host = host
        self._channel = channel
        self._cables = cables
        self._environment = environment

    def run(
        self,
        *argv: str | os.PathLike[str],
        timeout_s: float = 30.0,
        stdin: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        fresh: bool | None = None,
    ) -> Result:
        """Run a command to its end, or to its limit, at which it is killed with all it started.

        `director` is forked from a Python that has imported it, which saves 0.5-2 s a call in the user-mode kernel,
        unless `env` is given. `fresh=True` starts it as an operator does; `fresh=False` forks `python -c` and `-m` too.

        Raises: LabError when the lab fails, never for what the command did.
        """
        fork = argv[0] == "director" and env is None if fresh is None else not fresh
        details = self._details(argv, env, cwd, timeout_s, fork)
        answer = self._channel.order("run", payload=_bytes(stdin), limit_s=timeout_s + _GRACE_S, **details)
        return self._result(argv, int(str(answer["job"])), answer)

    def start(
        self,
        *argv: str | os.PathLike[str],
        name: str | None = None,
        stdin: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        fresh: bool = True,
    ) -> Process:
        """Start a command in the background; `fresh=False` forks it, as `run` does.

        Raises: LabError when it cannot be started.
        """
        pending = self._channel.post("run", payload=_bytes(stdin), **self._details(argv, env, cwd, None, not fresh))
        answer = self._channel.wait(pending, pending.started, START_LIMIT_S)
        if "error" in answer:
            raise LabError(f"{self.name}: {answer['error']}")
        if "pid" not in answer:
            raise LabError(f"{self.name}: {answer.get('note', 'did not start')}")
        return Process(self._channel, pending, name or f"{self.name}: {_words(argv)}", int(str(answer["pid"])))

    def write(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """Write a file whole, with the folders above it."""
        self._order("write", path=path, mode=mode, payload=_bytes(content) or b"")

    def read(self, path: str) -> str:
        """Read a file of at most 8 MiB."""
        answer = self._order("read", path=path)
        return self._channel.take(int(str(answer["job"])), "out").decode(errors="replace")

    def address(self, network: str, family: int = 4) -> str:
        """Its address on a network, without a prefix length; `family` is 4 or 6."""
        link = self.host.links[network]
        return str(link.v6 if family == 6 else link.v4)

    def link(self, network: str) -> Cable:
        """Its cable to a network."""
        return self._cables[network]

    def _details(
        self,
        argv: tuple[str | os.PathLike[str], ...],
        env: Mapping[str, str] | None,
        cwd: str,
        timeout_s: float | None,
        fork: bool,
    ) -> dict[str, object]:
        if fork and (
            env is not None or not (argv[0] == "director" or argv[:2] in (("python", "-c"), ("python", "-m")))
        ):
            raise LabError(
                f"{_words(argv)}: only director, python -c and python -m can be forked, and only without env"
            )
        return {
            "host": self.name,
            "argv": [os.fspath(word) for word in argv],
            "env": {**self._environment, **(env or {})},
            "cwd": cwd,
            "timeout_s": timeout_s,
            "fork": fork,
        }

    def _order(self, do: str, payload: bytes | None = None, **details: object) -> Answer:
        answer = self._channel.order(do, payload=payload, host=self.name, limit_s=START_LIMIT_S, **details)
        if "error" in answer:
            raise LabError(f"{self.name}: {do}: {answer['error']}")
        return answer

    def _result(self, argv: tuple[str | os.PathLike[str], ...], number: int, answer: Answer) -> Result:
        command = f"{self.name}: {_words(argv)}"
        if "error" in answer:
            raise LabError(f"{command}: {answer['error']}")
        kept = _numbers(answer, "kept")
        texts = [
            self._channel.take(number, kind).decode(errors="replace") if count else ""
            for kind, count in zip(("out", "err"), kept, strict=True)
        ]
        return Result(
            command,
            int(str(answer["exit"])),
            texts[0],
            texts[1] + str(answer.get("note", "")),
            float(str(answer["s"])),
            answer["timed_out"] is True,
            _total(answer, "dropped"),
        )


class Lab:
    """The hosts of one topology, for as long as the context lasts."""

    def __init__(self, channel: Channel, topology: Topology, environment: Mapping[str, str]) -> None:
        self.topology = topology
        self._channel = channel
        plain = as_plain(topology)
        answer = channel.order("lay_out", topology=plain, limit_s=START_LIMIT_S + _GRACE_S)
        if "error" in answer:
            if "stands already" not in str(answer["error"]):
                self.close()
            raise LabError(f"the lab was not laid out: {answer['error']}")
        self._hosts = {
            host.name: LabHost(channel, host, _cables(channel, plain, host), environment)
            for host in topology.hosts.values()
        }

    def host(self, name: str) -> LabHost:
        """A host by name.

        Raises: LabError when there is none.
        """
        try:
            return self._hosts[name]
        except KeyError:
            raise LabError(f"the lab has no host {name!r}: it has {', '.join(self._hosts)}") from None

    def hosts(self, role: str | None = None) -> list[LabHost]:
        """All hosts, or those of a role, in the topology's order."""
        return [each for each in self._hosts.values() if role in (None, each.host.role)]

    def close(self) -> None:
        """Kill every process of the hosts, and remove the hosts."""
        self._channel.order("clear", limit_s=START_LIMIT_S + _GRACE_S)

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _cables(channel: Channel, plain: Mapping[str, object], host: Host) -> dict[str, Cable]:
    hosts: Mapping[str, Mapping[str, Mapping[str, Mapping[str, str]]]] = plain["hosts"]  # type: ignore[assignment]
    links = hosts[host.name]["links"]
    return {name: Cable(channel, name, link["port"], link["mac"]) for name, link in links.items()}


def _numbers(answer: Answer, key: str) -> list[int]:
    value = answer.get(key, [])
    return [int(str(each)) for each in value] if isinstance(value, list) else []


def _total(answer: Answer, key: str) -> int:
    return sum(_numbers(answer, key))


def _words(argv: tuple[str | os.PathLike[str], ...]) -> str:
    return shlex.join(os.fspath(word) for word in argv)


def _bytes(content: str | bytes | None) -> bytes | None:
    return content.encode() if isinstance(content, str) else content
