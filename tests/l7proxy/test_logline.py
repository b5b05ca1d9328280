"""Lines of the access log: what they say, and that nothing of a request breaks one."""

from __future__ import annotations

import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7proxy.core.logline import Record, combined, json_lines, plain_combined
from l7proxy.core.proxystatus import Cause

pytestmark = pytest.mark.unit

WALL_S = 1_700_000_000.0


def record(
    *,
    times: tuple[float, float, float, float, float] = (10.0, 10.0001, 10.0003, 10.012, 10.0126),
    client: str = "192.0.2.1",
    request: tuple[bytes | None, bytes | None, bytes | None] = (b"GET", b"shop.example.org", b"/a?b=1"),
    status: int = 200,
    place: tuple[str | None, str | None, str | None] = ("shop", "web", "a"),
    cause: Cause | None = None,
    headers: tuple[bytes | None, bytes | None] = (None, b"curl/8.5"),
    request_id: bytes | None = None,
    user: str = "",
) -> Record:
    known = (*times, client, *request, b"1.1", "https", status, 12, 1024, *place, 1, cause, *headers)
    return (*known, request_id, user)


def test_combined_is_apaches_with_fields_behind() -> None:
    assert combined([record()], WALL_S).decode() == (
        '192.0.2.1 - - [14/Nov/2023:22:13:30 +0000] "GET /a?b=1 HTTP/1.1" 200 1024 "-" "curl/8.5" '
        'host="shop.example.org" scheme=https in=12 queue=0.1 connect=0.2 first_byte=11.7 total=12.6 '
        "route=shop upstream=web backend=a retries=1 cause=-\n"
    )


def test_request_id_stands_last_where_there_is_one() -> None:
    plain, marked = record(), record(request_id=b"a=1;b")
    assert combined([marked], WALL_S) == combined([plain], WALL_S)[:-1] + b" request_id=a=1;b\n"
    said = json.loads(json_lines([marked], WALL_S))
    assert said.pop("request_id") == "a=1;b"
    assert said == json.loads(json_lines([plain], WALL_S))


@pytest.mark.parametrize(
    ("user", "in_combined"),
    [
        ("ann", b"ann"),
        ("ann smith", b"ann\\x20smith"),
        ("-", b"\\x2d"),
        ('a" 200 [', b'a\\"\\x20200\\x20['),
        ("a\\x20b", b"a\\\\x20b"),
        ("J\u00fcrg\n", b"J\\xc3\\xbcrg\\n"),
    ],
)
def test_user_is_one_word_where_there_is_one(user: str, in_combined: bytes) -> None:
    plain, known = record(), record(user=user)
    assert combined([known], WALL_S) == combined([plain], WALL_S).replace(b" - - [", b" - %b [" % in_combined, 1)
    said = json.loads(json_lines([known], WALL_S))
    assert said.pop("user") == user
    assert said == json.loads(json_lines([plain], WALL_S))


def test_json_is_an_object_a_line() -> None:
    assert json.loads(json_lines([record()], WALL_S)) == {
        "time": "2023-11-14T22:13:30.000Z",
        "client": "192.0.2.1",
        "method": "GET",
        "scheme": "https",
        "host": "shop.example.org",
        "target": "/a?b=1",
        "version": "1.1",
        "status": 200,
        "bytes_in": 12,
        "bytes_out": 1024,
        "queue_ms": 0.1,
        "connect_ms": 0.2,
        "first_byte_ms": 11.7,
        "total_ms": 12.6,
        "route": "shop",
        "upstream": "web",
        "backend": "a",
        "retries": 1,
        "cause": None,
        "referer": None,
        "user_agent": "curl/8.5",
    }


NOTHING = record(
    times=(10.0, 0.0, 0.0, 0.0, 10.5),
    client="",
    request=(None, None, None),
    status=408,
    place=(None, None, None),
    cause=Cause.HEAD_TIMEOUT,
    headers=(None, None),
)


