"""The command line's reference is what the programs say, and is current."""

from __future__ import annotations

import re

import click
import pytest

from director.cli.root import cli as director
from docs.tools.cli_reference import FOLDER, page, pages
from l7proxy.cli.main import cli as l7proxy

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("name", ["cli-director.md", "cli-l7proxy.md"])
def test_the_reference_is_current(name: str) -> None:
    assert (FOLDER / name).read_text() == pages()[name], "make references mends this"


@pytest.mark.parametrize(("name", "root"), [("director", director), ("l7proxy", l7proxy)])
def test_every_command_and_option_is_there(name: str, root: click.Group) -> None:
    text = page(name, root)
    sections = dict(re.findall(r"^## (.*)\n((?:(?!## ).*\n?)*)", text, re.MULTILINE))
    above = click.Context(root)
    for each in root.list_commands(above):
        command = root.get_command(above, each)
        assert command is not None
        assert (f"{name} {each}" in sections) is not command.hidden
        for parameter in [] if command.hidden or isinstance(command, click.Group) else command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert parameter.opts[-1] in sections[f"{name} {each}"], (each, parameter.opts)


def test_words_are_shown_as_they_are() -> None:
    @click.command(epilog="\b\nA:\n  one <two>")
    @click.option("--much", help="A * b_c <d> | `e | f`")
    def it() -> None:
        """Says [this] and `that_`."""

    text = page("l7proxy", click.Group("l7proxy", commands={"it": it}))
    assert "Says \\[this\\] and `that_`." in text
    assert "A \\* b\\_c \\<d> \\| `e \\| f`" in text
    assert "```text\nA:\n  one <two>\n```" in text
