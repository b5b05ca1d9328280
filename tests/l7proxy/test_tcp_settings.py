"""The keys of connections that are forwarded as they are: what they mean, and each mistake with its place."""

from __future__ import annotations

import pytest

from director.kit.configfile import InvalidConfigError
from l7proxy.core.config import load_config
from l7proxy.core.settings.tcp import Tcp

pytestmark = pytest.mark.unit

REST = """
upstreams:
  db: {backends: {a: {address: '10.0.0.1:5432'}}}
  web: {backends: {a: {address: '10.0.0.2:443'}}}
"""


def problems(listener: str, rest: str = REST) -> list[str]:
    """What is said of a listener; `1:` is its own line."""
    text = f"listeners: {{x: {{bind: '0.0.0.0:1', {listener}}}}}{rest}"
    with pytest.raises(InvalidConfigError) as caught:
        load_config(text, "f")
    return caught.value.lines()


def test_what_is_not_said_has_its_default() -> None:
    config = load_config(f"listeners: {{db: {{bind: '0.0.0.0:5432', tcp: {{upstream: db}}}}}}{REST}", "f")
    assert config.listeners[0].tcp == Tcp("db")
    assert config.routes == ()


def test_names_are_compared_in_lower_case_and_half_closed_is_idle() -> None:
    config = load_config(
        "listeners: {db: {bind: '0.0.0.0:1', tcp: {sni: {A.Example: db, '*.B.example': web}, idle: 5m, hello: 1s}}}"
        + REST,
        "f",
    )
    assert config.listeners[0].tcp == Tcp("", {"a.example": "db"}, {"b.example": "web"}, 300.0, 300.0, 1.0)


@pytest.mark.parametrize(
    ("listener", "said"),
    [
        ("tcp: {}", "1:41: listeners.x.tcp: nobody answers: name an `upstream`, or say `sni`"),
        ("tcp: {upstream: dbs}", "1:52: listeners.x.tcp.upstream: there is no upstream 'dbs': did you mean 'db'?"),
        (
            "tcp: {sni: {a.example: wbe}}",
            "1:59: listeners.x.tcp.sni.a.example: there is no upstream 'wbe': did you mean 'web'?",
        ),
        ("tcp: {sni: {'a.example:443': db}}", "listeners.x.tcp.sni.a.example:443: 'a.example:443' is no server name"),
        ("tcp: {sni: {192.0.2.1: db}}", "'192.0.2.1' is an address: clients name no server then"),
        ("tcp: {sni: {'*': db}}", "'*' is no server name: write a name without port"),
        ("tcp: {sni: {a.example: db, A.example: web}}", "'a.example' is the same name: remove one"),
        ("tcp: {upstream: db, idle: 0s}", "1:62: listeners.x.tcp.idle: '0s' is too short"),
        ("tcp: {upstream: db, idle: 1m, half_closed: 2m}", "`idle` (1m) comes first"),
        ("tcp: {upstream: db, hello: 1s}", "nothing is waited for without `sni` or `proxy_protocol`"),
        (
            "tcp: {upstream: db}, tls: {certificate: /a, key: /b}",
            "1:62: listeners.x.tls: `tcp` forwards connections as they are: remove tls, or tcp",
        ),
        ("tcp: {upstream: db}, health: /up", "listeners.x.health: `tcp` forwards connections as they are"),
        ("tcp: {upstream: db}, acme: {}", "listeners.x.acme: `tcp` forwards connections as they are"),
        (
            "tcp: {upstream: db}, trusted_proxies: 10.0.0.0/8",
            "with `tcp` nothing else than a PROXY header is believed: add `proxy_protocol: true`",
        ),
        ("health: /up", "there are none, and listeners that speak HTTP: add one"),
    ],
)
def test_each_mistake_is_told_with_its_place(listener: str, said: str) -> None:
    assert any(said in line for line in problems(listener)), problems(listener)


def test_tls_towards_backends_is_not_spoken() -> None:
    rest = "\nupstreams: {db: {tls: true, backends: {a: {address: '10.0.0.1:5432'}}}}"
    assert any(
        "f:2:" in line and "upstreams.db.tls: listeners.x.tcp forwards to it as it came" in line
        for line in problems("tcp: {upstream: db}", rest)
    )
