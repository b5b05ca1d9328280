"""Has iptables and nft say what rules there are.

One rule: it starts only what can have something to say, so that nothing is loaded into the kernel by looking.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from director.doctor.packets import iptables, nft
from director.doctor.packets.rules import Table
from director.kit.errors import HostError

LIMIT_S = 5.0
_PATH = "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin:/usr/local/bin"
_WORDS = {4: ("iptables", "ip_tables_names", "ip"), 6: ("ip6tables", "ip6_tables_names", "ip6")}


def read(versions: Iterable[int], *, has_nft: bool) -> tuple[tuple[Table, ...], tuple[str, ...]]:
    """Every rule for these IP versions, and a sentence for each part that is there and could not be read.

    `has_nft` says whether the kernel has nftables, which iptables-nft is a face of.
    Raises: HostError when none of it can be read.
    """
    tables: list[Table] = []
    complaints: list[str] = []
    shown: set[tuple[str, str]] = set()
    for version in sorted(set(versions)):
        command, names, family = _WORDS[version]
        if _has_legacy(names):
            save = _which(f"{command}-legacy-save", f"{command}-save")
            text = _run([save]) if save else None
            if text is None:
                complaints.append(f"there are legacy rules, and no {command}-legacy-save to show them")
            else:
                tables += iptables.parse(text, f"{command}-legacy", version)
        if has_nft and (save := _which(f"{command}-nft-save")):
            text = _run([save])
            without = iptables.tables_that_need_nft(text)
            found = [table for table in iptables.parse(text, command, version) if table.name not in without]
            tables += found
            shown |= {(family, table.name) for table in found}
    if has_nft:
        program = _which("nft")
        if program is None:
            complaints.append("nftables may have rules, and there is no nft to show them")
        else:
            tables += _nft(program, frozenset(shown), complaints)
    return tuple(tables), tuple(complaints)


def _nft(program: str, shown: frozenset[tuple[str, str]], complaints: list[str]) -> tuple[Table, ...]:
    try:
        text = _run([program, "--json", "list", "ruleset"])
        return nft.parse(text, shown) if text.strip() else ()
    except (HostError, ValueError, KeyError, TypeError, AttributeError) as error:
        complaints.append(f"nft --json list ruleset: {error}")
        return ()


def _has_legacy(names: str) -> bool:
    try:
        return bool(Path(f"/proc/net/{names}").read_text().strip())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise HostError(f"/proc/net/{names}: {error.strerror}") from error


def _which(*names: str) -> str | None:
    return next((found for name in names if (found := shutil.which(name) or shutil.which(name, path=_PATH))), None)


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False, errors="replace")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"{command[0]}: {error}") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
        raise HostError(f"{command[0]}: {said[0]}")
    return done.stdout
