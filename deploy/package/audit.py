"""Asks whether the pinned packages have known vulnerabilities: `make audit`.

One rule: pip-audit ends well, too, where it could look nothing up (a mirror without the data, no network). Here that is
said in so many words, and never passes for a look.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, NamedTuple

UNREACHED = "NOT AUDITED: the data could not be had"


class Verdict(NamedTuple):
    code: int
    lines: list[str]


def verdict(report: str, complaint: str) -> Verdict:
    """What pip-audit's JSON amounts to: 1 where something is known, 0 where nothing is, or could be looked up.

    >>> verdict('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', "")
    Verdict(code=0, lines=['1 of 1 packages looked up: nothing is known against them'])
    """
    try:
        found: list[dict[str, Any]] = json.loads(report)["dependencies"]
    except (ValueError, LookupError, TypeError):
        said = complaint.strip().splitlines() or ["pip-audit says nothing"]
        return Verdict(0, [f"{UNREACHED}: {said[-1]}"])
    looked_up = [each for each in found if "skip_reason" not in each]
    if not looked_up:
        return Verdict(0, [f"{UNREACHED}: of {len(found)} packages none could be looked up"])
    lines = [f"not looked up: {each['name']}: {each['skip_reason']}" for each in found if each not in looked_up]
    bad = [each for each in looked_up if each["vulns"]]
    for each in bad:
        for vulnerability in each["vulns"]:
            fixed = ", ".join(vulnerability.get("fix_versions", ())) or "no version yet"
            lines.append(f"{each['name']} {each['version']}: {vulnerability['id']}, mended in {fixed}")
    told = f"{len(bad)} have known vulnerabilities" if bad else "nothing is known against them"
    return Verdict(1 if bad else 0, [*lines, f"{len(looked_up)} of {len(found)} packages looked up: {told}"])


def main() -> None:
    """Audit the requirements file that is named."""
    words = [
        "--requirement",
        sys.argv[1],
        "--no-deps",
        "--disable-pip",
        "--format",
        "json",
        "--progress-spinner",
        "off",
    ]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip_audit", *words], capture_output=True, text=True, check=False, timeout=300
        )
        found = verdict(done.stdout, done.stderr)
    except subprocess.TimeoutExpired:
        found = Verdict(0, [f"{UNREACHED} within five minutes"])
    sys.stdout.write("\n".join(found.lines) + "\n")
    sys.exit(found.code)


if __name__ == "__main__":
    main()
