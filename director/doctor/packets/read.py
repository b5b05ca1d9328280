"""Has iptables and nft say what rules there are.

One rule: it starts only what can have something to say, so that nothing is loaded into the kernel by looking.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable

from director.doctor.packets import iptables, nft
from director.doctor.packets.rules import Table
from director.host.iptables import STEMS, backends
from director.kit.errors import HostError

LIMIT_S = 5.0
_PATH = "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin:/usr/local/bin"
_FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}  # linux/netfilter.h
_NFT_FAMILY = {4: "ip", 6: "ip6"}
_TABLES = ("filter", "mangle", "raw", "security")


def read(versions: Iterable[int], *, has_nft: bool) -> tuple[tuple[Table, ...], tuple[str, ...]]:
    """Every rule for these IP versions, and a sentence for each part that is there and could not be read.

    `has_nft` says whether the kernel has nftables, which iptables-nft is a face of.
    Raises: HostError when iptables cannot be asked.
    """
    tables: list[Table] = []
    complaints: list[str] = []
    shown: set[tuple[str, str]] = set()
    for version in sorted(set(versions)):
        for backend in backends(version):
            if backend.kind == "nft" and not has_nft:
                continue
            if not any(backend.may_hold(table) for table in _TABLES):
                continue
            text = backend.save_all()
            if backend.kind == "legacy":
                tables += iptables.parse(text, f"{STEMS[version]}-legacy", version)
                continue
            without = iptables.tables_that_need_nft(text)
            found = [each for each in iptables.parse(text, backend.stem, version) if each.name not in without]
            tables += found
            shown |= {(_NFT_FAMILY[version], table.name) for table in found}
    if has_nft and (hidden := _hidden(frozenset(shown))) != frozenset():
        tables += _nft(frozenset(shown), hidden, complaints)
    return tuple(tables), tuple(complaints)


def _hidden(shown: frozenset[tuple[str, str]]) -> frozenset[tuple[str, str]] | None:
    """The tables of nftables by family and name that iptables does not show; None where the kernel does not say."""
    there = nft_tables()
    return None if there is None else there - shown


def nft_tables() -> frozenset[tuple[str, str]] | None:
    """Every table of nftables that IP packets meet, by family and name; None where the kernel does not say."""
    from pyroute2 import NetlinkError
    from pyroute2.nftables.main import NFTables

    try:
        with NFTables(nfgen_family=0) as sockets:
            found = [(each["nfgen_family"], each.get_attr("NFTA_TABLE_NAME")) for each in sockets.get_tables()]
    except (NetlinkError, OSError):
        return None
    return frozenset((_FAMILIES[family], name) for family, name in found if family in _FAMILIES)


def _nft(
    shown: frozenset[tuple[str, str]], hidden: frozenset[tuple[str, str]] | None, complaints: list[str]
) -> tuple[Table, ...]:
    names = "rules" if hidden is None else ", ".join(" ".join(each) for each in sorted(hidden))
    program = shutil.which("nft") or shutil.which("nft", path=_PATH)
    if program is None:
        complaints.append(f"nftables has {names}, and there is no nft to show {'them' if hidden is None else 'it'}")
        return ()
    try:
        return nft.parse(_run([program, "--json", "list", "ruleset"]), shown)
    except (HostError, ValueError, KeyError, TypeError, AttributeError) as error:
        complaints.append(f"nft --json list ruleset: {error}")
        return ()


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False, errors="replace")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"{command[0]}: {error}") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
        raise HostError(f"{command[0]}: {said[0]}")
    return done.stdout
