"""What is written about l7proxy is what it does: tables hold all there is, and examples are taken."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from l7proxy.cli.main import EPILOG
from l7proxy.core.config import load_config
from l7proxy.core.head import HOP_BY_HOP, NEVER_NAMED
from l7proxy.core.logline import combined, json_lines
from l7proxy.core.metering import FAMILIES, Kind
from l7proxy.core.proxystatus import Cause
from l7proxy.core.retry import IDEMPOTENT
from l7proxy.descriptors import share_out
from tests.docs.pages import blocks_of
from tests.docs.shellwords import commands
from tests.l7proxy.test_logline import WALL_S, record
from tests.l7proxy.test_reference import LEAST, rows_of_the_reference

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "l7proxy.md"


def _section(heading: str) -> str:
    """A section's text, without those below it."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#)", PAGE.read_text() + "\n#", re.MULTILINE | re.DOTALL)
    assert found is not None, f"{PAGE.name} has no section {heading!r}"
    return found[1]


def _rows(heading: str) -> list[list[str]]:
    """The cells of all tables of a section; heads and rules are left out."""
    lines = [line for line in _section(heading).splitlines() if line.startswith("|")]
    rules = {at for at, line in enumerate(lines) if set(line) <= set("|- ")}
    kept = [line for at, line in enumerate(lines) if at not in rules and at + 1 not in rules]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in kept]


def _blocks(page: Path, language: str) -> list[str]:
    return [block.text for block in blocks_of(page.read_text(), page.name) if block.language == language]


def _names(text: str) -> list[str]:
    return re.findall(r"`([a-z_0-9]+)`", text)


# causes


def _said_nowhere() -> set[str]:
    """Causes that no module makes."""
    sources = [
        path.read_text()
        for path in (ROOT / "l7proxy").rglob("*.py")
        if path.name not in {"proxystatus.py", "_scan.pyx"}
    ]
    return {cause.label for cause in Cause if not any(f"Cause.{cause.name}" in source for source in sources)}


def test_every_cause_is_told_with_its_status_and_type() -> None:
    told = {row[0].strip("`"): (int(row[1]), row[2].strip("`")) for row in _rows("Causes")}
    assert told == {
        cause.label: (cause.status, cause.error.decode()) for cause in Cause if cause.label not in _said_nowhere()
    }


def test_every_cause_has_something_to_look_at() -> None:
    assert all(len(row) == 5 and row[3] and row[4] for row in _rows("Causes"))


def test_causes_that_are_never_said_are_called_that() -> None:
    names = r"((?:`[a-z_]+`(?:,\s+|\s+and\s+)?)+)"
    sentence = re.search(rf"{names}\s+are\s+names\s+that\s+this\s+version\s+never\s+says", _section("Causes"))
    assert sentence is not None
    assert set(_names(sentence[1])) == _said_nowhere()


def test_causes_and_keys_that_the_text_mentions_are_there() -> None:
    causes = {cause.label for cause in Cause}
    for status, label in re.findall(r"(\d{3}) `([a-z_]+)`", PAGE.read_text()):
        if label != "ok":
            assert label in causes, f"{label} is no cause"
            assert Cause[label.upper()].status == int(status)


# metrics and the access log


def test_every_metric_is_told_with_its_labels_and_kind() -> None:
    told = {row[0].strip("`"): (tuple(_names(row[1])), row[2]) for row in _rows("Metrics")}
    shown = {name + ("_total" if family.kind is Kind.COUNTER else ""): family for name, family in FAMILIES.items()}
    assert {name: labels for name, (labels, _) in told.items()} == {
        name: family.labels for name, family in shown.items()
    }
    for name, family in shown.items():
        for kind in (Kind.GAUGE, Kind.HISTOGRAM):
            assert told[name][1].startswith(kind.value) == (family.kind is kind), name


def test_metrics_that_the_text_mentions_are_there() -> None:
    shown = {name + ("_total" if family.kind is Kind.COUNTER else "") for name, family in FAMILIES.items()}
    assert set(re.findall(r"l7proxy_[a-z_]+", PAGE.read_text())) <= shown


