"""From verdicts to weights: what the keys amount to, and what is refused with its place and its remedy."""

from __future__ import annotations

import pytest

from director.core.config import parse_config
from director.core.policy import Hook, OnFailure, OnStart, Policy, Quorum
from director.kit.checks.check import Combination, leaves
from director.kit.configfile import InvalidConfigError

pytestmark = pytest.mark.unit

TOP = "virtual_servers.web"
TWO = "{a: {address: 10.0.0.1}, b: {address: 10.0.0.2}}"


def lines(text: str) -> list[str]:
    try:
        parse_config(text, "f")
    except InvalidConfigError as error:
        return [str(line) for line in error.lines()]
    return []


def web(top: str = "", reals: str = TWO, **keys: str) -> str:
    """A file of one virtual server with two real servers, some keys other than usual; an empty one is left out."""
    chosen = {"address": "192.0.2.10", "port": "80", "forward": "nat", **keys, "real_servers": reals}
    return f"{top}virtual_servers:\n  web:\n" + "".join(f"    {key}: {each}\n" for key, each in chosen.items() if each)


BAD: dict[str, tuple[str, str]] = {
    "on_start": (web(on_start="maybe"), f"f:6:15: {TOP}.on_start: 'maybe' is not known: use one of up, down, last"),
    "on_failure": (web(on_failure="removed"), f"{TOP}.on_failure: 'removed' is not known: did you mean 'remove'?"),
    "slow start without a unit": (web(slow_start="30"), f"{TOP}.slow_start: 30 has no unit: write 30s, 30ms or 30m"),
    "slow start of no time": (web(slow_start="0s"), f"{TOP}.slow_start: '0s' is too short: use at least 1ms"),
    "a share without percent": (
        web(panic_threshold="0.5"),
        f"{TOP}.panic_threshold: 0.5 is not a share: write one such as 50%, 0% to 99%",
    ),
    "a share of all": (web(panic_threshold="100%"), f"{TOP}.panic_threshold: '100%' is not a share: write one such"),
    "a share in defaults": (web("defaults: {panic_threshold: half}\n"), "defaults.panic_threshold: 'half' is not a"),
    "quorum of nobody": (web(quorum="{up: 0}"), f"{TOP}.quorum.up: 0 is too small: use a number from 1 to 65535"),
    "quorum upside down": (
        web(quorum="{up: 1, down: 2}"),
        f"{TOP}.quorum: down 2 is above up 1: quorum would be lost where it is held; lower it",
    ),
    "quorum that cannot be": (
        web(quorum="{up: 3}"),
        f"f:6:18: {TOP}.quorum.up: 3 can never be held with 2 real servers: use at most 2",
    ),
    "quorum that one server cannot be": (
        web(quorum="{up: 2}", reals="{a: {address: 10.0.0.1}}"),
        f"{TOP}.quorum.up: 2 can never be held with 1 real server: use at most 1",
    ),
    "quorum of an empty virtual server": (
        web(quorum="{up: 1}", reals="{}"),
        f"{TOP}.quorum.up: 1 can never be held without real servers: add some, or remove `quorum`",
    ),
    "load that nobody tells": (
        web(load="{type: http}"),
        f"{TOP}.load: type http says nothing of a server's load: use one of agent, script, file",
    ),
    "hook as a line": (
        web(quorum_up="{command: /bin/true now}"),
        f"{TOP}.quorum_up.command: '/bin/true now' is not a command: write a list, the program's path first; there is",
    ),
    "hook without a program": (web(quorum_up="{command: []}"), "a list is not a command: write a list, the"),
    "hook with a number": (
        web(quorum_down="{command: [/bin/sleep, 5]}"),
        f"{TOP}.quorum_down.command: 5 in the command is not text: put it in quotes",
    ),
    "hook that YAML reads as yes": (
        web(quorum_down="{command: [true]}"),
        f"{TOP}.quorum_down.command: true in the command is not text: put it in quotes",
    ),
    "hook by a relative path": (
        web(quorum_down="{command: [notify.sh]}"),
        f"{TOP}.quorum_down.command: 'notify.sh' is not a program's path: begin with /",
    ),
    "hook of a user without a name": (
        web(quorum_up='{command: [/bin/x], user: ""}'),
        f"{TOP}.quorum_up.user: '' is not a user's name: use one that `getent passwd` shows",
    ),
    "hook with an unknown key": (web(quorum_up="{command: [/bin/x], shell: true}"), "unknown key 'shell': use one of"),
    "removal with Maglev": (
        web(scheduler="mh", on_failure="remove"),
        f"f:7:17: {TOP}.on_failure: with scheduler mh every removal moves flows of other real servers: use inhibit",
    ),
    "removal with Maglev by default": (
        web("defaults: {on_failure: remove}\n", scheduler="mh"),
        "f:1:24: defaults.on_failure: with scheduler mh every removal moves flows",
    ),
    "panic beside a sorry server": (
        web(panic_threshold="50%", sorry_server="{address: 10.0.0.99}"),
        f"f:6:22: {TOP}.panic_threshold: virtual server 'web' has a sorry server: panic would use servers that",
    ),
    "panic by default beside a sorry server": (
        web("defaults: {panic_threshold: 50%}\n", sorry_server="{address: 10.0.0.99}"),
        "f:1:29: defaults.panic_threshold: virtual server 'web' has a sorry server",
    ),
    "a real server of the sorry server's name": (
        web(reals="{sorry_server: {address: 10.0.0.1}}", sorry_server="{address: 10.0.0.99}"),
        f"{TOP}.real_servers.sorry_server: sorry_server is the name of the sorry server: use another",
    ),
    "a real server as sorry server": (
        web(sorry_server="{address: 10.0.0.2}"),
        f"f:6:29: {TOP}.sorry_server.address: it is real server 'b': give another server, which answers",
    ),
    "a real server by another spelling as sorry server": (
        web(sorry_server="{address: 10.0.0.2, port: 80}"),
        f"{TOP}.sorry_server.address: it is real server 'b'",
    ),
    "a real server on one of several ports as sorry server": (
        web(port="[80, 81]", sorry_server="{address: 10.0.0.2, port: 81}"),
        f"{TOP}.sorry_server.address: it is real server 'b'",
    ),
    "a sorry server of weight 0": (
        web(sorry_server="{address: 10.0.0.99, weight: 0}"),
        f"{TOP}.sorry_server.weight: 0 is too small: use a number from 1 to 65535",
    ),
    "a sorry server with a check": (
        web(sorry_server="{address: 10.0.0.99, check: {type: tcp}}"),
        f"{TOP}.sorry_server.check: unknown key 'check': use one of address, port, weight, forward, tunnel",
    ),
    "a sorry server on another port under dr": (
        web(forward="dr", sorry_server="{address: 10.0.0.99, port: 81}"),
        f"{TOP}.sorry_server.port: 81 differs from the virtual server's port 80: with dr packets arrive unchanged",
    ),
    "a sorry server of another family": (
        web(sorry_server="{address: '2001:db8::99'}"),
        f"{TOP}.sorry_server.address: 2001:db8::99 is IPv6 and the virtual server's address is IPv4",
    ),
    "the VIP as sorry server": (
        web(sorry_server="{address: 192.0.2.10}"),
        f"{TOP}.sorry_server.address: 192.0.2.10 is the VIP itself",
    ),
    "a sorry server of another family with a sync daemon": (
        web("sync: {master: {interface: eth0}}\n", forward="tun", sorry_server="{address: '2001:db8::99'}"),
        f"{TOP}.sorry_server.address: 2001:db8::99 is of another IP version than its virtual server, and the kernel",
    ),
    "a tunnel of a sorry server under nat": (
        web(sorry_server="{address: 10.0.0.99, tunnel: {type: gre}}"),
        f"{TOP}.sorry_server.tunnel: nat has no tunnel",
    ),
    "hashing without its way out": (
        web(scheduler="sh", scheduler_flags="[sh-port]", sorry_server="{address: 10.0.0.99}"),
        f"f:7:22: {TOP}.scheduler_flags: without sh-fallback some clients would be refused once the sorry server has",
    ),
    "Maglev without its way out": (
        web(scheduler="mh", scheduler_flags="[]", sorry_server="{address: 10.0.0.99}"),
        f"{TOP}.scheduler_flags: without mh-fallback some clients would be refused",
    ),
    "a part of a combined check without a port": (
        web(protocol="udp", check="{type: all, of: [{type: tcp, port: 80}, {type: tcp}]}"),
        f"f:7:52: {TOP}.check.of.1: a tcp check of a udp virtual server needs `port:`",
    ),
    "a combined check of nothing": (web(check="{type: all, of: []}"), f"{TOP}.check.of: has too few entries: it needs"),
    "combined in combined": (
        web(check="{type: all, of: [{type: any, of: [{type: tcp}]}]}"),
        f"{TOP}.check.of.0.type: 'any' is not known: use one of tcp, http",
    ),
    "a combined check's timing": (
        web(check="{type: any, interval: 1s, fast_interval: 2s, of: [{type: tcp}]}"),
        f"f:6:12: {TOP}.check: fast_interval 2s is longer than interval 1s: write a shorter fast_interval",
    ),
    "a load without a port": (
        web(protocol="udp", load="{type: agent}"),
        f"f:7:11: {TOP}.load: an agent check of a udp virtual server needs `port:`",
    ),
    "a real server's load without a port": (
        web(port="any", persistence="{}", reals="{a: {address: 10.0.0.1, load: {type: agent}}}"),
        f"{TOP}.real_servers.a.load: it needs `port:`, since the virtual server names none",
    ),
    "a load's timing": (
        web(load="{type: agent, interval: 1s, fast_interval: 2s}"),
        f"{TOP}.load: fast_interval 2s is longer than interval 1s",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_it_is_refused_with_its_place_and_what_to_do(name: str) -> None:
    text, expected = BAD[name]
    found = lines(text)
    assert any(expected in line for line in found), found
    assert len(found) == 1, "once, however many real servers it is about"


def test_what_each_of_them_is_a_step_away_from_is_accepted() -> None:
    sorry = "{address: 10.0.0.99, port: 8080}"
    for text in (
        web(on_start="down", on_failure="remove", slow_start="30s", panic_threshold="0%"),
        web(quorum="{up: 2, down: 2}", sorry_server=sorry),
        web(quorum="{up: 2, down: 1}", quorum_up='{command: [/bin/x, ""], user: root, timeout: 1s}'),
        web("defaults: {on_failure: remove}\n", scheduler="mh", on_failure="inhibit"),
        web(scheduler="mh", scheduler_flags="[mh-fallback, mh-port]", sorry_server=sorry),
        web(scheduler="sh", sorry_server=sorry),
        web(reals="{sorry_server: {address: 10.0.0.1}}"),
        web(sorry_server="{address: 10.0.0.2, port: 8080}"),
        web(sorry_server="{address: 10.0.0.2}", reals="{b: {address: 10.0.0.2, port: 8080}}"),
        web(forward="dr", sorry_server="{address: 10.0.0.99, port: 8080, forward: nat}"),
        web(protocol="udp", check="{type: all, of: [{type: tcp, port: 80}]}", load="{type: agent, port: 81}"),
        web(check="{type: any, interval: 4s, of: [{type: tcp}, {type: http, fast_interval: 2s}]}"),
    ):
        assert lines(text) == [], text


def policy(text: str) -> Policy:
    return parse_config(text, "f").virtual_servers[0].policy


def test_defaults_hold_where_a_virtual_server_says_nothing() -> None:
    top = "defaults: {on_start: up, on_failure: remove, slow_start: 1m, panic_threshold: 40%}\n"
    assert policy(web()) == Policy()
    assert policy(web(top)) == Policy(OnStart.UP, OnFailure.REMOVE, panic_share=0.4, slow_start_s=60.0)
    own = web(top, on_start="down", on_failure="inhibit", slow_start="5s", panic_threshold="0%")
    assert policy(own) == Policy(OnStart.DOWN, OnFailure.INHIBIT, panic_share=0.0, slow_start_s=5.0)


def test_quorum_is_lost_below_where_it_is_won_when_nothing_else_is_said() -> None:
    assert policy(web(quorum="{up: 2}")).quorum == Quorum(2, 2)
    assert policy(web(quorum="{up: 2, down: 1}")).quorum == Quorum(2, 1)
    hooks = web(quorum_up="{command: [/bin/x, a b]}", quorum_down="{command: [/bin/y], user: ops, timeout: 1m}")
    assert policy(hooks).quorum == Quorum(1, 1, Hook(("/bin/x", "a b"), "nobody", 10.0), Hook(("/bin/y",), "ops", 60.0))


def test_the_sorry_server_is_the_last_with_its_own_method_and_no_check() -> None:
    sorry = "{address: 10.0.0.0, weight: 5, forward: tun, tunnel: {type: gre}}"
    (virtual,) = parse_config(web(check="{type: tcp}", sorry_server=sorry), "f").virtual_servers
    assert [real.name for real in virtual.real_servers] == ["a", "b", "sorry_server"]
    found = virtual.sorry
    assert found is not None
    assert (found.weight, found.check) == (5, None)
    assert (virtual.method_of(found).value, found.tunnel.kind.value) == ("tun", "gre")


def test_parts_of_a_combined_check_take_its_timing() -> None:
    text = web(check="{type: all, interval: 4s, rise: 5, of: [{type: tcp}, {type: http, rise: 1}]}")
    check = parse_config(text, "f").virtual_servers[0].real_servers[0].check
    assert isinstance(check, Combination)
    assert check.every
    assert [(part.timing.interval_s, part.timing.rise) for part in leaves(check)] == [(4.0, 5), (4.0, 1)]
    assert str(check) == "all of (tcp 10.0.0.1:80, http GET / 10.0.0.1:80)"
