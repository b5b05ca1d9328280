"""The segment size (MSS) that a tunnel real server tells its clients: what fits once the director has wrapped it.

One rule: the rules stand in a chain of our own in the mangle table; all that is elsewhere is the one jump to it.

A client that fills 1500 bytes leaves no room for the outer header. The director says so (ICMP "fragmentation
needed"), and wherever that is filtered the upload hangs. The MSS in the real server's SYN-ACK is what decides
the size, and the kernel takes it from the route of the answer, which leaves by the ordinary interface: the
tunnel device's MTU has no say. `advmss` would need a copy of the routes to the clients under `ip rule from VIP`:
once stale it leads answers astray, while a rule that is lost costs only what it gave. So: TCPMSS on our SYNs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from director.core.rules import Chain, Jump
from director.host import iptables
from director.host.change import Change
from director.host.firewall import Firewall
from director.kit.errors import HostError
from director.kit.net import IPAddress

CHAIN = "LVS-REALSERVER"
_SYN = "-p tcp -m tcp --tcp-flags SYN,RST SYN"


def require(versions: Iterable[int]) -> None:
    """Raises: HostError when this host has no iptables for one of these IP versions."""
    for version in versions:
        if not iptables.backends(version):
            raise HostError(
                f"there is no {iptables.STEMS[version]}-restore, and clients must be told what fits the tunnel: "
                "apt-get install iptables, or do without (--no-mss) where the directors' ICMP messages "
                '"fragmentation needed" reach every client'
            )


def enforce(sizes: Mapping[IPAddress, int], versions: Iterable[int]) -> list[Change]:
    """Have SYNs from each of these addresses announce at most that many bytes, and no other rules of ours.

    Only for these IP versions: to look for rules of another may load its modules.
    Raises: HostError when the kernel or iptables refuses.
    """
    done = Firewall().make((version, chain(sizes, version)) for version in sorted(versions))
    if done.failures:
        raise HostError("; ".join(done.failures))
    return [*done.changes]


def chain(sizes: Mapping[IPAddress, int], version: int) -> Chain:
    """Our chain for IPv4 or IPv6; TCPMSS never makes a segment larger.

    >>> from ipaddress import ip_address
    >>> chain({ip_address("192.0.2.10"): 1440}, 4).rules
    ('-s 192.0.2.10/32 -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1440',)
    """
    rules = tuple(
        f"-s {vip}/{vip.max_prefixlen} {_SYN} -j TCPMSS --set-mss {size}"
        for vip, size in sorted(sizes.items(), key=lambda item: int(item[0]))
        if vip.version == version
    )
    return Chain("mangle", CHAIN, (Jump("OUTPUT", _SYN),), rules)
