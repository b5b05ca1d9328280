"""Which checks need a port, and which are inherited by virtual servers of another protocol."""

from __future__ import annotations

import pytest

from director.core.config import parse_config
from director.kit.checks.check import leaves
from director.kit.configfile import InvalidConfigError

pytestmark = pytest.mark.unit

UDP = "{type: udp, send: x}"
DNS = "{type: dns, name: a.example}"
SCRIPT = "{type: script, command: [/bin/true]}"


def _text(check: str, traffic: str, default: str = "") -> str:
    lines = [f"defaults: {{check: {default}}}"] if default else []
    lines += [
        "virtual_servers:",
        "  web:",
        f"    {traffic}",
        "    forward: nat",
        f"    check: {check}" if check else "    scheduler: rr",
        "    real_servers: {a: {address: 10.0.0.11}}",
    ]
    return "\n".join(lines).replace("; ", "\n    ") + "\n"


def _checks(check: str, traffic: str, default: str = "") -> list[str]:
    config = parse_config(_text(check, traffic, default), "f")
    return [str(leaf) for leaf in leaves(config.virtual_servers[0].real_servers[0].check)]


TCP_80 = "address: 192.0.2.1; port: 80"
UDP_53 = "address: 192.0.2.1; port: 53; protocol: udp"
MARK = "fwmark: 7"
ANY_PORT = "address: 192.0.2.1; port: any; persistence: {timeout: 5m}"


@pytest.mark.parametrize(
    ("default", "traffic", "expected"),
    [
        ("{type: tcp}", TCP_80, ["tcp 10.0.0.11:80"]),
        ("{type: tcp}", UDP_53, []),
        ("{type: tcp, port: 22}", UDP_53, ["tcp 10.0.0.11:22"]),
        ("{type: tcp}", MARK, []),
        (UDP, UDP_53, ["udp 10.0.0.11:53"]),
        (UDP, TCP_80, []),
        (DNS, UDP_53, ["dns a.example. A 10.0.0.11:53"]),
        (DNS, "address: 192.0.2.1; port: 53", ["dns a.example. A 10.0.0.11:53"]),
        ("{type: icmp}", UDP_53, ["icmp 10.0.0.11"]),
        ("{type: icmp}", MARK, ["icmp 10.0.0.11"]),
        ("{type: icmp}", ANY_PORT, ["icmp 10.0.0.11"]),
        (SCRIPT, MARK, ["script /bin/true 10.0.0.11"]),
        ("{type: file, path: /run/x}", ANY_PORT, ["file /run/x 10.0.0.11"]),
        ("{type: script, command: [/bin/x, '{port}']}", MARK, []),
        ("{type: script, command: [/bin/x, '{port}']}", UDP_53, ["script /bin/x 10.0.0.11:53"]),
        ("{type: all, of: [{type: icmp}, {type: tcp}]}", UDP_53, []),
        ("{type: all, of: [{type: icmp}, {type: tcp, port: 22}]}", UDP_53, ["icmp 10.0.0.11", "tcp 10.0.0.11:22"]),
    ],
)
def test_inherited(default: str, traffic: str, expected: list[str]) -> None:
    assert _checks("", traffic, default) == expected


@pytest.mark.parametrize(
    ("check", "traffic"),
    [("{type: icmp}", MARK), ("{type: icmp}", ANY_PORT), (SCRIPT, MARK), ("{type: file, path: /run/x}", MARK)],
)
def test_written_where_there_is_no_port(check: str, traffic: str) -> None:
    assert len(_checks(check, traffic)) == 1


@pytest.mark.parametrize(
    ("check", "traffic", "message"),
    [
        ("{type: tcp}", UDP_53, "a tcp check of a udp virtual server needs `port:`, a TCP port; or use type: none"),
        (UDP, TCP_80, "a udp check of a tcp virtual server needs `port:`, a UDP port; or use type: none"),
        (UDP, MARK, "it needs `port:`, since the virtual server names none"),
        (DNS, MARK, "it needs `port:`, since the virtual server names none"),
        ("{type: script, command: [/bin/x, '{port}']}", MARK, "it needs `port:`, since the virtual server names none"),
    ],
)
def test_port_that_is_missing_is_found(check: str, traffic: str, message: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        _checks(check, traffic)
    assert message in "\n".join(caught.value.lines())
