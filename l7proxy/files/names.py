"""Backends by name: what their names are, asked of the host's resolver (files, DNS, whatever nsswitch.conf(5) says).

One rule: a name that cannot be looked up takes nothing away. At start its backend is down, and everything else serves;
later it keeps the address that it had.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address

from director.kit.net import Answer
from director.kit.resolver import Resolver, found_for

WITHIN_S = 3.0
"""How long a start or a reload waits for names."""
_START = "name:"
"""How a name begins among what was read beside the text; paths of files begin with a slash."""


def ask_host(host: str) -> Answer:
    """The addresses of `host` that a backend can have, IPv4 first, or why there are none. Blocks."""
    texts = found_for(host)
    if isinstance(texts, str):
        return texts
    usable = [each for each in map(ip_address, texts) if not each.is_unspecified and not each.is_multicast]
    return tuple(sorted(usable, key=lambda each: each.version)) or "it has no address that a backend can have"


def look_up(hosts: Iterable[str], held: Mapping[str, str] | None = None) -> dict[str, Answer]:
    """The addresses of each of `hosts`, or why there are none. `held` is what those who asked before were told. Blocks,
    for at most WITHIN_S."""
    wanted = set(hosts)
    found = {host: _told(held[_START + host]) for host in wanted if held is not None and _START + host in held}
    asked = wanted - found.keys()
    if asked:
        resolver = Resolver(ask_host)
        found.update(resolver.look_up(dict.fromkeys(asked, WITHIN_S)))
        resolver.close()
    return found


def kept(answers: Mapping[str, Answer]) -> dict[str, str]:
    """The same for others, beside the files that a text names.

    >>> kept({"a.internal": "no such name"})
    {'name:a.internal': '!no such name'}
    """
    return {
        _START + host: f"!{answer}" if isinstance(answer, str) else ",".join(map(str, answer))
        for host, answer in answers.items()
    }


def remembered(answers: Mapping[str, Answer], files: Mapping[str, str]) -> dict[str, Answer]:
    """`answers`, beside what was known of the same names before: one that cannot be looked up is what it was, and an
    address that is used stays the first one.

    >>> remembered({"a": "no answer in time", "b": "no such name"}, {"name:a": "10.0.0.7"})
    {'a': (IPv4Address('10.0.0.7'),), 'b': 'no such name'}
    """
    found = dict(answers)
    for host, answer in answers.items():
        before = files.get(_START + host, "!")
        if before.startswith("!"):
            continue
        former = tuple(map(ip_address, before.split(",")))
        used = former[0]
        if isinstance(answer, str):
            found[host] = former
        elif used in answer:
            found[host] = tuple(sorted(answer, key=lambda each: each != used))
    return found


def news(files: Mapping[str, str]) -> dict[str, str]:
    """What has changed of the names among `files`: those that have other addresses now. Blocks."""
    hosts = [name.removeprefix(_START) for name in files if name.startswith(_START)]
    found = kept({host: answer for host, answer in look_up(hosts).items() if not isinstance(answer, str)})
    return {name: said for name, said in found.items() if files[name] != said and not _still(files[name], said)}


def are_among(files: Mapping[str, str]) -> bool:
    """Whether there are names at all."""
    return any(name.startswith(_START) for name in files)


def _still(before: str, after: str) -> bool:
    """Whether the address that is used is one of those that came: resolvers like to shuffle them."""
    return not before.startswith("!") and before.split(",", maxsplit=1)[0] in after.split(",")


def _told(said: str) -> Answer:
    return said[1:] if said.startswith("!") else tuple(ip_address(text) for text in said.split(","))
