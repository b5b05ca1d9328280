"""How durations are read and written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from director.kit.duration import LONGEST_S, Duration, format_duration, parse_duration

pytestmark = pytest.mark.unit

DURATION: TypeAdapter[float] = TypeAdapter(Duration)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1ms", 0.001),
        ("500ms", 0.5),
        ("2s", 2),
        ("1.5s", 1.5),
        ("5m", 300),
        ("0.5h", 1800),
        ("31d", LONGEST_S),
        ("0s", 0),
    ],
)
def test_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds, abs=0)


NONE = "is not a duration: write a number and ms, s, m, h or d, for example 2s"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, "5 has no unit: write 5s, 5ms or 5m"),
        (1.5, "1.5 has no unit: write 1.5s, 1.5ms or 1.5m"),
        (-5, "-5 is negative: write a duration such as 2s"),
        ("5", f"'5' {NONE}"),
        ("-5s", f"'-5s' {NONE}"),
        ("2 s", f"'2 s' {NONE}"),
        ("2S", f"'2S' {NONE}"),
        ("2s\n", f"'2s\\n' {NONE}"),
        ("\u0662s", f"'\u0662s' {NONE}"),
        (".5s", f"'.5s' {NONE}"),
        ("1e3s", f"'1e3s' {NONE}"),
        ("1m30s", f"'1m30s' {NONE}"),
        ("", f"'' {NONE}"),
        (True, f"True {NONE}"),
        (None, f"None {NONE}"),
        ([], f"[] {NONE}"),
        ("31.001d", "'31.001d' is too long: use at most 31d"),
        ("9" * 400 + "s", f"'{'9' * 400}s' is too long: use at most 31d"),
    ],
)
def test_what_is_no_duration_is_refused(value: object, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 -- compared whole below
        parse_duration(value)
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["0s", "0.9ms", "0.0000001s"])
def test_duration_of_a_key_is_at_least_a_millisecond(text: str) -> None:
    with pytest.raises(ValidationError, match="is too short: use at least 1ms"):
        DURATION.validate_python(text)
    assert DURATION.validate_python("1ms") == 0.001


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (0.0015, "1.5ms"),
        (0.1, "100ms"),
        (0.25, "250ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (90, "90s"),
        (300, "5m"),
        (3600, "1h"),
        (86400, "1d"),
        (LONGEST_S, "31d"),
        (1234.5678, "1234.5678s"),
        (2678399.999, "2678399.999s"),
    ],
)
def test_duration_is_written_short_and_exact(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(1, int(LONGEST_S * 1000)))
def test_what_is_written_reads_the_same(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000, rel=1e-12)
