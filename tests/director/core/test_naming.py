"""Real servers that are given by name: what a name is, which address is used, and that none is ever lost."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from director.core.config import parse_config
from director.core.model import ServerRef
from director.core.moves import MOST_NAMED, Move, Trouble, moves, told_resolution, trouble_sentences, troubles
from director.core.naming import MOST_ADDRESSES, Lookup, Named
from director.kit.configfile import InvalidConfigError
from director.kit.net import Answer, IPAddress, is_host_name

pytestmark = pytest.mark.unit

FILE = """\
virtual_servers:
  web:
    address: 192.0.2.10
    port: 80
    forward: nat
    real_servers:
      a: {address: db1.example}
      b: {address: 10.0.0.2}
"""
AT = "f:7:20: virtual_servers.web.real_servers.a.address"


def addresses(*texts: str) -> tuple[IPAddress, ...]:
    return tuple(map(ip_address, texts))


def answers(**known: str | tuple[IPAddress, ...]) -> Lookup:
    """Names by their first label."""

    def look_up(hosts: Collection[str]) -> Mapping[str, Named | str]:
        found: dict[str, Named | str] = {}
        for host in hosts:
            answer = known.get(host.partition(".")[0], "Name or service not known")
            found[host] = answer if isinstance(answer, str) else Named(host).after(answer)
        return found

    return look_up


def lines(text: str, look_up: Lookup) -> list[str]:
    with pytest.raises(InvalidConfigError) as caught:
        parse_config(text, "f", look_up)
    return caught.value.lines()


@pytest.mark.parametrize(
    "text",
    ["db1", "localhost", "db1.internal.example", "DB-1.Example.", "1st", "a_b.example", "1.pool.ntp.org", "xn--b.x"],
)
def test_these_are_names(text: str) -> None:
    assert is_host_name(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "10.0.0.300", "1.2.3", "10", "0x7f", "0x7f.1", "10.0.0.1:80", "10.0.0.1/24", "10.0.0.l", "10.0.0.1O"),
        *("::1", "2001:db8::zz", "-a", "a-", "a..b", ".a", "a b", "a\n", "bücher.example", "x" * 64, "a." * 127 + "aa"),
    ],
)
def test_these_are_not(text: str) -> None:
    assert not is_host_name(text)


@pytest.mark.parametrize("wrong", ["10.0.0.300", "1.2.3", "10.0.0.1O", "10.0.0.1:80"])
def test_a_mistyped_address_is_told_as_one(wrong: str) -> None:
    (line,) = lines(FILE.replace("db1.example", f'"{wrong}"'), answers())
    assert line == f"{AT}: '{wrong}' is not an IP address: use one such as 192.0.2.10 or 2001:db8::10"


def test_a_vip_and_a_source_are_addresses() -> None:
    (line,) = lines(FILE.replace("192.0.2.10", "db1.example"), answers(db1=addresses("10.0.0.1")))
    assert line.startswith("f:3:14: virtual_servers.web.address: 'db1.example' is not an IP address")


def test_a_real_server_and_a_sorry_server_have_their_names_addresses() -> None:
    text = FILE.replace("    real_servers:", "    sorry_server: {address: sorry.example}\n    real_servers:")
    config = parse_config(text, "f", answers(db1=addresses("10.0.0.1"), sorry=addresses("10.0.0.9")))
    reals = config.virtual_servers[0].real_servers
    assert [(real.name, str(real.address), real.host) for real in reals] == [
        ("a", "10.0.0.1", "db1.example"),
        ("b", "10.0.0.2", ""),
        ("sorry_server", "10.0.0.9", "sorry.example"),
    ]


def test_a_name_and_its_address_are_one_configuration() -> None:
    named = parse_config(FILE, "f", answers(db1=addresses("10.0.0.1")))
    assert named == parse_config(FILE.replace("db1.example", "10.0.0.1"), "f")
    assert named != parse_config(FILE, "f", answers(db1=addresses("10.0.0.3")))


def test_a_check_goes_to_the_address() -> None:
    text = FILE.replace("    real_servers:", "    check: {type: tcp}\n    real_servers:")
    real = parse_config(text, "f", answers(db1=addresses("10.0.0.1"))).virtual_servers[0].real_servers[0]
    assert str(real.check) == "tcp 10.0.0.1:80"


def test_a_name_that_nobody_knows_is_one_problem_among_all() -> None:
    text = FILE.replace("port: 80", "prot: 80")
    assert lines(text, answers()) == [
        "f:4:5: virtual_servers.web.prot: unknown key 'prot': did you mean 'port'?",
        f"{AT}: db1.example cannot be resolved, and no address of it is remembered: Name or service not known: see "
        "what `getent ahosts db1.example` says, or write an address",
    ]


def test_without_a_lookup_a_name_is_a_problem() -> None:
    with pytest.raises(InvalidConfigError, match="names are not looked up here"):
        parse_config(FILE, "f")


def test_all_names_of_a_file_are_looked_up_together_and_once() -> None:
    asked: list[Collection[str]] = []

    def look_up(hosts: Collection[str]) -> Mapping[str, Named | str]:
        asked.append(hosts)
        return answers(db1=addresses("10.0.0.1"), db2=addresses("10.0.0.4"))(hosts)

    good = FILE.replace("10.0.0.2", "db2.example")
    parse_config(good + "      c: {address: db1.example, port: 81}\n", "f", look_up)
    assert asked == [["db1.example", "db2.example"]]
    lines(good.replace("port: 80", "prot: 80"), look_up)  # read many times, to tell all that is wrong
    assert asked[1:] == [["db1.example", "db2.example"]]


def test_two_names_of_one_address_are_a_duplicate() -> None:
    text = FILE.replace("10.0.0.2", "db2.example")
    (line,) = lines(text, answers(db1=addresses("10.0.0.1"), db2=addresses("10.0.0.1")))
    assert line == (
        "f:8:20: virtual_servers.web.real_servers.b.address: 10.0.0.1:80 (db2.example) is a duplicate of real server "
        "'a': remove one of them"
    )


def test_a_name_of_the_vip_is_refused() -> None:
    (line,) = lines(FILE, answers(db1=addresses("192.0.2.10")))
    assert line == f"{AT}: 192.0.2.10 (db1.example) is the VIP itself: give the real server's own address"


BOTH = addresses("2001:db8::5", "10.0.0.9", "10.0.0.10")


@pytest.mark.parametrize(
    ("vip", "forward", "answer", "used"),
    [
        ("192.0.2.10", "nat", BOTH, "10.0.0.9"),
        ('"2001:db8::10"', "nat", BOTH, "2001:db8::5"),
        ("192.0.2.10", "tun", BOTH, "10.0.0.9"),
        ('"2001:db8::10"', "tun", addresses("10.0.0.9"), "10.0.0.9"),
        ("192.0.2.10", "tun", addresses("2001:db8::5"), "2001:db8::5"),
    ],
)
def test_the_address_is_of_the_virtual_servers_ip_version_where_there_is_one(
    vip: str, forward: str, answer: tuple[IPAddress, ...], used: str
) -> None:
    text = FILE.replace("192.0.2.10", vip).replace("nat", forward).replace("      b: {address: 10.0.0.2}\n", "")
    (real,) = parse_config(text, "f", answers(db1=answer)).virtual_servers[0].real_servers
    assert str(real.address) == used


def test_a_name_without_an_address_of_the_right_ip_version_is_told() -> None:
    (line,) = lines(FILE, answers(db1=addresses("2001:db8::5")))
    assert line.startswith(f"{AT}: 2001:db8::5 (db1.example) is IPv6 and the virtual server's address is IPv4")


V4, V6 = (
    st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"]).map(IPv4Address),
    st.sampled_from(["2001:db8::1", "2001:db8::2"]).map(IPv6Address),
)
ANSWERS = st.one_of(st.just("no answer in time"), st.lists(st.one_of(V4, V6), max_size=4).map(tuple))


@example([addresses("2001:db8::2"), addresses("10.0.0.1"), addresses("2001:db8::1", "2001:db8::2")], 6, True)
@given(st.lists(ANSWERS, max_size=12), st.sampled_from([4, 6]), st.booleans())
def test_who_has_had_an_address_always_has_one(said: list[Answer], version: int, other: bool) -> None:
    named, used, last_own = Named("a"), None, None
    for answer in said:
        named = named.after(answer)
        now = named.address(version, other=other)
        assert used is None or now is not None
        if not isinstance(answer, str) and answer:
            own = [each for each in answer if each.version == version]
            if used in answer and (used in own or (other and not own)):
                assert now == used, "what the name still has is stayed with"
            elif own:
                assert now == (last_own if last_own in own else min(own, key=int))
                last_own = now
            elif other:
                assert now in answer
            elif used is not None and used.version == version:
                assert now == used, "another IP version is no better than the last address"
            assert bool(now is not None and named.trouble(now)) == (now not in answer)
            last_own = now if now in own else last_own
        else:
            assert now == used
            assert named.why
        used = now


@given(st.lists(ANSWERS, max_size=6), st.lists(ANSWERS, max_size=6))
def test_the_last_answer_alone_decides_what_is_known_but_for_what_was_in_use(
    one: list[Answer], other: list[Answer]
) -> None:
    found = addresses("10.0.0.3", "10.0.0.1", "2001:db8::2")
    for said in (one, other):
        named = Named("a")
        for answer in said:
            named = named.after(answer)
        assert sorted(map(str, named.after(found).addresses)) == sorted(map(str, found))
        assert named.after(found).kept == ()


def test_a_flood_of_addresses_is_bounded_and_keeps_the_one_in_use() -> None:
    flood = tuple(IPv4Address(0x0A000000 + number) for number in range(1, 5000))
    named = Named("a", (flood[-1],)).after(flood)
    assert len(named.addresses) == MOST_ADDRESSES
    assert named.address(4, other=False) == flood[-1]


def test_the_address_in_force_counts_more_than_what_was_known() -> None:
    named = Named("a", addresses("10.0.0.1")).after(addresses("10.0.0.1", "10.0.0.2"), used=addresses("10.0.0.2"))
    assert str(named.address(4, other=False)) == "10.0.0.2"


def test_who_moves_and_who_stays_for_want_of_an_answer() -> None:
    config = parse_config(FILE, "f", answers(db1=addresses("10.0.0.1")))
    virtual = config.virtual_servers[0]
    (real,) = (real for real in virtual.real_servers if real.host)
    ref = ServerRef("web", "a")
    named = Named("db1.example").after(addresses("10.0.0.1"))

    def seen(after: Named) -> tuple[tuple[Move, ...], tuple[Trouble, ...], str]:
        known = {"db1.example": after}
        return moves(config, known), troubles(config, known), told_resolution(virtual, real, after)

    assert seen(named) == ((), (), "db1.example has 10.0.0.1")
    assert seen(named.after("timed out")) == (
        (),
        (Trouble(ref, "db1.example", real.address, "timed out"),),
        "db1.example is not resolved, and its last address is kept: timed out",
    )
    assert seen(named.after(addresses("2001:db8::5")))[1] == (
        Trouble(ref, "db1.example", real.address, "its last answer has no IPv4 address"),
    )
    assert seen(named.after(addresses("10.0.0.5"))) == (
        (Move(ref, "db1.example", real.address, ip_address("10.0.0.5")),),
        (),
        "db1.example has 10.0.0.5 now, which is not taken over yet",
    )


def test_many_troubles_of_one_reason_are_one_sentence() -> None:
    found = [
        Trouble(ServerRef("web", f"r{number}"), "h", ip_address("10.0.0.1"), "timed out") for number in range(1000)
    ]
    (sentence,) = trouble_sentences(found)
    assert sentence.startswith("name not resolved, the last address is kept: web/r0 10.0.0.1 (h), web/r1")
    assert sentence.endswith(f" and {1000 - MOST_NAMED} more: timed out")