def test_every_field_of_the_access_log_is_told() -> None:
    rows = _rows("The access log")
    in_json = [name for row in rows for name in _names(row[0])]
    assert set(in_json) == set(json.loads(json_lines([record(request_id=b"1", user="ann")], WALL_S)))
    assert len(in_json) == len(set(in_json))
    behind = set(
        re.findall(r"([a-z_]+)=", combined([record(request=(b"GET", b"a", b"/"), request_id=b"1")], WALL_S).decode())
    )
    assert {name for row in rows for name in _names(row[1])} == behind


def test_lines_of_the_access_log_look_as_shown() -> None:
    """The example's numbers are its own; what stands between them is not."""
    apache, as_json = [line for line in _section("The access log").splitlines() if line.startswith(('{"', "192.0.2.7"))]
    request = (b"GET", b"shop.example.org", b"/cart?id=7")
    real = record(
        client="192.0.2.7", request=request, status=502, place=("shop", "shop", "a"), cause=Cause.CONNECTION_REFUSED,
        headers=(None, b"curl/8.5.0"),
    )  # fmt: skip

    def without_numbers(line: str) -> str:
        line = re.sub(r"\[.*?\]|\d{4}-[^\"]*Z|https?", "", line)
        return re.sub(r"(in=|\" 502 |bytes_...?\":)\d+|\d+\.\d\b(?!\.)", r"\1", line)

    assert without_numbers(apache) == without_numbers(combined([real], WALL_S).decode().rstrip("\n"))
    assert without_numbers(as_json) == without_numbers(json_lines([real], WALL_S).decode().rstrip("\n"))


# headers, limits, defaults


def test_every_header_of_a_connection_is_told() -> None:
    removed = next(row[1] for row in _rows("Headers") if row[0] == "removed")
    told = {name.strip().lower() for name in removed.replace("Connection and what it names", "Connection").split(",")}
    assert told == {name.decode() for name in HOP_BY_HOP}


def test_every_header_that_connection_may_not_name_is_told() -> None:
    sentence = re.search(r"Connection header that names (.*?)\.", _section("A request"), re.DOTALL)
    assert sentence is not None
    assert {each.lower() for each in re.split(r",\s+|\s+or\s+", sentence[1])} == {name.decode() for name in NEVER_NAMED}


def test_methods_that_are_repeated_are_told() -> None:
    sentence = re.search(r"Repeated are (.*?), with", _section("Attempts"), re.DOTALL)
    assert sentence is not None
    assert set(re.split(r",\s+|\s+and\s+", sentence[1])) == {method.decode() for method in IDEMPOTENT}


def test_defaults_are_those_of_the_reference() -> None:
    reference = rows_of_the_reference()
    sections = {"limits": "limits", "timeouts": "client timeouts", "upstreams": "upstream timeouts"}
    told = {}
    for row in _rows("Limits and timeouts"):
        for key, default in zip(re.findall(r"`([a-zA-Z_.]+)`", row[0]), row[1].split(","), strict=True):
            told[key] = default.strip().replace("60s", "1m")
    assert told == {
        f"{prefix}.{'NAME.timeouts.' if prefix == 'upstreams' else ''}{key}": cells[1].strip("`")
        for prefix, section in sections.items()
        for (of, key), cells in reference.items()
        if of == section
    }


def test_shares_of_open_files_are_told() -> None:
    text = " ".join(_section("Limits and timeouts").split())
    assert f"1024 that is {share_out(1024).clients} clients" in text
    assert f"20,000 it is {share_out(20_000).clients:,}" in text


# signals


def test_every_signal_of_the_examples_is_one_that_the_command_line_tells() -> None:
    sent = [words for block in _blocks(PAGE, "sh") for words in commands(block) if words[0] == "kill"]
    assert sent
    assert {f"SIG{words[1].lstrip('-')}" for words in sent} <= set(re.findall(r"SIG\w+", EPILOG))


def test_the_least_file_is_one() -> None:
    assert load_config(LEAST, "f").workers == 1
