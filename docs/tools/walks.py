"""The way of a connection through each forwarding method, hop by hop: what is drawn, and what the lab's wires carry.

One rule: addresses are the lab's own (director/lab/topology.yaml), so that a drawing can be compared with the wire, by
a test and by anybody in `director lab shell`.
"""

from __future__ import annotations

from dataclasses import dataclass

from director.lab import topology

CLIENT_PORT = 40000
SERVICE_PORT, REAL_PORT = 80, 8080


@dataclass(frozen=True, slots=True)
class Packet:
    """Who it is from and for, as its IP header says: `address:port`, or `address` of a tunnel's outer header."""

    source: str
    destination: str


@dataclass(frozen=True, slots=True)
class Hop:
    """From one host to another over a network. `outer` is what it is wrapped in; `note` says why it is so."""

    sender: str
    receiver: str
    network: str
    packet: Packet
    note: str
    outer: Packet | None = None


@dataclass(frozen=True, slots=True)
class Walk:
    """The first packet of a connection and the answer to it."""

    forward: str
    title: str
    vip: str
    real_server: str
    real_network: str
    hops: tuple[Hop, ...]


_LAB = topology.load()


def address(host: str, network: str) -> str:
    """The host's IPv4 address on a network of the lab."""
    return str(_LAB.hosts[host].links[network].v4)


def mac(host: str, network: str) -> str:
    """The host's link-layer address there."""
    return str(_LAB.hosts[host].links[network].mac)


def _walks() -> tuple[Walk, ...]:
    client = f"{address('client', 'lan')}:{CLIENT_PORT}"
    director = address("director", "inside")
    vips = {"nat": "10.9.0.101", "dr": "10.9.0.102", "tun": "10.9.0.103", "fullnat": "10.9.0.104"}

    def asked(forward: str) -> Hop:
        packet = Packet(client, f"{vips[forward]}:{SERVICE_PORT}")
        return Hop("client", "director", "lan", packet, "the VIP belongs to the director")

    def answered(forward: str, sender: str, note: str) -> Hop:
        return Hop(sender, "client", "lan", Packet(f"{vips[forward]}:{SERVICE_PORT}", client), note)

    web = f"{address('web-1', 'inside')}:{REAL_PORT}"
    nat = (
        asked("nat"),
        Hop("director", "web-1", "inside", Packet(client, web), "IPVS replaces the destination, address and port"),
        Hop("web-1", "director", "inside", Packet(web, client), "to the client, by the default gateway: the director"),
        answered("nat", "director", "IPVS puts the VIP back as the source"),
    )
    to_vip = Packet(client, f"{vips['dr']}:{SERVICE_PORT}")
    dr = (
        asked("dr"),
        Hop("director", "l7proxy-1", "lan", to_vip, "the same packet, in a frame for the real server"),
        answered("dr", "l7proxy-1", "the VIP is on its lo: answered directly"),
    )
    wrapped = Packet(director, address("l7proxy-2", "inside"))
    to_vip = Packet(client, f"{vips['tun']}:{SERVICE_PORT}")
    tun = (
        asked("tun"),
        Hop("director", "l7proxy-2", "inside", to_vip, "the same packet, wrapped in another one", wrapped),
        answered("tun", "l7proxy-2", "unwrapped; the VIP is there: answered directly"),
    )
    borrowed = f"{director}:{CLIENT_PORT}"
    fullnat = (
        asked("fullnat"),
        Hop("director", "web-1", "inside", Packet(borrowed, web), "destination and source are both replaced"),
        Hop("web-1", "director", "inside", Packet(web, borrowed), "to the director's own address: any route will do"),
        answered("fullnat", "director", "both are put back"),
    )
    return (
        Walk("nat", "NAT", vips["nat"], "web-1", "inside", nat),
        Walk("dr", "DR (direct routing)", vips["dr"], "l7proxy-1", "lan", dr),
        Walk("tun", "TUN (IP in IP)", vips["tun"], "l7proxy-2", "inside", tun),
        Walk("fullnat", "Full NAT", vips["fullnat"], "web-1", "inside", fullnat),
    )


WALKS = _walks()


def configuration() -> str:
    """director.yaml of all four, as the lab's director gets it."""
    lines = ["defaults: {interface: lan}", "virtual_servers:"]
    for walk in WALKS:
        port = f", port: {REAL_PORT}" if walk.forward in {"nat", "fullnat"} else ""
        real = f"{{address: {address(walk.real_server, walk.real_network)}{port}}}"
        lines += [
            f"  {walk.forward}:",
            f"    address: {walk.vip}",
            f"    port: {SERVICE_PORT}",
            f"    forward: {walk.forward}",
            f"    real_servers: {{{walk.real_server}: {real}}}",
        ]
    return "\n".join(lines) + "\n"
