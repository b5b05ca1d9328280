"""Shell completion of both programs: click's own, printed by a command instead of by a variable of the environment.

One rule: who completes a line is shown no error and is not made to wait. What cannot be had at once is not offered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

from director.kit.errors import DirectorError

if TYPE_CHECKING:  # every start of a program would wait for it
    from click.shell_completion import CompletionItem

SHELLS = ("bash", "zsh", "fish")
ANSWER_WITHIN_S = 0.5
"""So long a running program may take to name what it has."""

Names = Callable[[click.Context, str], Iterable[str]]
Complete = Callable[[click.Context, click.Parameter, str], list["CompletionItem[str]"]]


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes SHELL complete this program's commands, options and files, and what a running one has by name.

    \b
    For this bash alone   source <(PROGRAM completion bash)
    For everybody's bash  PROGRAM completion bash > /usr/local/share/bash-completion/completions/PROGRAM
    For everybody's zsh   PROGRAM completion zsh > /usr/local/share/zsh/site-functions/_PROGRAM
    For everybody's fish  PROGRAM completion fish > /etc/fish/completions/PROGRAM.fish
    """
    from click.shell_completion import ShellComplete, get_completion_class

    root = ctx.find_root()
    name = str(root.info_name)
    found = get_completion_class(shell)
    assert found is not None  # noqa: S101 -- click has all of SHELLS
    made = found(root.command, {}, name, f"_{name}_complete".upper())
    click.echo(ShellComplete.source(made), nl=False)  # bash's own asks the bash of this host how old it is


def offer(names: Names) -> Complete:
    """Completes a word to those of `names` that begin so. Where they cannot be had, there are none."""

    def complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        from click.shell_completion import CompletionItem

        try:
            return [CompletionItem(name) for name in names(ctx, incomplete) if name.startswith(incomplete)]
        except (DirectorError, LookupError, TypeError):  # none runs, or one of another version
            return []

    return complete


def offer_files(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Completes a word to a file."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]
