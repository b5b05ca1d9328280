"""Writes docs/cli-director.md and docs/cli-l7proxy.md from the commands: `python -m docs.tools.cli_reference`.

One rule: nothing stands there that `--help` does not say; a test says when a page is not current.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click

FOLDER = Path(__file__).parents[1]
ABOUT = {
    "director": "What an operator does with it is in [director.md](director.md).",
    "l7proxy": "What an operator does with it is in [l7proxy.md](l7proxy.md#asking-and-operating-it).",
}


def page(name: str, root: click.Command) -> str:
    """The whole page of one program."""
    lines = [
        f"# {name}: command line",
        "",
        f"All commands, as `{name} COMMAND --help` shows them. {ABOUT[name]}",
        "",
        *_about(root),
    ]
    for command, path in _commands(root, name):
        if command is not root:
            lines += [f"## {path}", "", *_about(command), "```text", _usage(command, path), "```", ""]
            lines += _table(command)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def _commands(command: click.Command, path: str) -> Iterator[tuple[click.Command, str]]:
    yield command, path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None and not found.hidden:
                yield from _commands(found, f"{path} {name}")


def _about(command: click.Command) -> list[str]:
    """Its help and what stands at its end; a paragraph that is not to be wrapped is a block."""
    lines: list[str] = []
    for text in (command.help, command.epilog):
        for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text or "").partition("\f")[0]):
            if paragraph.startswith("\b"):
                lines += ["```text", paragraph.removeprefix("\b").strip("\n"), "```", ""]
            elif paragraph:
                lines += [_plain(" ".join(paragraph.split())), ""]
    return lines


def _usage(command: click.Command, path: str) -> str:
    pieces = command.collect_usage_pieces(click.Context(command, info_name=path))
    return " ".join([path, *pieces])


def _table(command: click.Command) -> list[str]:
    context = click.Context(command)
    rows = []
    for parameter in command.get_params(context):
        if "--help" in parameter.opts or not isinstance(parameter, click.Option):
            continue
        if record := parameter.get_help_record(context):
            said, means = record
            rows.append(f"| `{_cell(said)}` | {_cell(_plain(means))} |")
    return ["| option | |", "|---|---|", *rows, ""] if rows else []


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _plain(text: str) -> str:
    """Nothing in it is to be taken for Markdown or HTML."""
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(piece if piece.startswith("`") else re.sub(r"([*_<\[\]])", r"\\\1", piece) for piece in pieces)


def pages() -> dict[str, str]:
    """Both files with what is in them."""
    from director.cli.root import cli as director
    from l7proxy.cli.main import cli as l7proxy

    return {"cli-director.md": page("director", director), "cli-l7proxy.md": page("l7proxy", l7proxy)}


def main() -> None:
    """Write both."""
    for name, text in pages().items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
