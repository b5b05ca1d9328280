"""The drawings are those of their data, can be read by programs that read aloud, and bring nothing along."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from docs.tools.diagrams import FOLDER, drawings, in_words
from docs.tools.walks import WALKS, configuration
from tests.docs.pages import ROOT, blocks

pytestmark = pytest.mark.unit


def test_the_drawings_are_current() -> None:
    there = {path.name: path.read_text() for path in FOLDER.glob("*.svg")}
    assert there == drawings(), "python -m docs.tools.diagrams mends this"


@pytest.mark.parametrize("name", drawings())
def test_a_drawing_stands_for_itself(name: str) -> None:
    svg = drawings()[name]
    root = ElementTree.fromstring(svg)  # noqa: S314 -- our own
    said = {child.tag.rpartition("}")[2]: child.text or "" for child in root}
    assert said["title"]
    assert said["desc"]
    assert "prefers-color-scheme:dark" in svg
    assert re.findall(r"@font-face|@import|href|<script", svg) == []


@pytest.mark.parametrize("name", drawings())
def test_words_stay_within_the_drawing(name: str) -> None:
    """By the width of a wide letter: fonts differ."""
    root = ElementTree.fromstring(drawings()[name])  # noqa: S314 -- our own
    width = float(root.attrib["width"])
    for text in root.iter("{http://www.w3.org/2000/svg}text"):
        share = 0.62 if "mono" in text.attrib.get("class", "") else 0.56
        wide = len("".join(text.itertext())) * float(text.attrib["font-size"]) * share
        x = float(text.attrib["x"])
        left = x if text.attrib["text-anchor"] == "start" else x - wide / 2
        assert left >= 0, "".join(text.itertext())
        assert left + wide <= width, "".join(text.itertext())


@pytest.mark.parametrize("name", drawings())
def test_each_is_shown_with_its_words(name: str) -> None:
    """The text beside a picture is for who does not see it."""
    shown = [
        alt
        for page in (ROOT / "docs").rglob("*.md")
        for alt, file in re.findall(r"!\[([^\]]+)\]\([./]*diagrams/([\w.-]+)\)", page.read_text())
        if file == name
    ]
    assert shown
    assert all(len(alt) > 30 for alt in shown)


def test_the_page_has_the_configuration_that_the_lab_captures() -> None:
    assert configuration() in [block.text for block in blocks() if block.page == "docs/concepts.md"]


@pytest.mark.parametrize("walk", WALKS, ids=lambda walk: walk.forward)
def test_a_walk_goes_on_where_it_has_arrived(walk: object) -> None:
    found = next(each for each in WALKS if each is walk)
    senders = [hop.sender for hop in found.hops]
    assert senders == ["client", *[hop.receiver for hop in found.hops[:-1]]]
    assert found.hops[-1].receiver == "client"
    assert in_words(found).count(";") >= len(found.hops)
