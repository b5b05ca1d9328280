"""What Prometheus is told of a director: every family, and the numbers of each.

One rule: labels are names from the configuration, so the number of series is the file's and nobody else's; there is no
clock here, and nothing is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from director.core.model import ServerRef
from director.core.status import RealServerStatus, Status, VirtualServerStatus
from director.kit.health import Status as Health
from director.kit.health import Tally

Sample: TypeAlias = tuple[tuple[str, ...], float]
"""Values of the family's labels, and the number."""

VIRTUAL = ("virtual_server",)
REAL = ("virtual_server", "real_server")


@dataclass(frozen=True, slots=True)
class Family:
    """A metric; of a counter, `name` is without its `_total`."""

    name: str
    is_counter: bool
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Looks:
    """The reconcile loop's work since the start; `agreed_at` (seconds since 1970) is the last time that all agreed."""

    made: int = 0
    failed: int = 0
    agreed_at: float | None = None

    def another(self, agreed_at: float | None) -> Looks:
        """With one more, after which all agreed at `agreed_at`, or did not."""
        if agreed_at is None:
            return Looks(self.made + 1, self.failed + 1, self.agreed_at)
        return Looks(self.made + 1, self.failed, agreed_at)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What has become of one notification's events; `fails`: the last try did not arrive."""

    waiting: int = 0
    fails: bool = False
    delivered: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Work:
    """What a director has counted of its own work. `hooks` are programs run by virtual server, and how many failed;
    `taken_at` (seconds since 1970) is when a configuration was taken last."""

    looks: Looks = Looks()
    probes: Mapping[ServerRef, Tally] = field(default_factory=dict)
    probes_due: int = 0
    probes_on_time: int = 0
    taken_at: float = 0.0
    hooks: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    deliveries: Mapping[str, Delivery] = field(default_factory=dict)


def families(status: Status, read_at: float, work: Work) -> Iterator[tuple[Family, Iterable[Sample]]]:
    """All of them; the kernel was read for `status` at `read_at` (seconds since 1970)."""
    yield from _daemon(status, read_at, work)
    virtuals = status["virtual_servers"]
    for family, of_virtual in _VIRTUAL:
        yield family, [((each["name"],), value) for each in virtuals if (value := of_virtual(each)) is not None]
    yield _DRIFT, [((each["name"],), len(each["drift"])) for each in virtuals]
    yield _REPAIRED, [((each["name"],), each["drift_repaired"]) for each in virtuals]
    for family, of_real in _REAL:
        yield (
            family,
            [
                ((virtual["name"], real["name"]), value)
                for virtual in virtuals
                for real in virtual["real_servers"]
                if (value := of_real(real)) is not None
            ],
        )
    probes = [((ref.virtual_server, ref.real_server), tally) for ref, tally in work.probes.items()]
    yield _PROBES, [(labels, tally.ended) for labels, tally in probes]
    yield _PROBES_FAILED, [(labels, tally.failed) for labels, tally in probes]
    yield _PROBE_DURATION, [(labels, tally.last_s) for labels, tally in probes if tally.last_s is not None]


def _daemon(status: Status, read_at: float, work: Work) -> Iterator[tuple[Family, Iterable[Sample]]]:
    daemon, looks = status["daemon"], work.looks

    def one(name: str, value: float, what: str, *, counter: bool = False) -> tuple[Family, Iterable[Sample]]:
        return Family(name, counter, what), [((), value)]

    info = Family("director_build_info", False, "1; which release runs.", ("version",))
    yield info, [((daemon["version"],), 1)]
    yield one("director_kernel_read_timestamp_seconds", read_at, "When the kernel was read for these numbers.")
    yield one("director_converged", daemon["converged"], "1 while kernel and host are as they should be.")
    yield one("director_failures", len(daemon["failures"]), "What it could not bring about at the last look.")
    # The whole network namespace's, timeouts and sync daemons with them, which are of no virtual server.
    yield one("director_namespace_drift", len(daemon["drift"]), "What of no virtual server was changed and stands.")
    yield one(
        "director_drift_repaired", daemon["drift_repaired"], "Changes by others that were put right.", counter=True
    )
    yield one("director_waiting", len(daemon["waiting"]), "What it will bring about later, when it can.")
    yield one("director_reconciles", looks.made, "Looks at the kernel, each with what had to be done.", counter=True)
    yield one("director_reconcile_failures", looks.failed, "Looks that left something undone.", counter=True)
    if looks.agreed_at is not None:
        name = "director_reconcile_last_success_timestamp_seconds"
        yield one(name, looks.agreed_at, "When a look last left nothing undone.")
    refused = bool(daemon["reload_refused"])
    yield one("director_config_last_reload_successful", not refused, "0 while the file on the disk is a refused one.")
    yield one(
        "director_config_last_reload_success_timestamp_seconds",
        *(work.taken_at, "When a configuration was last taken, at the start, by a reload or an apply."),
    )
    yield one("director_config_unconfirmed", daemon["unconfirmed"] is not None, "1 while one awaits confirmation.")
    yield one("director_leaving_servers", len(daemon["leaving"]), "Real servers that drain before they are removed.")
    yield one("director_probes_due", work.probes_due, "Probes that were due, of all checks.", counter=True)
    yield one("director_probes_on_time", work.probes_on_time, "Those begun within 100 ms of that.", counter=True)
    hooks = work.hooks.items()
    yield _HOOKS, [((name,), run) for name, (run, _) in hooks]
    yield _HOOKS_FAILED, [((name,), failed) for name, (_, failed) in hooks]
    for family, of in _DELIVERIES:
        yield family, [((name,), of(each)) for name, each in work.deliveries.items()]


