"""What the kernel's table holds and the model has no place for: it is told, and left alone.

One rule: nothing is tried that such an entry stands in the way of; the operator hears of it once, with what to do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from director.core.model import Config
from director.core.table import Foreign, Protocol, Table, VirtualKey
from director.kit.net import Endpoint

_LETTERS = {Protocol.TCP: "-t", Protocol.UDP: "-u", Protocol.SCTP: "--sctp-service"}


def set_aside(current: Table, desired: Table, foreign: Iterable[Foreign]) -> tuple[Table, tuple[Foreign, ...]]:
    """`desired` without what `foreign` has the place of beside `current`, and those that stand in the way."""
    entries = dict(desired.entries)
    in_the_way: list[Foreign] = []
    for each in foreign:
        entry = entries.get(each.key) if each.key else None
        if each.key is None or entry is None:
            continue
        if each.real is None:
            if each.key in current.entries:  # a real server that has no address
                continue
            del entries[each.key]
        elif each.real in entry.reals:
            reals = {real: row for real, row in entry.reals.items() if real != each.real}
            entries[each.key] = replace(entry, reals=MappingProxyType(reals))
        else:
            continue
        in_the_way.append(each)
    return (replace(desired, entries=MappingProxyType(entries)) if in_the_way else desired), tuple(in_the_way)


def obstacles(in_the_way: Collection[Foreign], config: Config) -> list[str]:
    """What cannot be made because of each, and what to do, in one sentence."""
    if not in_the_way:
        return []
    paths = {each.key: str(each) for each in config.steerings}
    names = {key: virtual.name for virtual in config.virtual_servers for key in virtual.keys}
    refs: Mapping[tuple[VirtualKey | None, Endpoint | None], str] = {
        (key, endpoint): str(virtual.ref(real)) for virtual, (key, real, endpoint) in config.placed()
    }
    return [
        (
            f"{paths[each.key]} ({each.key})"
            if each.key in paths
            else f"virtual server {names[each.key]} ({each.key})"
            if each.real is None
            else f"real server {refs[each.key, each.real]} ({each.real})"
        )
        + f" cannot be made: the kernel holds it in a form that director does not know: {each.reason}; "
        + f"remove it with `{_removal(each.key, each.real)}`"
        for each in in_the_way
        if each.key is not None
    ]


def notes(foreign: Iterable[Foreign], in_the_way: Iterable[Foreign], exclusive: bool) -> list[str]:
    """What else the kernel holds, in one sentence each; that which is `in_the_way` is no note."""
    others = [each for each in foreign if each not in set(in_the_way)]
    return [f"the kernel also holds {each.what}, {_fate(each, exclusive)}: {each.reason}" for each in others]


def _fate(foreign: Foreign, exclusive: bool) -> str:
    if not exclusive or foreign.key is None:
        return "which director leaves alone"
    how = _removal(foreign.key, foreign.real)
    return f"which director cannot put back and so does not remove, exclusive or not (`{how}` does)"


def _removal(key: VirtualKey, real: Endpoint | None) -> str:
    where = f"{_LETTERS[key.protocol]} {key.endpoint}" if key.protocol else f"-f {key.mark}"
    family = " -6" if key.mark is not None and key.family == 6 else ""
    return f"ipvsadm -D {where}{family}" if real is None else f"ipvsadm -d {where}{family} -r {real}"
