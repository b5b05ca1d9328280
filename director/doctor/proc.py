"""What /proc says: modules, sockets, connections, processes. Each function takes it in whole, or says why not."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from director.core.table import Protocol
from director.doctor.facts import Conntrack, Flow, Modules, Process, Socket, Unseen
from director.doctor.kernel import RIVALS
from director.doctor.sysctls import CONNTRACK_COUNT, CONNTRACK_MAX
from director.host.lockfile import namespace_inode
from director.host.sysctl import read
from director.kit.errors import HostError
from director.kit.net import IPAddress

NET_ADMIN, NET_RAW = 12, 13  # linux/capability.h
MANY = 50_000
"""Connections that are read at most: a look must end."""
_STATES = {"tcp": "0A", "udp": "07"}  # TCP_LISTEN; an unconnected UDP socket is TCP_CLOSE (net/tcp_states.h)


def has_capability(number: int) -> bool:
    """Whether this process has a capability."""
    for line in _lines("/proc/self/status"):
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return os.geteuid() == 0


def modules() -> Modules:
    """The kernel's modules."""
    release = os.uname().release
    folder = f"/lib/modules/{release}"
    loaded = {line.partition(" ")[0] for line in _lines("/proc/modules")}
    builtin = {_module(line) for line in _lines(f"{folder}/modules.builtin")}
    available = {_module(line.partition(":")[0]) for line in _lines(f"{folder}/modules.dep")}
    may_load = next(iter(_lines("/proc/sys/kernel/modules_disabled")), "0").strip() != "1"
    return Modules(release, frozenset(loaded | builtin), frozenset(available), may_load, bool(available or builtin))


def _module(path: str) -> str:
    return path.strip().rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def has_ipvs() -> bool:
    """Whether IPVS is in the kernel, as a module or built in."""
    return Path("/proc/net/ip_vs").exists()


def sockets() -> tuple[Socket, ...]:
    """The sockets of this network namespace that wait for clients."""
    found = []
    for protocol, wanted in _STATES.items():
        for suffix in ("", "6"):
            for line in _lines(f"/proc/net/{protocol}{suffix}"):
                words = line.split()
                if len(words) > 3 and words[3] == wanted:
                    address, _, port = words[1].partition(":")
                    found.append(Socket(Protocol(protocol), _native(address), int(port, 16)))
    return tuple(dict.fromkeys(found))


def _native(text: str) -> IPAddress:
    """An address as /proc/net/tcp has it: 32-bit words in the machine's order.

    >>> import sys; _native("0100007F") if sys.byteorder == "little" else IPv4Address("127.0.0.1")
    IPv4Address('127.0.0.1')
    """
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return IPv4Address(packed) if len(words) == 1 else IPv6Address(packed)


def flows() -> tuple[Flow, ...] | Unseen:
    """The connections that IPVS carries, at most `MANY`; persistence templates are none."""
    found = []
    try:
        with Path("/proc/net/ip_vs_conn").open() as lines:
            for number, line in enumerate(lines):
                if number > MANY:
                    break
                words = line.split()
                if number and len(words) > 7 and words[2] != "0000":
                    client, vip, real = (_printed(words[at]) for at in (1, 3, 5))
                    found.append(Flow(words[0].lower(), client, vip, int(words[4], 16), real))
    except FileNotFoundError:
        return ()
    except OSError as error:
        return Unseen("connections of clients", f"/proc/net/ip_vs_conn: {error.strerror}", "run as root")
    return tuple(found)


def _printed(text: str) -> IPAddress:
    """An address as /proc/net/ip_vs_conn has it.

    >>> _printed("0A09000A"), _printed("fd09:0000:0000:0000:0000:0000:0000:0010")
    (IPv4Address('10.9.0.10'), IPv6Address('fd09::10'))
    """
    return ip_address(text) if ":" in text else IPv4Address(int(text, 16))


def conntrack() -> Conntrack | None:
    """How full the table of tracked connections is; None where none are tracked."""
    with suppress(HostError, ValueError):
        count, limit = read(CONNTRACK_COUNT), read(CONNTRACK_MAX)
        if count is not None and limit is not None:
            return Conntrack(int(count), int(limit))
    return None


def processes(has_kube_interface: bool) -> tuple[Process, ...]:
    """The programs of this network namespace that may write IPVS's table, each name once."""
    found: dict[str, Process] = {}
    for folder in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        with suppress(OSError):  # it ended meanwhile
            name = (folder / "comm").read_text().strip()
            if name in RIVALS and name not in found and _is_here(folder):
                words = tuple((folder / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0"))
                declares: bool | None = kube_declares(words, has_kube_interface) if name == "kube-proxy" else True
                if name == "keepalived":
                    declares = keepalived_declares(_keepalived_text(folder, words))
                found[name] = Process(int(folder.name), name, words, declares)
    return tuple(found.values())


def _is_here(folder: Path) -> bool:
    try:
        return (folder / "ns/net").stat().st_ino == namespace_inode()
    except PermissionError:  # another user's, and we are not root
        return True


def kube_declares(words: tuple[str, ...], has_interface: bool) -> bool:
    """Whether kube-proxy is in its ipvs mode: it then has an interface kube-ipvs0, or was told so.

    >>> kube_declares(("kube-proxy", "--proxy-mode=ipvs"), False)
    True
    """
    return has_interface or any(re.fullmatch(r"--proxy-mode[= ]ipvs", word) for word in words)


def keepalived_declares(text: str | None) -> bool | None:
    """Whether keepalived.conf has virtual servers; None where only a file that it includes could tell.

    >>> keepalived_declares("vrrp_instance a {\\n}\\n"), keepalived_declares("include conf.d/*.conf")
    (False, None)
    """
    if text is None:
        return None
    lines = [line.strip() for line in text.splitlines()]
    if any(re.match(r"virtual_server(_group)?\b", line) for line in lines):
        return True
    return None if any(re.match(r"include\b", line) for line in lines) else False


def _keepalived_text(folder: Path, words: tuple[str, ...]) -> str | None:
    path = "/etc/keepalived/keepalived.conf"
    for at, word in enumerate(words):
        if word in {"-f", "--use-file"} and at + 1 < len(words):
            path = words[at + 1]
        elif word.startswith("--use-file="):
            path = word.partition("=")[2]
    try:
        return (folder / "root" / path.lstrip("/")).read_text(errors="replace")
    except OSError:
        return None


def _lines(path: str) -> Iterator[str]:
    try:
        with Path(path).open(errors="replace") as lines:
            yield from lines
    except OSError:
        return
