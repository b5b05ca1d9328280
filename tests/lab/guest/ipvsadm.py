"""ipvsadm, for trials that compare with it."""

from __future__ import annotations

import subprocess


def ipvsadm(*arguments: str, text: str | None = None) -> str:
    """What it prints. Raises: subprocess.CalledProcessError."""
    return subprocess.run(("ipvsadm", *arguments), check=True, capture_output=True, text=True, input=text).stdout


def empty() -> None:
    """No virtual servers, the timeouts that a kernel starts with, no sync daemons."""
    ipvsadm("-C")
    ipvsadm("--set", "900", "120", "300")
    for role in ("master", "backup"):
        subprocess.run(("ipvsadm", "--stop-daemon", role), check=False, capture_output=True)
