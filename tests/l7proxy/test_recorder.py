"""The flight recorder: what it keeps, that it is bounded, and that no secret leaves it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7proxy.core.flight import LONGEST_HEAD_BYTES, Flight, Try, told
from l7proxy.core.redaction import HIDDEN, LONGEST_UNKNOWN, header_lines, target, without_secrets
from l7proxy.flightrecorder import FlightRecorder

pytestmark = pytest.mark.unit

FLIGHT = Flight(
    10.0,
    10.001,
    10.002,
    0.0,
    10.5,
    "192.0.2.7",
    "https",
    b"GET",
    b"/a?token=s3cret",
    b"shop.example.org",
    b"Cookie: sid=s3cret\r\nX-Tier: gold\r\n",
    "all",
    "up",
    "b",
    (Try("a", "connection_refused", "connection refused", 10.25),),
    502,
    "connection_terminated",
    "connection closed before an answer",
    3,
    0,
)
TOKEN = "kJ8s0Zq4XbT2mN6vRw1yLp3c"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln"
SECRETS = [
    (f"Authorization: Bearer {TOKEN}", f"Authorization: Bearer {HIDDEN}"),
    (f"authorization: {TOKEN}", f"authorization: {HIDDEN}"),
    (f"Proxy-Authorization: Basic {TOKEN}", f"Proxy-Authorization: Basic {HIDDEN}"),
    (f"Cookie: a={TOKEN}; b={TOKEN}", f"Cookie: a={HIDDEN}; b={HIDDEN}"),
    (f"Cookie: {TOKEN}", f"Cookie: {HIDDEN}"),
    (f"Set-Cookie: a={TOKEN}; Path=/{TOKEN}", f"Set-Cookie: a={HIDDEN}; Path={HIDDEN}"),
    (f"X-Api-Key: {TOKEN}", f"X-Api-Key: {HIDDEN}"),
    (f"X-Auth-Token: {TOKEN}", f"X-Auth-Token: {HIDDEN}"),
    (f"X-Amz-Security-Token: {TOKEN}", f"X-Amz-Security-Token: {HIDDEN}"),
    (f"X-Custom: {JWT}", f"X-Custom: {HIDDEN}"),
    (f"Referer: https://a/b?code={TOKEN}&page=2", f"Referer: https://a/b?code={HIDDEN}&page=2"),
]
TARGETS = [
    (f"/a?access_token={TOKEN}", f"/a?access_token={HIDDEN}"),
    (f"/a?x={TOKEN}&page=2", f"/a?x={HIDDEN}&page=2"),
    (f"/a?{TOKEN}", f"/a?{HIDDEN}"),
    (f"/login/{JWT}/x", f"/login/{HIDDEN}/x"),
    ("/a?password=x", f"/a?password={HIDDEN}"),
    ("http://ann:pw@a/b", f"http://{HIDDEN}@a/b"),
    ("/plain?page=2&sort=name&when=2026-11-23T01:00:00Z", "/plain?page=2&sort=name&when=2026-11-23T01:00:00Z"),
]
FILE = {
    "upstreams": {"db": {"check": {"type": "redis", "password": TOKEN}}},
    "routes": [
        {
            "access": {"basic": {"users": {"ann": "$2b$12$abc"}, "file": "/etc/l7proxy/users"}},
            "headers": {"request": {"set": {"Authorization": f"Bearer {TOKEN}", "X-Tier": "gold"}}},
            "match": {"header": {"X-Api-Key": TOKEN}, "path": "/v1"},
        },
        {"access": {"forward_auth": {"url": f"http://u:{TOKEN}@auth:9000/verify", "pass": ["X-User"]}}},
    ],
    "listeners": {"s": {"tls": {"certificate": "/a.pem", "key": "/a.key"}}},
}


@pytest.mark.parametrize(("line", "shown"), SECRETS)
def test_secrets_in_headers_are_not_shown(line: str, shown: str) -> None:
    assert header_lines(f"{line}\r\n".encode()) == [shown]


@pytest.mark.parametrize(("came", "shown"), TARGETS)
def test_secrets_in_targets_are_not_shown(came: str, shown: str) -> None:
    assert target(came) == shown


def test_what_is_no_secret_is_shown_and_what_nobody_knows_is_cut() -> None:
    lines = header_lines(
        b"User-Agent: " + b"m" * 100 + b"\r\nX-What: " + b"w" * 100 + b"\r\nTraceparent: 00-4b-0f-01\r\n"
    )
    assert lines == [
        "User-Agent: " + "m" * 100,
        "X-What: " + "w" * LONGEST_UNKNOWN + "... (100)",
        "Traceparent: 00-4b-0f-01",
    ]


def test_the_configuration_is_shown_without_its_secrets() -> None:
    shown = without_secrets(FILE)
    assert TOKEN not in repr(shown)
    assert "$2b$" not in repr(shown)
    assert isinstance(shown, dict)
    assert shown["routes"][0]["headers"]["request"]["set"] == {"Authorization": f"Bearer {HIDDEN}", "X-Tier": "gold"}
    assert shown["routes"][1]["access"]["forward_auth"] == {
        "url": f"http://{HIDDEN}@auth:9000/verify",
        "pass": ["X-User"],
    }
    assert shown["listeners"] == FILE["listeners"]


@given(st.binary(max_size=300))
def test_whatever_came_can_be_shown(raw: bytes) -> None:
    lines = [*header_lines(raw), target(raw.decode("latin-1"))]
    flight = told(replace(FLIGHT, method=raw, target=raw, host=raw, head=raw), 1, 2, 0.0)
    for line in [*lines[:-1], *flight["head"], flight["target"], flight["host"], flight["method"]]:
        assert line.isprintable()


def test_a_flight_is_told_with_its_tries_and_phases() -> None:
    shown = told(FLIGHT, 4, 99, 1000.0)
    assert shown["time"] == "1970-01-01T00:16:50.000Z"
    assert (shown["target"], shown["head"]) == (f"/a?token={HIDDEN}", [f"Cookie: sid={HIDDEN}", "X-Tier: gold"])
    assert (shown["queue_ms"], shown["connect_ms"], shown["first_byte_ms"], shown["total_ms"]) == (
        1.0,
        1.0,
        None,
        500.0,
    )
    assert shown["tries"] == [
        {"backend": "a", "cause": "connection_refused", "reason": "connection refused", "after_ms": 250.0}
    ]


def test_the_last_are_kept_and_those_of_clients_push_out_nothing_of_ours() -> None:
    recorder = FlightRecorder(most=4)
    recorder.add(replace(FLIGHT, reason="ours"))
    for number in range(20):
        recorder.add(replace(FLIGHT, status=404, reason=str(number)))
    for _ in range(5):
        recorder.add(replace(FLIGHT, status=501, cause="unknown_coding", reason="odd"))
    assert [flight["reason"] for flight in recorder.told(100)] == ["ours", "odd", "odd"]
    assert [flight["number"] for flight in recorder.told(2)] == [25, 26]
    assert recorder.told(0) == []


def test_bytes_are_bounded_as_well() -> None:
    recorder = FlightRecorder(most=1000, most_bytes=20_000)
    for _ in range(100):
        recorder.add(replace(FLIGHT, head=b"a" * LONGEST_HEAD_BYTES))
    assert 1 <= len(recorder.told(1000)) <= 5
