"""Log lines: parseable, and nothing that is logged can forge one."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.kit.logs import FieldFormatter, JournalFormatter, configure, is_journal, quote

pytestmark = pytest.mark.unit


def _line(message: str, *args: object, level: int = logging.INFO, **fields: object) -> str:
    record = logging.getLogger("director.test").makeRecord(
        "director.test", level, "f.py", 1, message, args, None, extra=fields
    )
    record.created, record.msecs = 1_769_860_800.123, 123.0
    return FieldFormatter().format(record)


def test_line_is_time_level_name_message_and_fields() -> None:
    assert _line("server is %s", "down", level=logging.WARNING, vs="web", rs="a", reason="connection refused", n=3) == (
        '2026-01-31T12:00:00.123Z WARNING director.test server is down vs=web rs=a reason="connection refused" n=3'
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("up", "up"),
        (3, "3"),
        (None, "None"),
        (1.5, "1.5"),
        ("", '""'),
        ("a b", '"a b"'),
        ('a"b', '"a\\"b"'),
        ("a=b", '"a=b"'),
        ("a\\b", "a\\b"),
        ("a\nb", '"a\\nb"'),
        ("\x1b[31m", '"\\u001b[31m"'),
        ("\x7f", '"\\u007f"'),
        ("\x9b", '"\\u009b"'),
        ("\u2028", '"\\u2028"'),
        ("\udc80", '"\\udc80"'),
        ("é", '"\\u00e9"'),
    ],
)
def test_value_is_quoted_where_it_must_be(value: object, text: str) -> None:
    assert quote(value) == text


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_quoted_value_is_one_printable_word_that_reads_back(text: str) -> None:
    quoted = quote(text)
    assert quoted.isascii()
    assert quoted.isprintable()
    assert (json.loads(quoted) if quoted.startswith('"') else quoted) == text


@given(st.text(alphabet=st.characters(exclude_categories=())), st.text(alphabet=st.characters(exclude_categories=())))
def test_no_message_or_field_breaks_a_line(message: str, value: str) -> None:
    line = _line("%s", message, field=value)
    assert line.isprintable()
    assert line.startswith("2026-01-31T12:00:00.123Z INFO director.test ")


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[pytest.CaptureFixture[str]]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    # What else listens must not be closed by `force`.
    root.handlers[:] = []
    yield capsys
    root.handlers[:] = handlers
    root.setLevel(level)


def test_all_logs_go_to_standard_error_from_the_level_on(stderr: pytest.CaptureFixture[str]) -> None:
    configure("WARNING")
    logging.getLogger("a").info("not this")
    logging.getLogger("a").warning("this", extra={"k": "v"})
    assert re.fullmatch(r"\S+Z WARNING a this k=v\n", stderr.readouterr().err)


def test_exception_stands_indented_below_its_line(stderr: pytest.CaptureFixture[str]) -> None:
    configure()
    try:
        raise ValueError("x\n2026-01-31T12:00:00.000Z INFO forged\x1b[2J")
    except ValueError:
        logging.getLogger("a").exception("failed", extra={"k": "v"}, stack_info=True)
    lines = stderr.readouterr().err.splitlines()
    assert re.fullmatch(r"\S+Z ERROR a failed k=v", lines[0])
    assert lines[1] == "  Traceback (most recent call last):"
    assert "  2026-01-31T12:00:00.000Z INFO forged\\x1b[2J" in lines
    assert "  Stack (most recent call last):" in lines
    assert all(line.startswith("  ") and line.isprintable() for line in lines[1:])


def test_each_line_for_the_journal_has_its_level() -> None:
    logger = logging.getLogger("a")
    levels = {}
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        record = logger.makeRecord("a", level, "f", 1, "m", (), None)
        levels[logging.getLevelName(level)] = JournalFormatter().format(record)[:3]
    assert levels == {"DEBUG": "<7>", "INFO": "<6>", "WARNING": "<4>", "ERROR": "<3>", "CRITICAL": "<2>"}
    try:
        raise ValueError("x")
    except ValueError as error:
        record = logger.makeRecord("a", logging.ERROR, "f", 1, "m", (), (ValueError, error, error.__traceback__))
    lines = JournalFormatter().format(record).split("\n")
    assert len(lines) > 3
    assert all(line.startswith("<3>") for line in lines)


def test_journal_is_known_by_the_stream_that_systemd_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "a").open("w") as stream:
        seen = os.fstat(stream.fileno())
        monkeypatch.delenv("JOURNAL_STREAM", raising=False)
        assert not is_journal(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{seen.st_dev}:{seen.st_ino}")
        assert is_journal(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{seen.st_dev}:{seen.st_ino + 1}")
        assert not is_journal(stream.fileno())