def _up(virtual: VirtualServerStatus) -> float:
    """Whether every new connection finds somebody, at whichever of its addresses and ports."""
    return virtual["in_kernel"] and any(real["kernel_weight"] for real in virtual["real_servers"])


def _healthy(real: RealServerStatus) -> float | None:
    """A real server that is not checked is taken as up; before the first verdict nobody knows."""
    return None if real["health"] == Health.PENDING.value else real["health"] != Health.DOWN.value


_Of = Callable[[VirtualServerStatus], float | None]
_VIRTUAL: tuple[tuple[Family, _Of], ...] = tuple(
    (Family(f"director_virtual_server_{name}", counter, what, VIRTUAL), of)
    for name, counter, what, of in (
        ("up", False, "1 where the kernel has it, with a real (or its sorry) server that takes connections.", _up),
        ("quorum", False, "1 while quorum is held.", lambda each: each["quorum"] == "held"),
        ("panic", False, "1 while so many are down that probes are not trusted.", lambda each: each["panic"]),
        ("alive_servers", False, "Real servers that take connections, but for the sorry server.", lambda v: v["alive"]),
        ("entries", False, "Entries that the kernel's table is to have for it.", lambda each: len(each["keys"])),
        ("kernel_entries", False, "Those of them that it has.", lambda each: each["keys_in_kernel"]),
        ("vip_present", False, "1 while its addresses are here; where they are kept.", lambda v: v["vip_present"]),
        ("connections", True, "Connections, by the kernel.", lambda each: each["connections"]),
        ("received_packets", True, "Packets of clients.", lambda each: each["in_packets"]),
        ("sent_packets", True, "Packets to clients; 0 with dr and tun.", lambda v: v["out_packets"]),
        ("received_bytes", True, "Bytes of clients.", lambda each: each["in_bytes"]),
        ("sent_bytes", True, "Bytes to clients; 0 with dr and tun.", lambda v: v["out_bytes"]),
    )
)  # fmt: skip

_OfReal = Callable[[RealServerStatus], float | None]
_REAL: tuple[tuple[Family, _OfReal], ...] = tuple(
    (Family(f"director_real_server_{name}", counter, what, REAL), of)
    for name, counter, what, of in (
        ("up", False, "1 up or not checked, 0 down; missing before a verdict.", _healthy),
        ("weight", False, "The effective weight: what the kernel is to have.", lambda each: each["weight"]),
        ("configured_weight", False, "The file's.", lambda each: each["configured_weight"]),
        ("kernel_weight", False, "The kernel's; missing where it has none.", lambda r: r["kernel_weight"]),
        ("entries_wrong", False, "Entries in the kernel that are not as due.", lambda r: r["entries_wrong"]),
        ("operator_weight", False, "The operator's, where there is one.", lambda each: each["operator_weight"]),
        ("drained", False, "1 while the operator drains it.", lambda each: each["drained"]),
        ("maintenance", False, "1 while the operator has taken it out.", lambda each: each["maintenance"] is not None),
        ("warning", False, "1 while something will fail later, as a certificate.", lambda r: bool(r["warning"])),
        ("active_connections", False, "Connections that it carries.", lambda each: each["active"]),
        ("inactive_connections", False, "Connections that are over and still known.", lambda r: r["inactive"]),
        ("connections", True, "Connections, by the kernel.", lambda each: each["connections"]),
        ("received_packets", True, "Packets of clients.", lambda each: each["in_packets"]),
        ("sent_packets", True, "Packets to clients; 0 with dr and tun.", lambda each: each["out_packets"]),
        ("received_bytes", True, "Bytes of clients.", lambda each: each["in_bytes"]),
        ("sent_bytes", True, "Bytes to clients; 0 with dr and tun.", lambda each: each["out_bytes"]),
    )
)  # fmt: skip

_DRIFT = Family("director_virtual_server_drift", False, "What somebody else has changed and still stands.", VIRTUAL)
_REPAIRED = Family("director_virtual_server_drift_repaired", True, "What of that was put right.", VIRTUAL)
_PROBES = Family("director_real_server_probes", True, "Probes of its checks that have ended.", REAL)
_PROBES_FAILED = Family("director_real_server_probe_failures", True, "Those of them that failed.", REAL)
_PROBE_DURATION = Family("director_real_server_probe_duration_seconds", False, "How long the last one took.", REAL)
_HOOKS = Family("director_hook_runs", True, "Quorum programs that were run.", VIRTUAL)
_HOOKS_FAILED = Family("director_hook_failures", True, "Those of them that failed.", VIRTUAL)

_DELIVERIES: tuple[tuple[Family, Callable[[Delivery], float]], ...] = tuple(
    (Family(f"director_notification{name}", counter, what, ("notification",)), of)
    for name, counter, what, of in (
        ("_failing", False, "1 while its last try did not arrive.", lambda each: each.fails),
        ("_events_waiting", False, "Events that are to be told.", lambda each: each.waiting),
        ("_events_delivered", True, "Events that were told.", lambda each: each.delivered),
        ("_events_lost", True, "Events that were given up.", lambda each: each.lost),
    )
)  # fmt: skip
