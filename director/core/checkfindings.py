"""What checks and the keys from verdict to weight get wrong together with the rest of their virtual server."""

from __future__ import annotations

from collections.abc import Iterator

from director.core.model import SORRY
from director.core.resolve import (
    address_of,
    addresses_of,
    check_of,
    collide,
    forward_of,
    lacks_port,
    load_of,
    port_of,
    says_something,
    told_address,
)
from director.core.schema import FileSection, NoCheckSection, RealServerSection, VirtualServerSection
from director.kit.checks.check import AnyCheckSection, Check, CombinedCheckSection, leaves, timing_findings
from director.kit.configfile import Finding

At = tuple[str | int, ...]

_TELL_LOAD = ("agent", "script", "file")
"""Types of checks whose answer may have a weight, or a share of it."""


def check_findings(
    here: At, at: At, section: VirtualServerSection, real: RealServerSection, file: FileSection
) -> Iterator[Finding]:
    """About the check and the load of one real server at `here`, of the virtual server at `at`."""
    if real.state == "disabled":
        return
    owner = here if real.check is not None else at if section.check is not None else ("defaults",)
    chosen = real.check or section.check
    if chosen is not None and not isinstance(chosen, NoCheckSection):
        for part, place in _parts(chosen, (*owner, "check")):
            yield from _portless(place, part, section, real)
            if getattr(part, "via", None) == "vip" and not addresses_of(section):
                yield (
                    (*place, "via"),
                    "there is no VIP to probe: name what is to be marked under `traffic:`, or remove it",
                )
    check = check_of(section, real, file)
    through = [leaf for leaf in leaves(check) if leaf.route.real is not None]
    for message in dict.fromkeys(message for leaf in through for message in _through_vip(leaf, section, real)):
        yield (*owner, "check"), message
    for message in dict.fromkeys(message for leaf in leaves(check) for message in timing_findings(leaf)):
        yield (*owner, "check"), message
    load = real.load or section.load
    if load is not None:
        place = (*(here if real.load is not None else at), "load")
        yield from _portless(place, load, section, real)
        if load.type not in _TELL_LOAD:
            yield (
                place,
                f"type {load.type} says nothing of a server's load: use one of {', '.join(_TELL_LOAD)}",
            )
        resolved = load_of(section, real, file)
        for message in _through_vip(resolved, section, real) if resolved and resolved.route.real else ():
            yield place, message
        for message in timing_findings(resolved) if resolved is not None else ():
            yield place, message


def _through_vip(check: Check, section: VirtualServerSection, real: RealServerSection) -> Iterator[str]:
    """About one check with `via: vip`."""
    vip, source = check.target.address, check.route.source
    if (forward := forward_of(section, real)) not in {"dr", "tun"}:
        yield (
            f"with {forward} a probe of the real server goes the way that packets go: remove `via: vip`, which is for "
            "dr and tun"
        )
    elif source is None and address_of(section, real).version != vip.version:
        yield (
            f"the VIP {vip} is IPv{vip.version}, and the way to {told_address(section, real)} tells no such address to "
            f"probe it from: write `source:`, an IPv{vip.version} address of the director's own"
        )
    elif source is not None and (source.version != vip.version or source in addresses_of(section)):
        yield (
            f"{source} cannot be the source of probes of {vip}: give an IPv{vip.version} address of the director that "
            "is no VIP, or remove `source`"
        )


def _parts(chosen: AnyCheckSection | CombinedCheckSection, at: At) -> Iterator[tuple[AnyCheckSection, At]]:
    if isinstance(chosen, CombinedCheckSection):
        for index, part in enumerate(chosen.of):
            yield part, (*at, "of", index)
    else:
        yield chosen, at


def _portless(
    at: At, check: AnyCheckSection, section: VirtualServerSection, real: RealServerSection
) -> Iterator[Finding]:
    if not lacks_port(check):
        return
    article = "an" if check.type[0] in "aei" else "a"
    if not says_something(check, section):
        yield (
            at,
            f"{article} {check.type} check of a {section.protocol or 'tcp'} virtual server needs `port:`, "
            f"a {(check.over or '').upper()} port; or use type: none",
        )
    elif port_of(section, real) is None and (section.fwmark is not None or section.port is not None):
        yield at, "it needs `port:`, since the virtual server names none; or give the real server a port (nat)"


def policy_findings(at: At, section: VirtualServerSection, file: FileSection) -> Iterator[Finding]:
    """About quorum, sorry server, panic and what becomes of servers that are down."""
    servers, quorum = len(section.real_servers), section.quorum
    if quorum is not None and quorum.up > servers:
        with_them = "with 1 real server" if servers == 1 else f"with {servers} real servers"
        yield (
            (*at, "quorum", "up"),
            f"{quorum.up} can never be held {with_them}: use at most {servers}"
            if servers
            else f"{quorum.up} can never be held without real servers: add some, or remove `quorum`",
        )
    on_failure = section.on_failure or file.defaults.on_failure
    if section.scheduler == "mh" and on_failure == "remove":
        yield (
            (*at, "on_failure") if section.on_failure else ("defaults", "on_failure"),
            "with scheduler mh every removal moves flows of other real servers: use inhibit",
        )
    yield from _sorry(at, section, file)


def _sorry(at: At, section: VirtualServerSection, file: FileSection) -> Iterator[Finding]:
    sorry = section.sorry_server
    if sorry is None:
        return
    here = (*at, "sorry_server")
    if section.panic_threshold is not None or file.defaults.panic_threshold is not None:
        place = (*at, "panic_threshold") if section.panic_threshold is not None else ("defaults", "panic_threshold")
        yield (
            place,
            f"virtual server {at[-1]!r} has a sorry server: panic would use servers that are down in its place; "
            "remove one of them",
        )
    if SORRY in section.real_servers:
        yield (*at, "real_servers", SORRY), f"{SORRY} is the name of the sorry server: use another"
    for name, real in section.real_servers.items():
        if address_of(section, real) == address_of(section, sorry) and collide(section, real.port, sorry.port):
            yield (*here, "address"), f"it is real server {name!r}: give another server, which answers when that fails"
            break
    flags = section.scheduler_flags
    if section.scheduler in {"sh", "mh"} and flags is not None and f"{section.scheduler}-fallback" not in flags:
        yield (
            (*at, "scheduler_flags"),
            f"without {section.scheduler}-fallback some clients would be refused once the sorry server has served: "
            "add it",
        )
