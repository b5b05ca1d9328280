"""Kernel settings under /proc/sys: read, write, and put back what was there.

One rule: a value is put back only in the boot and network namespace in which it was changed, and only
while it still is what we made it; whoever changed it since owns it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from director.host.change import Change
from director.host.lockfile import namespace_inode
from director.kit.errors import HostError
from director.kit.rights import with_capability
from director.kit.statefile import Json

ROOT = Path("/proc/sys")

# A setting's path below /proc/sys, part by part: an interface may be called eth0.100.
Key = tuple[str, ...]

IP_FORWARD: Key = ("net", "ipv4", "ip_forward")
IPV6_FORWARDING: Key = ("net", "ipv6", "conf", "all", "forwarding")
ACCEPT_REDIRECTS: Key = ("net", "ipv4", "conf", "all", "accept_redirects")


@dataclass(frozen=True, slots=True)
class Remembered:
    """What one setting was before we first changed it, and what we made it."""

    key: Key
    before: str
    ours: str


@dataclass(frozen=True, slots=True)
class Epoch:
    """The boot and the network namespace in which facts about the running kernel hold."""

    boot_id: str
    namespace: int


def epoch() -> Epoch:
    """The epoch of the calling thread, now."""
    return Epoch(Path("/proc/sys/kernel/random/boot_id").read_text().strip(), namespace_inode())


def conf(version: int, interface: str, setting: str) -> Key:
    """The key of an interface's setting; `interface` may also be `all` or `default`.

    >>> conf(4, "eth0.100", "arp_ignore")
    ('net', 'ipv4', 'conf', 'eth0.100', 'arp_ignore')
    """
    return ("net", f"ipv{version}", "conf", interface, setting)


def name(key: Key) -> str:
    """The key as sysctl(8) takes it: parts joined by dots, and a dot inside a part becomes a slash.

    >>> name(conf(4, "eth0.100", "arp_ignore"))
    'net.ipv4.conf.eth0/100.arp_ignore'
    """
    return ".".join(part.replace(".", "/") for part in key)


def key_of(dotted: str) -> Key:
    """The key behind a name of sysctl(8); the inverse of `name`.

    >>> key_of("net.ipv4.conf.eth0/100.arp_ignore")[3]
    'eth0.100'
    """
    return tuple(part.replace("/", ".") for part in dotted.split("."))


def read(key: Key) -> str | None:
    """The setting's value without surrounding space; None when this kernel has no such setting.

    Raises: HostError when it exists and cannot be read.
    """
    try:
        return _path(key).read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise HostError(f"could not read {name(key)}: {error.strerror}") from error


def write(key: Key, value: str) -> Change | None:
    """Make the setting `value`; None when it was so already.

    Raises: HostError when the kernel has no such setting or refuses the value.
    """
    before = read(key)
    if before is None:
        raise _missing(key)
    if before == value:
        return None
    try:
        _path(key).write_text(value + "\n")
    except OSError as error:
        raise HostError(f"could not set {name(key)} to {value} (it is {before}): {_reason(error)}") from error
    return Change("sysctl", name(key), before, value)


def enforce(wanted: Mapping[Key, str]) -> list[Change]:
    """Make every setting what is wanted.

    Raises: HostError at the first one that the kernel lacks or refuses.
    """
    changes = [write(key, value) for key, value in wanted.items()]
    return [change for change in changes if change is not None]


def remember(wanted: Mapping[Key, str], known: Iterable[Remembered]) -> tuple[Remembered, ...]:
    """`known` and, of `wanted`, each setting that is different now: save this, and only then write.

    A setting already known keeps its first `before`, so that applying twice still undoes to the start.
    Of a setting that the kernel lets change others (`swept_by`), those that its undoing would lose stand before it.
    Raises: HostError when a wanted setting does not exist.
    """
    entries = {entry.key: entry for entry in known}
    for key, value in wanted.items():
        if key in entries:
            entries[key] = Remembered(key, entries[key].before, value)
            continue
        before = read(key)
        if before is None:
            raise _missing(key)
        if before != value:
            for swept in _swept(key, before, value):
                entries.setdefault(swept.key, swept)
            entries[key] = Remembered(key, before, value)
    return tuple(entries.values())


def still_ours(entries: Iterable[Remembered]) -> tuple[Remembered, ...]:
    """Those that are there and still what we made them, in the order of putting back: last changed first."""
    return tuple(entry for entry in reversed(tuple(entries)) if read(entry.key) == entry.ours)


def undo(entries: Iterable[Remembered]) -> list[Change]:
    """Put settings back, last changed first; leave those that are gone or no longer what we made them.

    Raises: HostError when the kernel refuses.
    """
    # All are looked at before any is written: writing one may change another.
    changes = [write(entry.key, entry.before) for entry in still_ours(entries)]
    return [change for change in changes if change is not None]


def swept_by(key: Key) -> Key | None:
    """The setting whose writing changes `key` on its own; None for most.

    inet_forward_change (net/ipv4/devinet.c) and addrconf_fixup_forwarding (net/ipv6/addrconf.c): switching a host's
    forwarding sets that of each interface and of the default to the same, and IPv4's `all.accept_redirects` to the
    opposite.
    """
    match key:
        case ("net", "ipv4", "conf", "all", "accept_redirects") | ("net", "ipv4", "conf", _, "forwarding"):
            return IP_FORWARD
        case ("net", "ipv6", "conf", interface, "forwarding") if interface != "all":
            return IPV6_FORWARDING
    return None


def to_json(entries: Iterable[Remembered]) -> list[Json]:
    """For a state file; `from_json` is its inverse."""
    return [{"name": name(entry.key), "before": entry.before, "ours": entry.ours} for entry in entries]


def from_json(entries: Iterable[Json]) -> tuple[Remembered, ...]:
    """What `to_json` wrote. Raises: ValueError for anything else."""
    return tuple(map(_from_json, entries))


def _from_json(entry: Json) -> Remembered:
    match entry:
        case {"name": str(dotted), "before": str(before), "ours": str(ours)}:
            return Remembered(key_of(dotted), before, ours)
    raise ValueError(f"{entry!r} is not a remembered sysctl")


def _swept(key: Key, before: str, value: str) -> list[Remembered]:
    """What writing `value` to `key` changes and writing `before` again would not put back."""
    if key not in (IP_FORWARD, IPV6_FORWARDING):
        return []
    folder = ROOT.joinpath("net", "ipv4" if key == IP_FORWARD else "ipv6", "conf")
    interfaces = sorted(path.name for path in folder.iterdir() if path.name != "all") if folder.is_dir() else []
    found = []
    for interface in interfaces:
        each: Key = ("net", folder.parent.name, "conf", interface, "forwarding")
        now = read(each)
        if now not in (before, None):
            found.append(Remembered(each, now, value))
    # Both are 0 or 1, so its opposite of one is the other.
    if key == IP_FORWARD and read(ACCEPT_REDIRECTS) == before:
        found.append(Remembered(ACCEPT_REDIRECTS, before, before))
    return found


def _path(key: Key) -> Path:
    return ROOT.joinpath(*key)


def _missing(key: Key) -> HostError:
    return HostError(f"{name(key)} does not exist: check the interface's name, and that the kernel's module is loaded")


def _reason(error: OSError) -> str:
    if error.errno in {errno.EPERM, errno.EACCES}:
        return f"{error.strerror}: {with_capability('CAP_NET_ADMIN')}"
    if error.errno == errno.EROFS:
        return (
            "/proc/sys is read-only here: in a systemd unit it needs ProtectKernelTunables=no and ProcSubset=all; "
            "in a container, set it on the host, or run with it writable"
        )
    return error.strerror or str(error)