def test_what_is_not_known_is_a_dash_or_null() -> None:
    assert combined([NOTHING], WALL_S).decode() == (
        '- - - [14/Nov/2023:22:13:30 +0000] "- - HTTP/1.1" 408 1024 "-" "-" host="-" scheme=https in=12 '
        "queue=500.0 connect=0.0 first_byte=0.0 total=500.0 route=- upstream=- backend=- retries=1 cause=head_timeout\n"
    )
    said = json.loads(json_lines([NOTHING], WALL_S))
    assert [name for name, value in said.items() if value is None] == [
        "method",
        "host",
        "target",
        "route",
        "upstream",
        "backend",
        "referer",
        "user_agent",
    ]
    assert said["cause"] == "head_timeout"


@pytest.mark.parametrize(
    ("times", "phases"),
    [
        ((1.0, 0.0, 0.0, 0.0, 3.0), (2000, 0, 0)),
        ((1.0, 1.5, 0.0, 0.0, 3.0), (500, 1500, 0)),
        ((1.0, 1.5, 1.75, 0.0, 3.0), (500, 250, 1250)),
        ((1.0, 1.5, 1.75, 2.0, 3.0), (500, 250, 250)),
    ],
)
def test_a_phase_that_did_not_end_lasted_until_the_end(
    times: tuple[float, float, float, float, float], phases: tuple[int, int, int]
) -> None:
    said = json.loads(json_lines([record(times=times)], 0.0))
    assert (said["queue_ms"], said["connect_ms"], said["first_byte_ms"], said["total_ms"]) == (*phases, 2000)
    line = combined([record(times=times)], 0.0).decode()
    assert "queue={:.1f} connect={:.1f} first_byte={:.1f} total=2000.0 ".format(*phases) in line


@pytest.mark.parametrize(
    ("raw", "in_combined", "in_json"),
    [
        (b'a"b', b'a\\"b', b'a\\"b'),
        (b"a\\b", b"a\\\\b", b"a\\\\b"),
        (b"a\nb", b"a\\nb", b"a\\nb"),
        (b"a\tb", b"a\\tb", b"a\\tb"),
        (b"\x00\x1b\x7f", b"\\x00\\x1b\\x7f", b"\\u0000\\u001b\\u007f"),
        ("é€😀".encode(), b"\\xc3\\xa9\\xe2\\x82\\xac\\xf0\\x9f\\x98\\x80", b"\\u00e9\\u20ac\\ud83d\\ude00"),
        (b"\xff\xed\xa0\x80", b"\\xff\\xed\\xa0\\x80", b"\\\\xff\\\\xed\\\\xa0\\\\x80"),
    ],
)
@pytest.mark.parametrize("place", ["method", "host", "target", "referer", "agent"])
def test_octets_that_could_break_a_line_are_escaped(raw: bytes, in_combined: bytes, in_json: bytes, place: str) -> None:
    named: dict[str, bytes | None] = {"method": b"GET", "host": None, "target": None, "referer": None, "agent": None}
    named[place] = raw
    bad = record(request=(named["method"], named["host"], named["target"]), headers=(named["referer"], named["agent"]))
    assert in_combined in combined([record(), bad], WALL_S)
    assert b'"' + in_json + b'"' in json_lines([record(), bad], WALL_S)


OCTETS = st.none() | st.binary(max_size=12) | st.text(alphabet='a" \\\n\té', max_size=8).map(str.encode)
NAMES = st.none() | st.text(max_size=8)


QUOTED = rb'(?:[ !#-\[\]-~]|\\["\\ntr]|\\x[0-9a-f]{2})*'
LINE = re.compile(
    (
        rb'192\.0\.2\.1 - (?P<user>[!-~]+) \[[^]]+\] "(?P<request>%b) HTTP/1\.1" 200 1024 "%b" "(?P<agent>%b)" '
        rb'host="(?P<host>%b)" scheme=https in=12 queue=0\.1 connect=0\.2 first_byte=11\.7 total=12\.6 '
        rb'(?:(?:route|upstream|backend)=(?:[!#-<>-~]+|"(?:[ !#-\[\]-~]|\\.)*") ){3}retries=1 cause=[a-z_-]+'
        rb"(?: request_id=[!#-\[\]-~]+)?"
    ).replace(b"%b", QUOTED)
)
UNESCAPE = re.compile(rb"\\(?:x([0-9a-f]{2})|(.))")


