"""Cookies of sessions: what is believed, what is not, and what becomes of the lines around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7proxy.core import cookies
from l7proxy.core.lookup import Fields
from l7proxy.core.settings.stickiness import Attributes
from l7proxy.core.sticky import (
    EXPIRED,
    NO_TICKET,
    REFUSED,
    SKEW_S,
    Ticket,
    Tickets,
    made_private,
    set_cookie,
    with_value,
    without_prefix,
    without_set_cookie,
)

pytestmark = pytest.mark.unit

NOW = 1_790_000_000.0
KEY, OTHER = b"k" * 32, b"o" * 32
NAMES = ("a", "b", "web-1.x")


def tickets_of(
    keys: Sequence[bytes] = (), *, lasting: bool = True, upstream: str = "shop", names: Sequence[str] = NAMES
) -> Tickets:
    return Tickets(upstream, names, keys, False, 1800.0 if lasting else None, 28800.0 if lasting else None)


# what a value says


@pytest.mark.parametrize("keys", [(), (KEY,)], ids=["hashed", "signed"])
@pytest.mark.parametrize("lasting", [False, True], ids=["for ever", "timed"])
def test_what_was_made_is_read_by_every_proxy(keys: tuple[bytes, ...], lasting: bool) -> None:
    one, other = (tickets_of(keys, lasting=lasting) for _ in range(2))
    for name in NAMES:
        value = one.value(name, NOW)
        assert other.read(value, NOW).name == name
        assert len(name) < 3 or name.encode() not in value
        assert not value.strip(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-:")
    assert len({one.value(name, NOW) for name in NAMES}) == len(NAMES)


def test_plain_names_are_the_names() -> None:
    tickets = Tickets("shop", NAMES, plain_names=True)
    assert tickets.value("web-1.x") == b"web-1.x"
    assert tickets.read(b"web-1.x", NOW) == Ticket("web-1.x")


def test_a_cookie_of_another_upstream_is_none() -> None:
    assert Tickets("shop", NAMES).read(Tickets("cart", NAMES).value("a"), NOW) is REFUSED
    assert Tickets("shop", NAMES, [KEY]).read(Tickets("cart", NAMES, [KEY]).value("a"), NOW) is REFUSED


def test_a_cookie_of_a_backend_that_is_gone_is_none() -> None:
    assert Tickets("shop", ["b"]).read(Tickets("shop", ["a"]).value("a"), NOW) is REFUSED


def test_without_the_key_nothing_is_made() -> None:
    signed = tickets_of([KEY])
    for forger in (tickets_of(), tickets_of([OTHER])):
        assert signed.read(forger.value("a", NOW), NOW) is REFUSED
    first, second = signed.value("a", NOW - 1), signed.value("b", NOW)
    mixed = b":".join((*second.split(b":")[:3], first.split(b":")[3]))
    assert signed.read(mixed, NOW) is REFUSED
    assert signed.read(first[: first.index(b":")], NOW) is EXPIRED, "who takes the times off gains nothing"


@given(st.binary(max_size=80), st.booleans(), st.booleans())
def test_whatever_comes_is_a_ticket_or_none(value: bytes, is_signed: bool, is_timed: bool) -> None:
    tickets = tickets_of([KEY] if is_signed else [], lasting=is_timed)
    assert tickets.read(value, NOW) is REFUSED


@given(st.data(), st.sampled_from([(), (KEY,)]))
def test_one_byte_more_less_or_other_is_no_ticket_or_the_same_backends(
    data: st.DataObject, keys: tuple[bytes, ...]
) -> None:
    tickets = tickets_of(keys)
    value = tickets.value("a", NOW)
    at = data.draw(st.integers(0, len(value)))
    new = value[:at] + data.draw(st.binary(max_size=1)) + value[at + data.draw(st.integers(0, 1)) :]
    read = tickets.read(new, NOW)
    if keys:
        assert new == value or not read.name
    assert read.name in {"a", ""}


@pytest.mark.parametrize("times", [b"", b":", b"::", b":1", b":1:", b":g:1", b":-1:1", b":1:1:1:1", b":1:99999999999"])
def test_times_are_to_the_letter(times: bytes) -> None:
    tickets = tickets_of()
    read = tickets.read(tickets.ids["a"] + times, NOW)
    assert read.name == ("a" if not times else "")


def test_a_key_is_replaced_without_losing_sessions() -> None:
    before, both, after = (tickets_of(keys) for keys in ([KEY], [OTHER, KEY], [OTHER]))
    assert both.read(before.value("a", NOW), NOW).name == "a"
    assert after.read(both.value("a", NOW), NOW).name == "a"
    assert after.read(before.value("a", NOW), NOW) is REFUSED


def test_a_session_ends_when_it_was_not_used() -> None:
    tickets = Tickets("shop", NAMES, maxidle_s=1800)
    value = tickets.value("a", NOW)
    assert tickets.read(value, NOW + 1800).name == "a"
    assert tickets.read(value, NOW + 1801) is EXPIRED


def test_a_session_ends_when_it_is_old_however_much_it_was_used() -> None:
    tickets = Tickets("shop", NAMES, maxlife_s=3600)
    value = tickets.value("a", NOW + 3500, first_at=NOW)
    assert tickets.read(value, NOW + 3600).name == "a"
    assert tickets.read(value, NOW + 3601) is EXPIRED


def test_clocks_may_differ_and_the_future_is_not_believed() -> None:
    tickets = Tickets("shop", NAMES, maxidle_s=1800)
    assert tickets.read(tickets.value("a", NOW + SKEW_S), NOW).name == "a"
    assert tickets.read(tickets.value("a", NOW + SKEW_S + 1), NOW) is REFUSED
    assert tickets.read(tickets.value("a", NOW, first_at=NOW + 1), NOW) is REFUSED


def test_a_client_is_told_anew_when_it_is_due_and_not_before() -> None:
    tickets = Tickets("shop", NAMES, maxidle_s=1800)
    ticket = tickets.read(tickets.value("a", NOW), NOW)
    assert [tickets.is_due(ticket, NOW + age) for age in (0, 449, 451)] == [False, False, True]
    for_ever = Tickets("shop", NAMES)
    assert not for_ever.is_due(for_ever.read(for_ever.value("a"), NOW), NOW)
    only_life = Tickets("shop", NAMES, maxlife_s=1800)
    assert not only_life.is_due(only_life.read(only_life.value("a", NOW), NOW), NOW + 1000)


def test_a_cookie_from_before_times_were_asked_for_gets_them() -> None:
    tickets = tickets_of()
    ticket = tickets.read(Tickets("shop", NAMES).value("a"), NOW)
    assert ticket.name == "a"
    assert tickets.is_due(ticket, NOW)


def test_what_is_remembered_ends_too() -> None:
    tickets = Tickets("shop", NAMES, [KEY], maxidle_s=60)
    value = tickets.value("a", NOW)
    assert [tickets.read(value, NOW + age).name for age in (0, 60, 61, 0)] == ["a", "a", "", "a"]
    assert NO_TICKET.name == ""


# request lines

LINES = [
    (b"Cookie: SRV=x\r\n", b"x", b""),
    (b"Host: a\r\nCookie: SRV=x\r\nA: b\r\n", b"x", b"Host: a\r\nA: b\r\n"),
    (b"cookie:SRV=x; a=1\r\n", b"x", b"cookie:a=1\r\n"),
    (b"COOKIE: a=1; SRV=x\r\n", b"x", b"COOKIE: a=1\r\n"),
    (b"Cookie: a=1;SRV=x ;b=2\r\n", b"x", b"Cookie: a=1;b=2\r\n"),
    (b"Cookie: a=1; SRV=x;\r\n", b"x", b"Cookie: a=1\r\n"),
    (b"Cookie: SRV=x; SRV=y; a=1; SRV=z\r\n", b"x", b"Cookie: a=1\r\n"),
    (b"Cookie: a=1\r\nCookie: SRV=x\r\nCookie: SRV=y; b=2\r\n", b"x", b"Cookie: a=1\r\nCookie: b=2\r\n"),
    (b"Cookie: SRV=\r\n", b"", b""),
    (b"Cookie: XSRV=1; SRVX=2; a=SRV=3\r\n", None, None),
    (b"X-Cookie: SRV=x\r\nReferer: http://a/?SRV=x\r\nA: ; SRV=x\r\n", None, None),
    (b"Cookie2: SRV=x\r\n", None, None),
    (b"", None, None),
    (b"Referer: http://a/?SRV=1\r\nCookie: XSRV=3; SRV=x\r\n", b"x", b"Referer: http://a/?SRV=1\r\nCookie: XSRV=3\r\n"),
]


@dataclass(frozen=True)
class Code:
    """One of the two that must do the same."""

    find_cookie: Callable[[bytes, bytes], int]
    cookie_value: Callable[[bytes, bytes, int], bytes]
    without_cookie: Callable[[bytes, bytes], bytes]
    find_set_cookie: Callable[[bytes, bytes], int]


PLAIN = Code(
    cookies.plain_find_cookie, cookies.plain_cookie_value, cookies.plain_without_cookie, cookies.plain_find_set_cookie
)
USED = Code(cookies.find_cookie, cookies.cookie_value, cookies.without_cookie, cookies.find_set_cookie)
BOTH = pytest.mark.parametrize("code", [PLAIN, USED], ids=["python", "as it runs"])


@BOTH
@pytest.mark.parametrize(("fields", "value", "without"), LINES)
def test_our_cookie_is_found_and_nothing_else_goes_with_it(
    code: Code, fields: bytes, value: bytes | None, without: bytes | None
) -> None:
    at = code.find_cookie(fields, b"SRV=")
    assert (code.cookie_value(fields, b"SRV=", at) if at >= 0 else None) == value
    assert code.without_cookie(fields, b"SRV=") == (fields if without is None else without)


PIECES = st.lists(
    st.sampled_from(
        [
            b"\r\n",
            b"Cookie:",
            b"SET-cookie:",
            b"S=",
            b"S=1",
            b";",
            b" ",
            b"\t",
            b"a",
            b"x=2",
            b"\r",
            b"\n",
            b":",
            b"SS=",
        ]
    ),
    max_size=14,
)


@given(PIECES)
def test_what_is_compiled_does_the_same(pieces: list[bytes]) -> None:
    fields = b"".join(pieces) + b"\r\n"
    at = PLAIN.find_cookie(fields, b"S=")
    assert USED.find_cookie(fields, b"S=") == at
    assert USED.find_set_cookie(fields, b"S=") == PLAIN.find_set_cookie(fields, b"S=")
    assert USED.without_cookie(fields, b"S=") == PLAIN.without_cookie(fields, b"S=")
    if at >= 0:
        assert USED.cookie_value(fields, b"S=", at) == PLAIN.cookie_value(fields, b"S=", at)


COOKIES = st.lists(
    st.tuples(
        st.sampled_from([b"SRV", b"a", b"XSRV", b"SRV2", b"b"]),
        st.text('abcSRV="~: ', max_size=6).map(lambda text: text.strip().encode()),
    ),
    max_size=5,
)


@BOTH
@given(st.lists(COOKIES, max_size=3), st.sampled_from([b"; ", b";", b" ; "]))
def test_it_agrees_with_who_reads_all_cookies(
    code: Code, lines: list[list[tuple[bytes, bytes]]], between: bytes
) -> None:
    fields = b"Host: a\r\n" + b"".join(
        b"Cookie: %b\r\n" % between.join(b"%b=%b" % each for each in line) for line in lines
    )
    at = code.find_cookie(fields, b"SRV=")
    assert (code.cookie_value(fields, b"SRV=", at) if at >= 0 else None) == Fields(fields).cookie(b"SRV")
    others = [each for each in Fields(fields).cookies if each[0] != b"SRV"]
    assert Fields(code.without_cookie(fields, b"SRV=")).cookies == others


def test_only_prefixes_of_ours_are_taken_off() -> None:
    fields = b"Cookie: S=AAAA~x~y; S=a~b; S=c; S=AA!A~d; S=CCCC~\r\n"
    assert without_prefix(fields, b"S=", [b"AAAA", b"BBBB"]) == b"Cookie: S=x~y; S=a~b; S=c; S=AA!A~d; S=\r\n"


# answers' lines


def test_a_cookie_says_of_itself_what_it_should() -> None:
    assert set_cookie("S", b"x", Attributes(), False) == b"Set-Cookie: S=x; Path=/; HttpOnly\r\n"
    assert set_cookie("S", b"x", Attributes(), True) == b"Set-Cookie: S=x; Path=/; Secure; HttpOnly\r\n"
    assert set_cookie("S", b"x", Attributes("a.org", "/b", False, False, "None"), True) == (
        b"Set-Cookie: S=x; Path=/b; Domain=a.org; SameSite=None\r\n"
    )
    assert b"; Secure" in set_cookie("S", b"x", Attributes(secure=True), False)


ANSWER = b"Server: x\r\nset-cookie: S=1; Path=/\r\nSet-Cookie: XS=2\r\nX-A: S=3\r\nSet-Cookie:S=4\r\n"


@BOTH
def test_cookies_of_that_name_are_taken_out_of_an_answer(code: Code) -> None:
    assert without_set_cookie(ANSWER, b"S=") == b"Server: x\r\nSet-Cookie: XS=2\r\nX-A: S=3\r\n"
    assert code.find_set_cookie(b"Set-Cookie: T=1; S=2\r\n", b"S=") == -1


def test_values_are_replaced_or_extended() -> None:
    assert with_value(ANSWER, b"S=", b"id", False) == ANSWER.replace(b" S=1", b" S=id").replace(b":S=4", b":S=id")
    assert with_value(ANSWER, b"S=", b"id", True) == ANSWER.replace(b" S=1", b" S=id~1").replace(b":S=4", b":S=id~4")


@pytest.mark.parametrize("line", [b"Set-Cookie: S=; Max-Age=0\r\n", b'Set-Cookie: S=""\r\n', b"Set-Cookie: S=\r\n"])
def test_the_end_of_a_cookie_stays_one(line: bytes) -> None:
    assert with_value(line, b"S=", b"id", True) == with_value(line, b"S=", b"id", False) == line


@pytest.mark.parametrize(
    ("said", "then"),
    [
        (b"", b"Cache-Control: private\r\n"),
        (
            b"cache-control: PUBLIC, max-age=60, s-maxage=9\r\nA: b\r\n",
            b"A: b\r\nCache-Control: max-age=60, private\r\n",
        ),
        (b"Cache-Control: max-age=1\r\nCache-Control: public\r\n", b"Cache-Control: max-age=1, private\r\n"),
        (b"Cache-Control: no-cache\r\n", b"Cache-Control: no-cache, private\r\n"),
        (b'Cache-Control: private="set-cookie"\r\n', b'Cache-Control: private="set-cookie", private\r\n'),
        (b"Cache-Control: Private\r\n", b"Cache-Control: Private\r\n"),
        (b"Cache-Control: max-age=0,no-store\r\n", b"Cache-Control: max-age=0,no-store\r\n"),
    ],
)
def test_no_shared_cache_keeps_ones_cookie(said: bytes, then: bytes) -> None:
    assert made_private(said) == then
