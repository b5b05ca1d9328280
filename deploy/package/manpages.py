"""Man pages of both programs and of their files: `python deploy/package/manpages.py FOLDER`, or `make man`.

One rule: they say what `--help` and `schema --markdown` say, and nothing else. click-man writes the pages of commands;
what it passes through as it is (roff's own characters, click's marks) is made roff before.
"""

from __future__ import annotations

import copy
import os
import re
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from inspect import cleandoc
from pathlib import Path

import click
from click_man.core import generate_man_page
from pydantic import BaseModel

import director.cli.root
import l7proxy.cli.main
from director.core.schema import FileSection
from director.kit.reference import markdown
from l7proxy.core.schema import ConfigSection

PROGRAMS = {"director": director.cli.root.cli, "l7proxy": l7proxy.cli.main.cli}
FILES: dict[str, type[BaseModel]] = {"director": FileSection, "l7proxy": ConfigSection}


def pages() -> Iterator[tuple[str, str]]:
    """The name of each page's file, and what it holds."""
    at = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time())))
    told = version("lvs-director"), time.strftime("%Y-%m-%d", at)
    for program, command in PROGRAMS.items():
        yield from _commands(command, _context(command, program), *told)
    for program, section in FILES.items():
        yield f"{program}.yaml.5", _file(program, markdown(section.model_json_schema(), f"{program}.yaml"), *told)


def _commands(command: click.Command, ctx: click.Context, release: str, date: str) -> Iterator[tuple[str, str]]:
    below = {}
    if isinstance(command, click.Group):  # it may know its commands by name alone until they are asked for
        found = ((name, command.get_command(ctx, name)) for name in command.list_commands(ctx))
        below = {name: each for name, each in found if each is not None and not each.hidden}
    shown = copy.copy(command)
    shown.short_help = _short(command)
    shown.help = _roff("\n\n".join(filter(None, [cleandoc(command.help or ""), command.epilog])))
    shown.params, shown.add_help_option = [_option(each) for each in command.get_params(ctx)], False
    if isinstance(shown, click.Group):
        shown.commands = {name: _listed(each) for name, each in below.items()}
    ctx = _context(shown, ctx.info_name, ctx.parent)
    page = generate_man_page(ctx, version=release, date=date)
    program = ctx.find_root().info_name
    see = [f"{program}.yaml(5)"] if ctx.parent is None else [f"{program}(1)", f"{program}.yaml(5)"]
    yield f"{ctx.command_path.replace(' ', '-')}.1", f"{page}\n.SH SEE ALSO\n{', '.join(see)}\n"
    for name, each in below.items():
        yield from _commands(each, _context(each, name, ctx), release, date)


def _context(command: click.Command, name: str | None, parent: click.Context | None = None) -> click.Context:
    return click.Context(command, info_name=name, parent=parent, **command.context_settings)


def _listed(command: click.Command) -> click.Command:
    shown = copy.copy(command)
    shown.short_help = _short(command)
    return shown


def _short(command: click.Command) -> str:
    """The first sentence of what a command says of itself."""
    first = " ".join(cleandoc(command.help or "").partition("\n\n")[0].split())
    return _escaped(re.split(r"(?<=[a-z)`])[.:] ", first)[0].rstrip(".:"))


def _option(param: click.Parameter) -> click.Parameter:
    shown = copy.copy(param)
    if isinstance(shown, click.Option) and shown.help:
        shown.help = _escaped(shown.help)
    return shown


def _roff(text: str) -> str:
    """Paragraphs; what stands behind click's mark keeps its lines."""
    parts = []
    for paragraph in text.split("\n\n"):
        lines = [_escaped(line) for line in paragraph.replace("\b\n", "").splitlines()]
        parts.append("\n".join([".nf", *lines, ".fi"] if "\b" in paragraph else lines))
    return "\n\n".join(parts)


def _escaped(line: str) -> str:
    line = line.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{line}" if line[:1] in {".", "'"} else line


def _file(program: str, reference: str, release: str, date: str) -> str:
    """A reference in Markdown, of which there are headings, sentences and tables of keys."""
    name = f"{program}.yaml"
    lines = [
        f'.TH "{name.upper()}" "5" "{date}" "{release}" "{program} Manual"',
        ".SH NAME",
        f"{name} \\- the configuration of {program}",
    ]
    for line in reference.splitlines()[1:]:
        if line.startswith("## "):
            lines.append(f".SH {line[3:].upper()}")
        elif match := re.match(r"\| `(.+?)` \| (.*?) \| (.*?) \| (.*) \|$", re.sub(r"\\\|", "\0", line)):
            key, value, default, told = (_escaped(_plain(part)) for part in match.groups())
            default = f"; {default}" if default == "required" else f"; default {default}" if default else ""
            lines += [".TP", f"\\fB{key}\\fR", value + default]
            lines += [".br", told] if told else []
        elif line and not line.startswith("|"):
            lines += [".PP", _escaped(_plain(line))]
    return "\n".join([*lines, ".SH SEE ALSO", f"{program}(1)", ""])


def _plain(cell: str) -> str:
    return re.sub(r"\[([^]]+)\]\(#[^)]*\)", r"a section \1", cell).replace("`", "").replace("\0", "|")


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
