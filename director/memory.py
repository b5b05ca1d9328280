"""What the director must not forget when it dies: which parts of the kernel's state are its own.

One rule: something is remembered before it is made and forgotten after it is gone, so that a death in
between leaves nothing behind that nobody owns. IPVS itself has no owner tag.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from director.core.namespace import NOTHING, OwnedNamespace
from director.core.table import SyncDaemon, SyncRole, Timeouts, VirtualKey
from director.core.vip import Vip
from director.host.sysctl import Epoch, epoch
from director.kit import statefile

VERSION = 1


@dataclass(frozen=True, slots=True)
class Owned:
    """Virtual servers and addresses that this director made or took over, and timeouts and sync daemons."""

    virtual_servers: frozenset[VirtualKey] = frozenset()
    vips: frozenset[Vip] = frozenset()
    namespace: OwnedNamespace = NOTHING


class Memory:
    """`Owned`, kept in `directory`/owned.json.

    It holds for one boot and one network namespace: what stands in another was made by somebody else.
    """

    def __init__(self, directory: Path, now: Callable[[], Epoch] = epoch) -> None:
        self._path = directory / "owned.json"
        self._now = now
        self._owned: Owned | None = None

    def load(self) -> Owned:
        """What is remembered; nothing when there is no file.

        Raises: HostError for a damaged file.
        """
        if self._owned is None:
            self._owned = self._read()
        return self._owned

    def save(self, owned: Owned) -> None:
        """Remember `owned`; no write when that is known already. Raises: HostError."""
        if owned != self.load():
            keys: list[statefile.Json] = [*sorted(str(key) for key in owned.virtual_servers)]
            vips: list[statefile.Json] = [
                {"address": str(vip.address), "interface": vip.interface} for vip in sorted(owned.vips, key=str)
            ]
            now = self._now()
            content: dict[str, statefile.Json] = {
                "boot_id": now.boot_id,
                "namespace": now.namespace,
                "virtual_servers": keys,
                "vips": vips,
                **_namespace_to_json(owned.namespace),
            }
            statefile.save(self._path, VERSION, content)
            self._owned = owned

    def _read(self) -> Owned:
        content = statefile.load(self._path, VERSION)
        if content is None:
            return Owned()
        try:
            keys, vips = content["virtual_servers"], content["vips"]
            made = Epoch(str(content["boot_id"]), int(str(content["namespace"])))
            if not isinstance(keys, list) or not isinstance(vips, list):
                raise TypeError("not a list")
            owned = Owned(
                frozenset(VirtualKey.parse(str(key)) for key in keys),
                frozenset(Vip(ip_address(str(vip["address"])), str(vip["interface"])) for vip in map(_object, vips)),
                _namespace_from_json(content),
            )
            return owned if made == self._now() else Owned()
        except (KeyError, TypeError, ValueError) as error:
            raise statefile.damaged(self._path, f"its content is not what was saved ({error})") from error


def _namespace_to_json(owned: OwnedNamespace) -> dict[str, statefile.Json]:
    pair = (owned.timeouts, owned.timeouts_before)
    return {
        "timeouts": [[each.tcp_s, each.tcpfin_s, each.udp_s] for each in pair if each],
        "sync": [
            [each.role.value, each.interface, each.id, str(each.group), each.port, each.ttl, each.maxlen]
            for each in sorted(owned.sync, key=str)
        ],
    }


def _namespace_from_json(content: dict[str, statefile.Json]) -> OwnedNamespace:
    pair, sync = content.get("timeouts", []), content.get("sync", [])  # absent in files of before
    match pair:
        case []:
            timeouts = before = None
        case [[int(tcp), int(tcpfin), int(udp)], [int(tcp_was), int(tcpfin_was), int(udp_was)]]:
            timeouts, before = Timeouts(tcp, tcpfin, udp), Timeouts(tcp_was, tcpfin_was, udp_was)
        case _:
            raise ValueError("timeouts")
    if not isinstance(sync, list):
        raise TypeError("sync is not a list")
    return OwnedNamespace(timeouts, before, frozenset(map(_daemon, sync)))


def _daemon(value: statefile.Json) -> SyncDaemon:
    match value:
        case [str(role), str(interface), int(number), str(group), int(port), int(ttl), int() | None as maxlen]:
            return SyncDaemon(SyncRole(role), interface, number, ip_address(group), port, ttl, maxlen)
    raise ValueError("a sync daemon")


def _object(value: statefile.Json) -> dict[str, statefile.Json]:
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return value
