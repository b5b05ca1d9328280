"""Keeps our chains in the host's packet filter as they should be, and takes them away whole.

One rule: it acts on what iptables-save shows, and each table is changed by one atomic restore, so that no packet
meets half of a change and nobody else's rule is touched.

The system's choice of iptables (nft or legacy) is used where it works with this kernel, the other kind where not;
what of ours the unused kind holds is removed. Nothing is looked at that cannot hold anything of ours.

These calls block, for the time of some processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from director.core.rules import Chain, Found, Rules, chains, differences, kept_name, parse, restoring, with_more
from director.core.standing import KeptRules
from director.host import iptables
from director.host.change import Attempt, Change
from director.host.iptables import Backend, UnusableError
from director.kit.errors import HostError

NOTHING = Rules()
ATTEMPTS = 2


class Firewall:
    """Our chains in this network namespace.

    It remembers, until its process ends, which kinds of iptables do not work and which tables it has seen without
    anything of ours: only we make our chains, so those need no second look.
    """

    def __init__(self) -> None:
        self._backends: dict[int, tuple[Backend, ...]] = {}
        self._unusable: set[Backend] = set()
        self._clean: set[tuple[Backend, str]] = set()

    def differences(self, rules: Rules, *, keep_more: bool = False) -> tuple[str, ...]:
        """What of our chains is not as `rules` need it, in sentences; nothing is changed.

        `keep_more`: rules beyond those may stay. Raises: HostError when the tables cannot be looked at.
        """
        return tuple(
            sentence
            for version, chain in self._wanted(rules, keep_more)
            for sentence in self._differences(chain, version)
        )

    def enforce(self, rules: Rules, *, keep_more: bool = False) -> Attempt:
        """Make our chains what `rules` need; without any, they go. One chain's failure leaves the others.

        `keep_more`: rules beyond those stay for now.
        """
        return self.make(self._wanted(rules, keep_more))

    def remove(self) -> Attempt:
        """Take away all that is ours, of both kinds."""
        return self.enforce(NOTHING)

    def holds(self) -> tuple[KeptRules, ...]:
        """What our chains hold now; none for those that are not there."""
        held = (
            KeptRules(version, chain.table, rules)
            for version in (4, 6)
            for chain in chains(NOTHING, version)
            if (rules := self._held(chain, version))
        )
        return tuple(held)

    def put_back(self, kept: Iterable[KeptRules]) -> Attempt:
        """Make our chains hold what `holds` said, and those that it did not name, go."""
        lines = {(each.version, each.table): each.lines for each in kept}
        return self.make(
            [
                (version, replace(chain, rules=lines.get((version, chain.table), ())))
                for version in (4, 6)
                for chain in chains(NOTHING, version)
            ]
        )

    def leave(self) -> tuple[tuple[str, int], ...]:
        """Give our chains names that are nobody's, so that their rules stay whatever comes next.

        The new names, and how many rules each chain has. Raises: HostError.
        """
        left = []
        for version in (4, 6):
            for chain in chains(NOTHING, version):
                for backend in self._all(version):
                    if not self._may_hold(backend, chain):
                        continue
                    try:
                        saved = backend.save(chain.table)
                    except UnusableError:  # then it holds nothing either
                        continue
                    rules = parse(saved, chain).rules
                    if rules is not None:
                        name = kept_name(chain, saved)
                        backend.rename(chain.table, chain.name, name)
                        left.append((f"{name} ({backend.stem} -t {chain.table})", len(rules)))
        return tuple(left)

    def make(self, wanted: Iterable[tuple[int, Chain]]) -> Attempt:
        """Make these chains, each for IP version 4 or 6, what they say; one without rules goes. No other is seen."""
        done = Attempt()
        for version, chain in wanted:
            changes: list[Change] = []
            failures = []
            try:
                self._enforce(chain, version, changes)
            except HostError as error:
                failures.append(str(error))
            done += Attempt(tuple(changes), tuple(failures))
        return replace(done, failures=tuple(dict.fromkeys(done.failures)))

    def _wanted(self, rules: Rules, keep_more: bool) -> list[tuple[int, Chain]]:
        wanted = [(version, chain) for version in (4, 6) for chain in chains(rules, version)]
        if not keep_more:
            return wanted
        return [(version, with_more(chain, self._held(chain, version))) for version, chain in wanted]

    def _held(self, chain: Chain, version: int) -> tuple[str, ...]:
        looked = (self._look(each, chain) for each in self._all(version) if self._may_hold(each, chain))
        return next((found.rules for found in looked if found.rules), ())

    def _differences(self, chain: Chain, version: int) -> Iterator[str]:
        first = self._first(version) if chain.rules else None
        found = {each: self._look(each, chain) for each in self._all(version) if self._may_hold(each, chain)}
        # That the first choice does not work shows only when it is tried: where another holds it, that was it.
        home = next((each for each in found if found[each] != Found()), first)
        for backend in self._all(version):
            wanted = chain if backend == home else replace(chain, rules=())
            for said in differences(wanted, found.get(backend, Found())):
                yield f"{_named(chain, backend)}: {said}"

    def _first(self, version: int) -> Backend:
        if not self._all(version):
            del self._backends[version]  # it may be installed while we run
            raise iptables.missing(version)
        return next(each for each in self._all(version) if each not in self._unusable)

    def _enforce(self, chain: Chain, version: int, changes: list[Change]) -> None:
        home = self._settle(chain, version, changes) if chain.rules else None
        for backend in self._all(version):
            if backend != home:
                self._clear(backend, replace(chain, rules=()), changes)

    def _settle(self, chain: Chain, version: int, changes: list[Change]) -> Backend:
        """Make the chain by the first backend that can. Raises: HostError when none can."""
        self._first(version)
        refused: dict[Backend, UnusableError] = {}
        for backend in self._all(version):
            if backend in self._unusable:
                continue
            try:
                self._bring(backend, chain, changes)
            except UnusableError as error:
                refused[backend] = error
            else:
                self._unusable |= set(refused)
                return backend
        self._unusable.clear()  # a module may be installed while we run
        raise HostError("; ".join(map(str, refused.values())))

    def _bring(self, backend: Backend, chain: Chain, changes: list[Change]) -> None:
        """Raises: HostError, also when what was written does not stay."""
        self._clean.discard((backend, chain.table))
        found = parse(backend.save(chain.table), chain)
        before = said = differences(chain, found)
        for _ in range(ATTEMPTS if said else 0):
            try:
                backend.restore(restoring(chain, found))
            except HostError:
                looked, found = found, parse(backend.save(chain.table), chain)
                if looked == found:  # otherwise a rule that was to be deleted went in between
                    raise
            else:
                found = parse(backend.save(chain.table), chain)
            said = differences(chain, found)
            if not said:
                break
        if said:
            raise HostError(
                f"{_named(chain, backend)} was written and is not so: {'; '.join(said)}: "
                "another program changes it, or this version of iptables writes its rules in another way"
            )
        if before:
            changes.append(Change("firewall", _named(chain, backend), "; ".join(before), _counted(chain)))

    def _clear(self, backend: Backend, chain: Chain, changes: list[Change]) -> None:
        if self._may_hold(backend, chain):
            if text := restoring(chain, self._look(backend, chain)):
                backend.restore(text)
                changes.append(Change("firewall", _named(chain, backend), "present", None))
            self._clean.add((backend, chain.table))

    def _look(self, backend: Backend, chain: Chain) -> Found:
        try:
            return parse(backend.save(chain.table), chain)
        except UnusableError:  # then it holds nothing either
            return Found()

    def _may_hold(self, backend: Backend, chain: Chain) -> bool:
        return (backend, chain.table) not in self._clean and backend.may_hold(chain.table)

    def _all(self, version: int) -> tuple[Backend, ...]:
        if version not in self._backends:
            self._backends[version] = iptables.backends(version)
        return self._backends[version]


def _named(chain: Chain, backend: Backend) -> str:
    return f"chain {chain.name} ({backend.stem} -t {chain.table})"


def _counted(chain: Chain) -> str:
    return f"{len(chain.rules)} rule{'s' if len(chain.rules) > 1 else ''}"
