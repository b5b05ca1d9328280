"""What an apply finds before it begins: all that it may touch, and whose that is.

One rule: putting this back leaves the kernel and the memory as if the apply had never been.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType

from director.core.model import Config
from director.core.namespace import NOTHING, OwnedNamespace
from director.core.standing import Standing
from director.core.table import Table, VirtualEntry, VirtualKey
from director.core.vip import Vip


@dataclass(frozen=True, slots=True)
class Before:
    """The virtual servers `keys` and the addresses `places`, as they were.

    What is in `keys` and not in `table` was not there, nor was what is in `places` and not in `vips`. A table's
    `timeouts` or `sync` None are not touched. `own_keys` and `own_vips` were the director's; so was `around` (None: it
    is not touched).
    """

    keys: frozenset[VirtualKey]
    table: Table
    places: frozenset[Vip]
    vips: frozenset[Vip]
    own_keys: frozenset[VirtualKey]
    own_vips: frozenset[Vip]
    around: Standing | None = None
    own_namespace: OwnedNamespace = NOTHING

    def under(self, earlier: Before) -> Before:
        """This, but as `earlier` found it where both may touch: that one was cut short, and did not end whole."""
        table = Table(
            MappingProxyType({**_without(self.table, earlier.keys), **earlier.table.entries}),
            earlier.table.timeouts or self.table.timeouts,
            self.table.sync if earlier.table.sync is None else earlier.table.sync,
        )
        return Before(
            self.keys | earlier.keys,
            table,
            self.places | earlier.places,
            (self.vips - earlier.places) | earlier.vips,
            (self.own_keys - earlier.keys) | earlier.own_keys,
            (self.own_vips - earlier.places) | earlier.own_vips,
            earlier.around or self.around,
            earlier.own_namespace,
        )

    def besides(self, config: Config) -> Before:
        """Only what is not for `config` to say: what others had made, and what `config` leaves alone."""
        settled, vips = config.keys() | self.own_keys, frozenset(config.vips()) | self.own_vips
        return Before(
            self.keys - settled,
            Table(
                MappingProxyType(_without(self.table, settled)),
                self.table.timeouts if config.timeouts is None else None,
                self.table.sync if config.sync is None else None,
            ),
            self.places - vips,
            self.vips - vips,
            frozenset(),
            frozenset(),
            own_namespace=self.own_namespace,
        )

    def over(self, table: Table) -> Table:
        """`table` with what was there before in the place of what is."""
        return replace(table, entries=MappingProxyType({**_without(table, self.keys), **self.table.entries}))


def _without(table: Table, keys: frozenset[VirtualKey]) -> dict[VirtualKey, VirtualEntry]:
    return {key: entry for key, entry in table.entries.items() if key not in keys}
