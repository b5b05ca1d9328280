"""Looks at the kernel: what IPVS needs of it, what its table holds, and who else writes there."""

from __future__ import annotations

from collections.abc import Iterator

from director.core.table import VirtualKey
from director.doctor.facts import Facts, Process, Unseen, need, skipped
from director.doctor.finding import Code, Finding, error, listed, note, warning

RIVALS = ("keepalived", "kube-proxy", "ldirectord", "surealived")
"""Programs that write the table; keepalived and kube-proxy also does other things, hence `Process.declares`."""


_NO_FOLDER = "there is no folder of this kernel's modules here (a container), and it may be built in"


def modules(facts: Facts) -> Iterator[Finding]:
    """IPVS itself, and what some forwarding methods need beside it."""
    if not facts.directs:
        return
    if not facts.has_ipvs:
        yield _missing(facts, Code.MODULE_MISSING, "ip_vs", "nothing is forwarded without it")
    if any(virtual.forward == "fullnat" for virtual in facts.directs) and not facts.modules.has("xt_ipvs"):
        yield _missing(facts, Code.MODULE_MISSING, "xt_ipvs", "fullnat's rules need it to know IPVS's packets")


def schedulers(facts: Facts) -> Iterator[Finding]:
    """Every virtual server's scheduler: the kernel loads it when it is first asked for, if it can."""
    if not facts.has_ipvs:
        return
    used = set() if isinstance(facts.table, Unseen) else {entry.row.scheduler for entry in facts.table.entries.values()}
    for scheduler in dict.fromkeys(virtual.scheduler for virtual in facts.directs):
        name = f"ip_vs_{scheduler}"
        if scheduler is None or scheduler in used or facts.modules.has(name):
            continue
        if not facts.modules.complete:
            yield skipped(
                Unseen(f"module {name}", _NO_FOLDER, "look on the host whose kernel this is: modinfo " + name)
            )
            continue
        users = listed(dict.fromkeys(virtual.name for virtual in facts.directs if virtual.scheduler == scheduler))
        yield _missing(facts, Code.SCHEDULER_MISSING, name, f"{users} cannot be programmed")


def _missing(facts: Facts, code: Code, name: str, so: str) -> Finding:
    known = facts.modules
    if name in known.available and known.may_load:
        return error(code, name, f"it is not loaded, and {so}", f"modprobe {name}")
    if name in known.available:
        found = f"it is not loaded, and kernel.modules_disabled=1 keeps it out, and {so}"
        return error(code, name, found, f"load {name} at boot, before modules are switched off (/etc/modules-load.d)")
    found = f"kernel {known.release} has no such module, loaded or in /lib/modules, and {so}"
    other = "" if code is Code.MODULE_MISSING else ", or use another scheduler"
    return error(code, name, found, f"install the package with the kernel's further modules{other}")


def table(facts: Facts) -> Iterator[Finding]:
    """The kernel's table beside the file."""
    if not facts.directs or not facts.has_ipvs:
        return
    entries = need(facts.table).entries
    source = facts.situation.source
    absent: dict[str, list[VirtualKey]] = {}
    for key, name in facts.situation.keys.items():
        if key not in entries:
            absent.setdefault(name, []).append(key)
    for name, missing in absent.items():
        yield error(
            Code.NOT_APPLIED,
            name,
            f"the kernel does not have {listed(missing)}",
            f"`director apply {source}`, or start `director run {source}`",
        )
    foreign = [key for key in entries if key not in facts.situation.keys]
    if foreign:
        yield note(
            Code.UNDECLARED,
            listed(foreign),
            f"IPVS holds what {source} does not declare",
            "if nothing needs it: ipvsadm -D; else see who wrote it",
        )


def rivals(facts: Facts) -> Iterator[Finding]:
    """Programs that write the same table."""
    if not facts.directs:
        return
    for process in facts.processes:
        if process.name == "kube-proxy" and process.declares is not False:
            yield error(
                Code.RIVAL,
                _named(process),
                "in its ipvs mode it deletes virtual servers that are not its own",
                "run the director on another host or network namespace, or kube-proxy with mode iptables or nftables, "
                "or name the VIPs in its ipvs.excludeCIDRs",
            )
        elif process.name in RIVALS and process.declares is not False:
            unread = "" if process.declares else " (its configuration could not be read)"
            yield warning(
                Code.RIVAL,
                _named(process),
                f"it writes virtual servers into the same table{unread}",
                "let one of the two manage virtual servers: take them out of its configuration, or stop it",
            )


def _named(process: Process) -> str:
    return f"{process.name} (process {process.pid})"
