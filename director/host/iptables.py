"""Runs the programs of iptables: which there are, their saves and restores, and what their failures mean.

One rule: no shell, a bound on every run, and every failure is told apart: not root, busy, or not possible here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from director.kit.errors import HostError
from director.kit.rights import with_capability

LOCK_WAIT_S = 5
LIMIT_S = 30.0
SAID_LINES = 3
# A daemon's or cron's PATH may lack them.
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
_OTHER = {"nft": "legacy", "legacy": "nft"}
STEMS = {4: "iptables", 6: "ip6tables"}


class UnusableError(HostError):
    """These programs cannot do it with this kernel; the other kind perhaps can."""


@dataclass(frozen=True, slots=True)
class Backend:
    """The save and restore of one kind (`nft` or `legacy`) for one IP version; `stem` is their names' beginning."""

    kind: str
    version: int
    stem: str

    def may_hold(self, table: str) -> bool:
        """Whether rules could stand in `table`; a look by which the kernel loads nothing.

        iptables-save would: of legacy tables any that it is asked for, which hooks connection tracking into this
        network namespace for good.
        """
        if self.kind == "nft":
            return _has_nf_tables()
        names = Path(f"/proc/thread-self/net/{'ip' if self.version == 4 else 'ip6'}_tables_names")
        try:
            return table in names.read_text().split()
        except FileNotFoundError:  # the module is not loaded
            return False
        except PermissionError:  # root's alone (net/netfilter/x_tables.c); its module is the whole host's
            return _has_module(f"{'ip' if self.version == 4 else 'ip6'}table_{table}", unless_hidden=False)
        except OSError as error:
            raise HostError(f"could not read {names}: {error.strerror}") from error

    def save(self, table: str) -> str:
        """All of one table, as iptables-save(8) prints it. Raises: HostError."""
        return self._run(f"{self.stem}-save", "-t", table)

    def save_all(self) -> str:
        """Every table that there is, as iptables-save(8) prints it; the kernel loads none by it. Raises: HostError."""
        return self._run(f"{self.stem}-save")

    def restore(self, text: str) -> None:
        """Make all of `text`'s changes to a table or none, and leave what it does not name. Raises: HostError."""
        self._run(f"{self.stem}-restore", "--noflush", "--wait", str(LOCK_WAIT_S), stdin=text)

    def rename(self, table: str, chain: str, name: str) -> None:
        """Call `chain` `name`; jumps to it stay where they are, and follow. Raises: HostError."""
        self._run(self.stem, "--wait", str(LOCK_WAIT_S), "-t", table, "-E", chain, name)

    def _run(self, *argv: str, stdin: str = "") -> str:
        code, output, errors = _run(argv, stdin)
        if code:
            raise failure(argv[0], errors)
        return output


def backends(version: int) -> tuple[Backend, ...]:
    """Those of this host, the system's choice (update-alternatives) first; none when iptables is not installed.

    Raises: HostError when the programs cannot be run.
    """
    return tuple(_backends(version))


def missing(version: int) -> HostError:
    """The error for a host without iptables."""
    return HostError(
        f"there is no {STEMS[version]}-restore, and full NAT, marks and probes through a VIP need it: "
        "apt-get install iptables"
    )


def _backends(version: int) -> Iterator[Backend]:
    stem = STEMS[version]
    default = None
    if _which(f"{stem}-restore"):
        _, said, _ = _run((f"{stem}-restore", "--version"), "")
        default = "nft" if "nf_tables" in said else "legacy"  # before 1.8 there was no other kind to name
        yield Backend(default, version, stem)
    for kind in [_OTHER[default]] if default else ["nft", "legacy"]:
        if _which(f"{stem}-{kind}-restore"):
            yield Backend(kind, version, f"{stem}-{kind}")


def _which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}")


def _run(argv: tuple[str, ...], stdin: str) -> tuple[int, str, str]:
    program = _which(argv[0])
    if program is None:
        raise HostError(f"there is no {argv[0]}: apt-get install iptables")
    try:
        done = subprocess.run(
            [program, *argv[1:]],
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",  # another's comment may hold any bytes
            timeout=LIMIT_S,
            check=False,
            env={"PATH": _SYSTEM_PATH, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired as error:
        raise HostError(
            f"{argv[0]} did not end in {LIMIT_S:g} s: look for what keeps it, such as another of it"
        ) from error
    except OSError as error:
        raise HostError(f"could not run {program}: {error.strerror}") from error
    return done.returncode, done.stdout, done.stderr


_NOT_ROOT = re.compile(r"you must be root|Permission denied|Operation not permitted")
_NO_LOCK = re.compile(r"[Cc]an't open lock file (\S+): (Permission denied|Read-only file system)")
_BUSY = re.compile(r"holding the xtables lock|Can't lock")
_NO_EXTENSION = re.compile(r"Extension (\S+) revision \d+ not supported|Couldn't load (?:match|target) `([^']+)'")
# What the programs say where the kernel lacks tables of their kind, or where nft(8) made one they do not understand.
_NO_TABLES = re.compile(
    r"Could not fetch rule set generation id|Failed to initialize nft|Operation not supported|Protocol not supported"
    r"|is incompatible, use 'nft' tool|[Tt]able does not exist|[Uu]nable to initialize table|Cannot initialize"
)


def failure(program: str, errors: str) -> HostError:
    """The error for what `program` wrote when it failed: an `UnusableError` where the other kind may do."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    said = " / ".join(lines[:SAID_LINES]) or "it gave no reason"
    if found := _NO_LOCK.search(errors):
        return HostError(
            f"{program}: {found[0]}: run as root, or have it made readable for this user's group, "
            "as deploy/systemd/director.tmpfiles does (systemd-tmpfiles --create)"
        )
    if _NOT_ROOT.search(errors):
        return HostError(f"{program}: {said}: {with_capability('CAP_NET_ADMIN and CAP_NET_RAW')}")
    if _BUSY.search(errors):
        return HostError(
            f"{program} waited {LOCK_WAIT_S} s for /run/xtables.lock: another program is changing rules "
            "(fuser /run/xtables.lock shows which); it is tried again"
        )
    if found := _NO_EXTENSION.search(errors):
        name = found[1] or found[2]
        return UnusableError(
            f"{program}: this kernel, or iptables, has no xt_{name}: modprobe xt_{name}, "
            "or install the kernel's package of extra modules"
        )
    if _NO_TABLES.search(errors):
        return UnusableError(f"{program} cannot be used with this kernel and its tables ({said})")
    return HostError(f"{program}: {said}")


def _has_nf_tables() -> bool:
    return _has_module("nf_tables", unless_hidden=True)


def _has_module(name: str, *, unless_hidden: bool) -> bool:
    """Whether it is loaded or built in; `unless_hidden` where its files are (ProtectKernelModules= of a unit)."""
    if Path("/sys/module", name).exists() or not Path("/proc/modules").exists():
        return True
    builtin = Path("/lib/modules") / os.uname().release / "modules.builtin"
    try:
        return f"/{name}.ko" in builtin.read_text()
    except PermissionError:
        return unless_hidden
    except OSError:
        return False
