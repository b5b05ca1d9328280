"""What is known of the names that real servers are given by, and the last addresses, kept for the next director.

One rule: no lookup that fails makes anything forgotten; a file that is missing or damaged means that nothing was known.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from director.core.model import Config
from director.core.naming import NO_ADDRESS, Lookup, Named
from director.kit import statefile
from director.kit.errors import HostError
from director.kit.net import Answer, IPAddress, is_host_name, parse_unicast
from director.kit.resolver import Resolver

log = logging.getLogger(__name__)

VERSION = 1
PATIENCE_S = 15.0  # resolv.conf(5): 5 s for each name server that does not answer, twice
PATIENCE_KNOWN_S = 3.0  # with somebody waiting, for a name that has a last address
NOT_YET = "it was not looked up yet"

Addresses = Mapping[str, tuple[IPAddress, ...]]
"""By name, in the order of their use."""


class Names:
    """Names and their addresses; `names.json` in `directory` has those that were in use. For any thread."""

    def __init__(self, directory: Path, resolver: Resolver | None = None) -> None:
        self._path = directory / "names.json"
        self._resolver = resolver or Resolver()
        self._lock = threading.Lock()
        self._saved: Addresses = {}
        self._is_saved = True
        self._told = ""
        self._known: Mapping[str, Named] | None = None  # None: not read yet
        self.unreadable = ""  # why nothing of what was remembered is known

    @property
    def known(self) -> Mapping[str, Named]:
        """What is known of each name, as of now; what was remembered is read when it is first asked for."""
        with self._lock:
            if self._known is None:
                self._known = self._read()
            return self._known

    def look_up(self, hosts: Collection[str]) -> Mapping[str, Named | str]:
        """Ask for all of `hosts` now, and wait for a while (`naming.Lookup`). Blocks."""
        known = self.known
        patience = {host: PATIENCE_KNOWN_S if host in known else PATIENCE_S for host in hosts}
        return self._learn(self._resolver.look_up(patience), {})

    def presumed(self, hosts: Collection[str]) -> Mapping[str, Named | str]:
        """The same, but only names of which nothing is known are asked for."""
        known = self.known
        found: dict[str, Named | str] = {host: known[host] for host in hosts if host in known}
        unknown = set(hosts) - found.keys()
        return {**found, **self.look_up(unknown)} if unknown else found

    def last(self) -> Lookup:
        """What is known by now of every name, for later: no other is asked for."""
        known = self.known
        return lambda hosts: {host: known.get(host, NOT_YET) for host in hosts}

    def renew(self, config: Config) -> None:
        """Look all names of `config` up once more, without haste, and forget all others. Blocks."""
        hosts = config.hosts()
        self._learn(self._resolver.look_up(dict.fromkeys(hosts, PATIENCE_S)), hosts)
        known = self.known
        with self._lock:
            self._known = {host: named for host, named in known.items() if host in hosts}

    def remember(self, *configs: Config, keep: bool = False) -> None:
        """Have the addresses that `configs` use on disk, and no others (unless `keep`), where it is news. Blocks.

        That it cannot be done is told once, and tried again.
        """
        in_use: dict[str, tuple[IPAddress, ...]] = {}
        for config in configs:
            for host, used in config.hosts().items():
                in_use[host] = tuple(dict.fromkeys((*in_use.get(host, ()), *_in_order(used))))
        _ = self.known  # what is on disk, before it is another
        if keep:
            in_use = {**self._saved, **in_use}
        if in_use == self._saved and self._is_saved:
            return
        self._saved, self._is_saved = in_use, False
        texts: dict[str, statefile.Json] = {host: [str(each) for each in found] for host, found in in_use.items()}
        try:
            statefile.save(self._path, VERSION, {"names": texts})
            self._is_saved, self._told = True, ""
        except HostError as error:
            if str(error) != self._told:
                log.warning("a restart will not know the addresses of names", extra={"reason": str(error)})
            self._told = str(error)

    def close(self) -> None:
        """Nobody waits for an answer any more."""
        self._resolver.close()

    def _learn(
        self, answers: Mapping[str, Answer], used: Mapping[str, Collection[IPAddress]]
    ) -> Mapping[str, Named | str]:
        """What is known after `answers`; `used` are addresses in use, which a name has at least."""
        _ = self.known
        with self._lock:
            known = dict(self._known or {})
            for host, answer in answers.items():
                in_use = _in_order(used.get(host, ()))
                named = (known.get(host) or Named(host, tuple(in_use))).after(answer, in_use)
                if named.addresses or named.kept:
                    known[host] = named
            self._known = known
        return {host: known.get(host) or (str(answer) if answer else NO_ADDRESS) for host, answer in answers.items()}

    def _read(self) -> Mapping[str, Named]:
        try:
            content = statefile.load(self._path, VERSION)
            self._saved = {} if content is None else _from_json(content)
        except (HostError, KeyError, TypeError, ValueError) as error:
            self.unreadable = f"{self._path}: {error}"
            self._is_saved = False
        return {host: Named(host, found, why=NOT_YET) for host, found in self._saved.items()}


def _in_order(addresses: Iterable[IPAddress]) -> list[IPAddress]:
    return sorted(addresses, key=lambda each: (each.version, int(each)))


def _from_json(content: Mapping[str, statefile.Json]) -> Addresses:
    names = content["names"]
    if not isinstance(names, dict):
        raise TypeError("names is no object")
    found: dict[str, tuple[IPAddress, ...]] = {}
    for host, addresses in names.items():
        if not is_host_name(host) or not isinstance(addresses, list) or not addresses:
            raise ValueError(f"{host!r} is no name with addresses")
        found[host] = tuple(parse_unicast(each) if isinstance(each, str) else _refuse(each) for each in addresses)
    return found


def _refuse(value: object) -> IPAddress:
    raise TypeError(f"{value!r} is no address")
