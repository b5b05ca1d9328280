"""`director lab`: hosts in network namespaces, on a kernel that is booted for them and ends with the command.

One rule: nothing here knows how a lab works; it turns words into calls, and results into output and exit codes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from director.lab.scenes.titles import TITLES

if TYPE_CHECKING:
    from director.lab.hosts import Result

_kernel = click.option(
    "--kernel",
    type=click.Choice(["auto", "host", "uml"]),
    default="auto",
    show_default=True,
    help="This machine's own kernel, or a user-mode kernel; auto takes its own if it has IPVS.",
)
_topology = click.option(
    "--topology",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=lambda context, option, given: _topology_file(given),
    help="A topology file, or `pair`: two directors, as in vagrant/. Without it, one director.",
)


@click.group()
def lab() -> None:
    """Try things on hosts in network namespaces, on a kernel with IPVS."""


@lab.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@_kernel
@_topology
@click.option(
    "--timeout", "timeout_s", type=float, default=60.0, show_default=True, help="Seconds the command may take."
)
@click.argument("host")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(kernel: str, file: Path | None, timeout_s: float, host: str, command: tuple[str, ...]) -> None:
    """Run COMMAND on HOST of a fresh lab, and exit with its exit code (124: over its limit)."""
    words = command[1:] if command[0] == "--" else command
    if not words:
        raise click.UsageError("there is no command: write HOST COMMAND...")
    result = _run(kernel, file, timeout_s, host, words)
    click.echo(result.stdout, nl=False)
    click.echo(result.stderr, nl=False, err=True)
    if result.timed_out:
        click.echo(f"killed at its limit of {timeout_s:g} s: give it more with --timeout", err=True)
        sys.exit(124)
    sys.exit(result.exit_code if result.exit_code >= 0 else 128 - result.exit_code)


@lab.command()
@_kernel
@click.option("--keep", is_flag=True, help="Leave a shell in the lab at the end.")
def demo(kernel: str, keep: bool) -> None:
    """Show the main job on a real kernel: program, serve, fail over, survive a crash; in under 90 s.

    Progress goes to standard error; standard output gets one line of JSON. Exits 1 when a step does not hold.
    """
    sys.exit(0 if _demo(kernel, keep) else 1)


@lab.command()
@_kernel
@click.option("--list", "only_list", is_flag=True, help="List the scenes and play none; as without a NAME.")
@click.argument("name", required=False, type=click.Choice([*TITLES, "all"]))
def scene(kernel: str, only_list: bool, name: str | None) -> None:
    """Play a scene: what the product does, explained with the commands and measured, each in under 40 s.

    What it tells goes to standard error; standard output gets one line of JSON. Exits 1 when a claim does not hold.
    """
    if only_list or name is None:
        for each, title in TITLES.items():
            click.echo(f"{each:9} {title}")
        return
    sys.exit(0 if _scene(kernel, list(TITLES) if name == "all" else [name]) else 1)


@lab.command()
@_kernel
@_topology
def shell(kernel: str, file: Path | None) -> None:
    """Lay out a lab and type commands on its hosts, until Ctrl-D."""
    _shell(kernel, file)


@lab.command()
@_topology
def topology(file: Path | None) -> None:
    """Show the hosts of the lab and their addresses."""
    from director.lab import topology as topologies

    found = topologies.load(file or topologies.DEFAULT)
    rows = [("HOST", "ROLE", "NETWORK", "IPV4", "IPV6", "MAC", "GATEWAY", "RUNS")]
    for host in found.hosts.values():
        first, last = (host.name, host.role), (host.gateway or "-", " ".join(host.runs))
        for name, link in host.links.items():
            rows.append((*first, name, str(link.v4), str(link.v6), link.mac, *last))
            first, last = ("", ""), ("", "")
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _topology_file(given: Path | None) -> Path | None:
    """A name of one that comes with the lab is no file; write ./pair for a file of that name."""
    from director.lab.topology import NAMED

    return given if given is None else NAMED.get(str(given), given)


def _run(kernel: str, file: Path | None, timeout_s: float, host: str, command: tuple[str, ...]) -> Result:
    from director.lab import boot

    with boot(kernel) as booted, booted.lay_out(file) as laid_out:
        return laid_out.host(host).run(*command, timeout_s=timeout_s, fresh=True)


def _scene(kernel: str, names: list[str]) -> bool:
    from director.lab.scenes.play import play

    return play(names, kernel)


def _demo(kernel: str, keep: bool) -> bool:
    from director.lab.demo.play import play

    def stay(booted: Any, laid_out: Any) -> None:
        click.echo("\nThe lab stays until Ctrl-D.", err=True)
        booted.shell(laid_out, lambda text: click.echo(text, nl=False, err=True), _ask_on_stderr)

    return play(kernel, stay if keep else None)


def _ask_on_stderr(prompt: str) -> str:
    """Standard output belongs to the one line of JSON."""
    click.echo(prompt, nl=False, err=True)
    return input()


def _shell(kernel: str, file: Path | None) -> None:
    import readline  # noqa: F401 - gives input() a history

    from director.lab import boot

    with boot(kernel) as booted, booted.lay_out(file) as laid_out:
        click.echo(f"{booted.kind} kernel {booted.release}: {booted.reason}")
        booted.shell(laid_out)