def plain(match: re.Match[bytes]) -> bytes:
    if match[1]:
        return bytes([int(match[1], 16)])
    octet: bytes = match[2]
    return {b"n": b"\n", b"t": b"\t", b"r": b"\r"}.get(octet, octet)


def shown(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1").encode("unicode_escape").decode()


@given(
    st.lists(
        st.builds(
            record,
            request=st.tuples(OCTETS, OCTETS, OCTETS),
            place=st.tuples(NAMES, NAMES, NAMES),
            cause=st.none() | st.sampled_from(list(Cause)),
            headers=st.tuples(OCTETS, OCTETS),
            request_id=st.none() | st.from_regex(rb"\A[!#-\[\]-~]{1,9}\Z"),
            user=st.text(max_size=9),
        ),
        max_size=4,
    )
)
def test_each_record_is_one_line_with_its_fields_whatever_is_in_it(records: list[Record]) -> None:
    assert combined(records, WALL_S) == plain_combined(records, WALL_S)
    for text in (combined(records, WALL_S), json_lines(records, WALL_S)):
        assert text.isascii()
        assert not re.search(rb"[\x00-\x09\x0b-\x1f]", text)
        assert text.count(b"\n") == len(records)
    for line, one in zip(json_lines(records, WALL_S).splitlines(), records, strict=True):
        said = json.loads(line)
        for name, raw in (("method", one[6]), ("host", one[7]), ("target", one[8]), ("referer", one[19])):
            assert said[name] == (None if raw is None else shown(raw))
        assert (said["route"], said["status"]) == (one[14], 200)
    for line, one in zip(combined(records, WALL_S).splitlines(), records, strict=True):
        match = LINE.fullmatch(line)
        assert match is not None, line
        asked = b"%b %b" % (one[6] or b"-", one[8] or b"-")
        assert UNESCAPE.sub(plain, match["user"]) == (one[22].encode() or b"-")
        assert (match["user"] == b"-") is not bool(one[22])
        agent = b"-" if one[20] is None else one[20]
        for group, raw in (("request", asked), ("host", one[7] or b"-"), ("agent", agent)):
            assert UNESCAPE.sub(plain, match[group]) == raw


TIMES = st.floats(0, 1e9) | st.integers(0, 10**6).map(lambda ticks: ticks / 20_000) | st.just(0.0)


@given(st.tuples(TIMES, TIMES, TIMES, TIMES, TIMES), st.integers(-(2**40), 2**40))
def test_what_is_compiled_rounds_alike(times: tuple[float, float, float, float, float], status: int) -> None:
    one = record(times=times, status=status)
    assert combined([one], WALL_S) == plain_combined([one], WALL_S)


def test_seconds_pass_within_a_batch() -> None:
    batch = [record(times=(at, at, at, at, at)) for at in (0.9994, 1.0, 59.5, 60.0)]
    said = [json.loads(line)["time"] for line in json_lines(batch, WALL_S).splitlines()]
    assert [text[14:] for text in said] == ["13:20.999Z", "13:21.000Z", "14:19.500Z", "14:20.000Z"]
    assert [text[27:32] for text in combined(batch, WALL_S).decode().splitlines()] == [
        "22:13",
        "22:13",
        "22:14",
        "22:14",
    ]


@pytest.mark.parametrize("octet", [b"\xff", b'"', b"\\", b"\x01", b"\xe2\x82\xac"])
def test_no_header_makes_a_line_slow(octet: bytes) -> None:
    batch = [record(headers=(octet * 10_000, None))] * 10
    started_at = time.process_time()
    combined(batch, WALL_S)
    json_lines(batch, WALL_S)
    assert time.process_time() - started_at < 0.1
