"""One checkup: every look at the same facts, and what they found, the worst first.

One rule: silence means looked at and well; a look that could not be made is a note.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from director.doctor import addresses, filters, kernel, listening, sysctls, tunnels, ways
from director.doctor.facts import Facts, UnseenError, skipped
from director.doctor.finding import Code, Finding, Severity
from director.doctor.gather import PATIENCE_S, Role, gather
from director.doctor.situation import Situation, Virtual

Judgement = Callable[[Facts], Iterable[Finding]]

DIRECTOR: tuple[tuple[str, Judgement], ...] = (
    ("modules", kernel.modules),
    ("schedulers", kernel.schedulers),
    ("table", kernel.table),
    ("rivals", kernel.rivals),
    ("settings", sysctls.forwarding),
    ("expiry", sysctls.expiry),
    ("ways to real servers", ways.to_real_servers),
    ("tunnel widths", tunnels.widths),
    ("invalid packets", filters.invalid),
    ("answers", filters.answers),
    ("outgoing packets", filters.outgoing),
)
REALSERVER: tuple[tuple[str, Judgement], ...] = (
    ("silence about VIPs", sysctls.silence),
    ("listeners", listening.listeners),
    ("default route", ways.from_nat_servers),
    ("tunnel devices", tunnels.devices),
    ("tunnel segments", tunnels.segments),
    ("open tunnels", tunnels.openness),
)
BOTH: tuple[tuple[str, Judgement], ...] = (
    ("VIPs", addresses.held),
    ("who answers for VIPs", addresses.answered),
    ("clients nearby", ways.clients_nearby),
    ("incoming packets", filters.incoming),
    ("connection tracking", sysctls.tracking),
)


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, and what was looked at as what; `unmade` are those of `looks` that wanted for a fact."""

    findings: tuple[Finding, ...]
    looks: tuple[str, ...]
    unmade: tuple[str, ...]
    directs: tuple[Virtual, ...]
    serves: tuple[Virtual, ...]

    def count(self, severity: Severity) -> int:
        return sum(finding.severity is severity for finding in self.findings)

    def summary(self) -> str:
        """How much was looked at, so that silence is not mistaken for health."""
        roles = [
            f"as a {role} of {_plural(len({each.name for each in virtuals}), 'virtual server')}"
            for role, virtuals in (("director", self.directs), ("real server", self.serves))
            if virtuals
        ]
        if not roles:
            return "Nothing to look at: no virtual server concerns this host."
        unmade = f", {len(self.unmade)} of them not made" if self.unmade else ""
        return (
            f"{_plural(len(self.looks), 'look')} {' and '.join(roles)}{unmade}: "
            f"{_plural(self.count(Severity.ERROR), 'error')}, {_plural(self.count(Severity.WARNING), 'warning')}, "
            f"{_plural(self.count(Severity.NOTE), 'note')}."
        )


def checkup(situation: Situation, role: Role = Role.AUTO, patience_s: float = PATIENCE_S) -> Report:
    """Look at this host. Takes a second or two.

    Raises: HostError when not even its addresses can be listed.
    """
    return judge(gather(situation, role, patience_s))


def judge(facts: Facts) -> Report:
    """What the facts say, the worst first."""
    looks = {
        **dict(DIRECTOR if facts.directs else ()),
        **dict(REALSERVER if facts.serves else ()),
        **dict(BOTH if facts.directs or facts.serves else ()),
    }
    found = {name: list(_made(look, facts)) for name, look in looks.items()}
    unmade = [name for name, those in found.items() if any(each.code is Code.SKIPPED for each in those)]
    every = [finding for those in found.values() for finding in those]
    every += [skipped(unseen) for unseen in facts.unseen if looks]
    findings = sorted(dict.fromkeys(every), key=Finding.sort_key)
    return Report(tuple(findings), tuple(looks), tuple(unmade), facts.directs, facts.serves)


def _made(look: Judgement, facts: Facts) -> Iterator[Finding]:
    try:
        yield from look(facts)
    except UnseenError as error:
        yield skipped(error.unseen)


def _plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
