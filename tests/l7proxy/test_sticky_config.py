"""What can be wrong about balancing and sessions in a file: each found, at its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from director.kit.configfile import InvalidConfigError
from l7proxy.core.settings.balancing import Balance, Hashing, KeyKind
from l7proxy.core.settings.stickiness import CookieMode
from l7proxy.files.loading import load_text

pytestmark = pytest.mark.unit

BEFORE = 'listeners: {web: {bind: "127.0.0.1:80"}}\nroutes: [{upstream: up}]\nupstreams:\n  up:\n    '
AFTER = '\n    backends: {a: {address: "127.0.0.1:1"}}\n'


def lines(said: str) -> list[str]:
    with pytest.raises(InvalidConfigError) as caught:
        load_text(BEFORE + said + AFTER, "f")
    return caught.value.lines()


WRONG = [
    ("balance: leastconn", "leastconn", "'leastconn' is not known: use one of round_robin"),
    ("balance: {}", "{}", "nothing says whose turn it is"),
    ("balance: {hash: ip}", "ip", "'ip' is no key: write source, uri"),
    ('balance: {hash: "header"}', '"header"', "'header' is no key"),
    ('balance: {hash: "header X:Y"}', '"header X', "'X:Y' is no name of a header"),
    ("balance: {hash: uri, by: random}", "random", "`hash` says whose turn it is already"),
    ("balance: {by: random, bounded: 2.0}", "2.0", "only `hash` has a bound, random needs none"),
    ("balance: {hash: uri, bounded: 0.9}", "0.9", "0.9 is too small"),
    ("balance: {hash: uri, bound: 2.0}", "bound:", "unknown key 'bound': did you mean 'bounded'?"),
    ("sticky: {}", "{}", "nothing says whose session it is"),
    ("sticky: {cookie: S, header: X-A}", "X-A", "cookie says whose session it is already"),
    ("sticky: {source: true, mode: insert}", "insert", "mode is about a cookie, and sessions go by source"),
    ('sticky: {cookie: "a b"}', '"a b"', "'a b' is no name of a cookie"),
    ("sticky: {cookie: S, mode: inserts}", "inserts", "'inserts' is not known"),
    ("sticky: {cookie: S, mode: prefix, maxidle: 1h}", "1h", "maxidle is about a cookie that l7proxy sets"),
    ("sticky: {cookie: S, signed: true}", "true", "there is no key: write `head -c 32"),
    ("sticky: {cookie: S, mode: passive, plain_names: false}", "false", "passive reads names"),
    ("sticky: {cookie: S, same_site: none}", "none", "browsers drop such a cookie unless it is secure"),
    ("sticky: {cookie: S, maxidle: 2h, maxlife: 1h}", "2h", "no session gets so old"),
    ("sticky: {cookie: __Host-S}", "__Host-S", "browsers drop __Host-S unless it is secure"),
    ("sticky: {cookie: __Host-S, secure: true, path: /a}", "__Host-S", "unless it is of one host and path /"),
    ('sticky: {cookie: S, domain: "a;b"}', '"a;b"', "'a;b' is no domain"),
    ("sticky: {cookie: S, path: a}", "a}", "'a' is no path of a cookie"),
    ("sticky: {cookie: S, key_file: keys}", "keys", "'keys' is not an absolute path"),
    ("sticky: {cookie: S, key_file: /nowhere/keys}", "/nowhere", "/nowhere/keys is not there: write its right path"),
]


@pytest.mark.parametrize(("said", "at", "message"), WRONG, ids=[said for said, _, _ in WRONG])
def test_every_mistake_has_its_place(said: str, at: str, message: str) -> None:
    (line,) = lines(said)
    assert message in line
    assert line.startswith(f"f:5:{5 + said.rindex(at)}: upstreams.up.{said.partition(':')[0]}")


KEYS = [
    ("", "has no key: write one into it"),
    ("# nothing\n\n", "has no key"),
    ("short\n", "has a key of less than 16 characters"),
    ("a" * 70_000, "is larger than 65536 bytes"),
    (None, "is no file: name one that holds a key"),
]


@pytest.mark.parametrize(("content", "message"), KEYS)
def test_a_file_that_holds_no_key_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "keys"
    if content is None:
        file.mkdir()
    else:
        file.write_text(content)
    (line,) = lines(f"sticky: {{cookie: S, key_file: {file}}}")
    assert line.startswith("f:5:")
    assert f"upstreams.up.sticky.key_file: {file} {message}" in line


def test_a_key_that_nothing_is_signed_with_is_told(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("0123456789abcdef\n")
    (line,) = lines(f"sticky: {{cookie: S, signed: false, key_file: {tmp_path}/keys}}")
    assert "nothing is signed with it" in line
    (line,) = lines(f"sticky: {{cookie: S, plain_names: true, key_file: {tmp_path}/keys}}")
    assert "a signed cookie tells no names" in line


def test_what_is_right_means_what_it_says() -> None:
    config = load_text(BEFORE + 'balance: {hash: "header X-Tenant", bounded: 1.25}' + AFTER, "f").config.upstreams["up"]
    assert (config.balance, config.hashing) == (Balance.HASH, Hashing(KeyKind.HEADER, "x-tenant", 1.25))
    config = load_text(BEFORE + "sticky: {cookie: S, mode: passive}" + AFTER, "f").config.upstreams["up"]
    assert config.balance is Balance.ROUND_ROBIN
    assert config.sticky is not None
    assert (config.sticky.mode, config.sticky.plain_names, config.sticky.indirect) == (CookieMode.PASSIVE, True, False)
    config = load_text(BEFORE + "balance: first\n    sticky: {source: true}" + AFTER, "f").config.upstreams["up"]
    assert config.sticky is not None
    assert (config.sticky.cookie, config.sticky.hashing) == ("", Hashing(KeyKind.SOURCE))
