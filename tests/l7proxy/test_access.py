"""Who may pass: networks, hashes, and what is wrong in a file about them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from passlib.hash import sha512_crypt

from director.kit.configfile import InvalidConfigError
from l7proxy.core.access import NetworkRules, line_of, without
from l7proxy.core.passwords import is_right, problem, read_login
from l7proxy.files.loading import load_text
from tests.wire.sealed import make_certificate

pytestmark = pytest.mark.unit

HEAD = 'listeners: {http: {bind: "0.0.0.0:80"}}\nupstreams: {up: {backends: {a: {address: "10.0.0.1:80"}}}}\n'
GOOD = bcrypt.hashpw(b"one", bcrypt.gensalt(4)).decode()


def problems(access: str) -> list[str]:
    with pytest.raises(InvalidConfigError) as caught:
        load_text(HEAD + f"routes:\n  - upstream: up\n    access: {access}\n", "f")
    return caught.value.lines()


def networks(width: int) -> st.SearchStrategy[str]:
    return st.builds(
        lambda value, length: str(ip_network((value, length), strict=False)),
        st.integers(0, 2**width - 1),
        st.integers(0, width),
    )


@given(st.sets(networks(32) | networks(128), max_size=8), st.sets(networks(32) | networks(128), max_size=8), st.data())
def test_the_longest_prefix_decides(allowed: set[str], denied: set[str], data: st.DataObject) -> None:
    allow, deny = ([ip_network(text) for text in sorted(texts)] for texts in (allowed, denied))
    near = [str(network.network_address) for network in allow + deny]
    client = data.draw(st.sampled_from(near) if near else st.just("192.0.2.1"))
    address = ip_address(client)
    fits = [(network.prefixlen, network in deny) for network in allow + deny if address in network]
    others = data.draw(st.booleans())
    rules = NetworkRules(allow, deny, others)
    assert rules.let_pass(client) == (not max(fits)[1] if fits else others)
    assert not rules.let_pass("-")


def test_an_ipv4_client_over_ipv6_is_the_ipv4_client() -> None:
    rules = NetworkRules([ip_network("10.0.0.0/8")], [], False)
    assert rules.let_pass("::ffff:10.0.0.1")


def test_lines_that_pass_for_one_are_removed_too() -> None:
    fields = b"X-User: a\r\nHost: b\r\nX_USER: c\r\nX-Users: d\r\nx-user:\r\nY: X-User: e\r\n"
    assert without(fields, [b"x-user"]) == b"Host: b\r\nX-Users: d\r\nY: X-User: e\r\n"
    assert without(b"Host: b\r\n", [b"x-user"]) == b"Host: b\r\n"
    assert line_of("X-User", b"a\r\nX: 1\0") == b"X-User: a  X: 1\r\n"


@pytest.mark.parametrize("text", [GOOD, GOOD.replace("$2b$", "$2y$"), sha512_crypt.using(rounds=1000).hash("one")])
def test_hashes_that_are_taken_are_understood(text: str) -> None:
    assert problem(text) == ""
    assert is_right(b"one", text)
    assert not is_right(b"two", text)
    assert not is_right(b"one\0", text)


def test_a_password_is_as_long_as_its_hash_looks_at() -> None:
    text = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()
    assert is_right(b"x" * 100, text)  # as Apache and nginx have it
    assert not is_right(b"x" * 71, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("secret", "is no hash, and passwords do not stand in files: make a hash with `htpasswd -nBC 10 NAME`"),
        ("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "a SHA-1 hash without salt"),
        ("$apr1$a$b", "Apache's MD5"),
        ("$argon2id$v=19$x", "an argon2 hash"),
        ("$2b$10$short", "is no whole hash"),
        (GOOD.replace("$04$", "$20$"), "seconds for each login: use 10 to 14"),
        (GOOD.replace("$04$", "$03$"), "which there is not"),
        ("$6$rounds=9999999$salt$" + "a" * 86, "9999999 rounds"),
    ],
)
def test_what_is_no_good_hash_is_told_without_showing_it(text: str, said: str) -> None:
    [line] = problems(f"{{basic: {{users: {{ann: '{text}'}}}}}}")
    assert line.startswith("f:5:35: routes.0.access.basic.users.ann: what stands here ")
    assert said in line
    assert text not in line


def test_a_number_for_a_hash_is_not_shown() -> None:
    [line] = problems("{basic: {users: {ann: 12345}}}")
    assert "12345" not in line
    assert "is no hash" in line


@pytest.mark.parametrize(
    ("access", "place", "said"),
    [
        ("{allow: 10.0.0.0/8, deny: [10.0.0.0/8]}", "5:40", "routes.0.access.deny.0: 10.0.0.0/8 is in `allow` too"),
        ("{others: deny, basic: {users: {a: 'HASH'}}}", "5:22", "there are no others"),
        ("{allow: 10.0.0.1/8}", "5:21", "is not a network"),
        ("{basic: {}}", "5:21", "nobody could pass: name `users`, or a `file`"),
        ("{basic: {users: {'a:b': 'HASH'}}}", "5:37", "cannot be a user"),
        ("{basic: {realm: 'a\"b', users: {a: 'HASH'}}}", "5:29", "cannot be a realm"),
        ("{basic: {file: /none/users}}", "5:28", "/none/users is not there"),
        ("{forward_auth: {url: 'auth:9000'}}", "5:34", "is not a URL to ask"),
        ("{forward_auth: {url: 'ftp://auth/'}}", "5:34", "is not a URL to ask"),
        ("{forward_auth: {url: 'http://auth:99999/'}}", "5:34", "is not a URL to ask"),
        ("{forward_auth: {url: 'http://me:secret@auth/'}}", "5:34", "without user, password and fragment"),
        ("{forward_auth: {url: 'http://a/', pass: [Host]}}", "5:54", "Host is this proxy's own to say"),
        ("{forward_auth: {url: 'http://a/', pass: 'X User'}}", "5:53", "cannot name a header"),
        ("{forward_auth: {url: 'http://a/', ca: /none.pem}}", "5:51", "/none.pem is not there"),
        ("{forward_auth: {url: 'http://a/'}, basic: {users: {a: 'HASH'}}}", "5:28", "told the passwords"),
        ("{client_certificate: {subject_header: 'X:'}}", "5:51", "cannot name a header"),
        ("{client_certificate: {}}", "5:34", "no listener asks for certificates: write `tls: {clients:"),
    ],
)
def test_mistakes_are_told_where_they_stand(access: str, place: str, said: str) -> None:
    [line] = problems(access.replace("HASH", GOOD))
    assert line.startswith(f"f:{place}: ")
    assert said in line
    assert "secret" not in line


def test_every_line_of_an_htpasswd_file_is_looked_at(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text(f"# staff\nann:{GOOD}\nbob:secret\neve\n:{GOOD}\nann:{GOOD}\n")
    lines = problems(f"{{basic: {{file: {users}}}}}")
    assert len(lines) == 4
    assert all(line.startswith("f:5:28: routes.0.access.basic.file: ") for line in lines)
    told = "\n".join(lines)
    for said in (
        f"{users}:3: what stands for bob is no hash",
        f"{users}:4: what stands for eve",
        f"{users}:5 cannot be a user",
        f"{users}:6: ann has a hash already",
    ):
        assert said in told
    assert "secret" not in told
    users.write_text("# nobody\n")
    [line] = problems(f"{{basic: {{file: {users}}}}}")
    assert "has no user" in line


def test_what_is_no_certificate_cannot_verify_one(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    [line] = problems(f"{{forward_auth: {{url: 'https://a/', ca: {key}}}}}")
    assert "holds no certificate in PEM" in line
    loaded = load_text(
        HEAD + f"routes: [{{upstream: up, access: {{forward_auth: {{url: 'https://a/', ca: {certificate}}}}}}}]\n", "f"
    )
    access = loaded.config.routes[0].access
    assert access is not None
    assert access.forward_auth is not None
    assert access.forward_auth.ca_pem == Path(certificate).read_bytes()


def test_hashes_are_not_shown_by_accident() -> None:
    loaded = load_text(HEAD + f"routes: [{{upstream: up, access: {{basic: {{users: {{a: '{GOOD}'}}}}}}}}]\n", "f")
    assert GOOD not in repr(loaded.config)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_login_or_none(value: bytes) -> None:
    found = read_login(b"Basic " + value)
    assert found is None or (found[0].isprintable() and ":" not in found[0])
