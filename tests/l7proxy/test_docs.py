"""What is written about l7proxy is what it does: tables hold all there is, and examples are taken."""

from __future__ import annotations

import json
import re
import shlex
import textwrap
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import click
import pytest
import yaml
from click.testing import CliRunner

from l7proxy.admin.app import make_app
from l7proxy.cli.client import SOCKET
from l7proxy.cli.main import EPILOG, cli
from l7proxy.core.config import load_config
from l7proxy.core.head import HOP_BY_HOP, NEVER_NAMED
from l7proxy.core.logline import combined, json_lines
from l7proxy.core.metering import FAMILIES, Kind
from l7proxy.core.proxystatus import Cause
from l7proxy.core.retry import IDEMPOTENT
from l7proxy.descriptors import share_out
from tests.l7proxy.test_logline import WALL_S, record
from tests.l7proxy.test_reference import LEAST, rows_of_the_reference
from tests.wire.sealed import make_certificate

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "l7proxy.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


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
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for _, block in found]


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


# examples


def _is_about_l7proxy(block: str) -> bool:
    keys = set(yaml.safe_load(block))
    return bool(keys & {"listeners", "routes", "upstreams", "agent", "admin", "workers", "access_log"})


USERS = "ann:$2b$10$mWutT4xLQwnRwdmMwt0FweFCVkpJc/uzaAYeAZqbVU8BKmDAGCOVW\n"


def _examples() -> list[tuple[str, str]]:
    return [
        (page.name, block)
        for page in PAGES
        for block in _blocks(page, "yaml")
        if page == PAGE or (isinstance(yaml.safe_load(block), dict) and _is_about_l7proxy(block))
    ]


def test_there_are_examples() -> None:
    assert {name for name, _ in _examples()} >= {"README.md", "l7proxy.md"}


@pytest.mark.parametrize(("page", "block"), _examples())
def test_every_example_is_taken(page: str, block: str, tmp_path: Path) -> None:
    """A part of a file is put into the least one; certificates and folders that it names are made."""
    section = {**yaml.safe_load(LEAST), **yaml.safe_load(block)}
    text = block if {"listeners", "upstreams"} <= set(yaml.safe_load(block)) else yaml.safe_dump(section)
    if re.search("certificate:|ca:", text):
        certificate, key = make_certificate(tmp_path)
        text = re.sub(r"(ca: )\S+\.pem", rf"\1{certificate}", text)
        text = re.sub(r"(certificate: )\S+\.pem", rf"\1{certificate}", text)
        text = re.sub(r"(key: )\S+\.key", rf"\1{key}", text)
    if "folder:" in text:
        folder = tmp_path / "folder"
        folder.mkdir()
        make_certificate(folder, "shop", names="DNS:shop.example.org")
        text = re.sub(r"(folder: )/[^\s}]+", rf"\1{folder}", text)
    for name, held in (("key_file", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n"), ("basic: {file", USERS)):
        named = tmp_path / name.partition(":")[0]
        named.write_text(held)
        text = re.sub(rf"({re.escape(name)}: )/[^\s}}]+", rf"\1{named}", text)
    file = tmp_path / "l7proxy.yaml"
    file.write_text(text)
    result = CliRunner().invoke(cli, ["check", str(file)], catch_exceptions=False, standalone_mode=False)
    assert result.exception is None
    assert f"{file}: ok: " in result.output


def _commands() -> list[tuple[str, list[str]]]:
    """Lines of shell examples that have to do with l7proxy."""
    found = []
    for page in PAGES:
        for line in (line for block in _blocks(page, "sh") for line in block.splitlines()):
            words = shlex.split(line, comments=True)
            if words[:1] == ["l7proxy"] or (page == PAGE and words):
                found.append((page.name, words))
    return found


@pytest.mark.parametrize(("page", "words"), _commands())
def test_every_command_is_one(page: str, words: list[str]) -> None:
    match words:
        case ["l7proxy", name, *rest]:
            command = cli.commands[name]
            assert not command.hidden
            with click.Context(cli) as above:
                command.make_context(name, rest, parent=above)
        case ["curl", "-s", "--unix-socket", path, url]:
            example = next(each for block in _blocks(PAGE, "yaml") if "state" in (each := yaml.safe_load(block)))
            assert path == example["admin"]["socket"] == str(SOCKET)
            app = make_app(cast("Any", None), operations=lambda: cast("Any", None))
            assert urlsplit(url).path in {each.resource.canonical for each in app.router.routes() if each.resource}
        case ["curl", "-s", url]:
            example = next(each for block in _blocks(PAGE, "yaml") if "admin" in (each := yaml.safe_load(block)))
            assert urlsplit(url).netloc == example["admin"]["bind"]
            served = {each.resource.canonical for each in make_app(cast("Any", None)).router.routes() if each.resource}
            assert urlsplit(url).path in served
        case ["kill", number, _]:
            assert f"SIG{number.lstrip('-')} " in EPILOG
        case _:
            pytest.fail(f"{page}: nobody tries {shlex.join(words)}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", page.read_text()):
        file = page.parent / target if target else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor and file.suffix == ".md":
            heads = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-") for head in heads}
            assert anchor in anchors, f"{page.name} links to {target}#{anchor}"


def test_the_least_file_is_one() -> None:
    assert load_config(LEAST, "f").workers == 1
