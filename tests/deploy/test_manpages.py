"""Man pages: one for every command and file, as roff has it, and with every option and key."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache

import click
import pytest

from deploy.package.manpages import FILES, PROGRAMS, pages

pytestmark = pytest.mark.unit


@cache
def _pages() -> dict[str, str]:
    return dict(pages())


def _commands() -> Iterator[tuple[str, click.Command, click.Context]]:
    """Every command that `--help` shows, by the words that name it."""
    left = [click.Context(command, info_name=name) for name, command in PROGRAMS.items()]
    while left:
        ctx = left.pop()
        yield ctx.command_path, ctx.command, ctx
        if isinstance(ctx.command, click.Group):
            for name in ctx.command.list_commands(ctx):
                command = ctx.command.get_command(ctx, name)
                assert command is not None
                if not command.hidden:
                    left.append(click.Context(command, info_name=name, parent=ctx))


def test_every_command_and_every_file_has_a_page() -> None:
    names = {f"{words.replace(' ', '-')}.1" for words, _, _ in _commands()}
    assert set(_pages()) == names | {f"{program}.yaml.5" for program in FILES}
    assert {"director.1", "director-realserver-apply.1", "l7proxy-run.1", "director.yaml.5"} <= set(_pages())


def test_a_page_has_what_help_has() -> None:
    for words, command, ctx in _commands():
        page = _pages()[f"{words.replace(' ', '-')}.1"].replace("\\-", "-")
        for param in command.get_params(ctx):
            if isinstance(param, click.Option) and not param.hidden:
                assert all(option in page for option in param.opts), (words, param.opts)
        text = " ".join(page.replace("\n.PP\n", "\n").split())
        for word in re.findall(r"[\w./]{3,}", f"{command.help} {command.epilog or ''}"):
            assert word in text, (words, word)


def test_a_page_of_a_file_has_every_key() -> None:
    for program, section in FILES.items():
        schema = section.model_json_schema()
        page = _pages()[f"{program}.yaml.5"]
        for part in (schema, *schema["$defs"].values()):
            for key in part.get("properties", {}):
                assert f".TP\n\\fB{key}\\fR\n" in page, key


def test_nothing_of_click_and_of_markdown_is_left() -> None:
    for name, page in _pages().items():
        assert not re.search(r"[\x00-\x08\x0b-\x1f]", page), name
        assert not re.search(r"\]\(#|^\|", page, re.MULTILINE), name


def test_roff_has_nothing_against_them() -> None:
    if shutil.which("groff") is None:
        pytest.skip("there is no groff: apt-get install groff-base")
    said = ""
    for name, page in _pages().items():
        done = subprocess.run(
            ["groff", "-man", "-Tutf8", "-ww", "-b", "-z"], input=page.encode(), capture_output=True, check=True
        )
        said += "".join(f"{name}: {line}\n" for line in done.stderr.decode().splitlines())
    assert said == ""
