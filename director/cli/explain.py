"""explain: why each weight of a virtual server is what it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from director.cli import offered
from director.cli.options import json_option, socket_option

if TYPE_CHECKING:
    from director.core.explain import CheckLine, Explanation, RealServerLine


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="VIRTUAL_SERVER [REAL_SERVER]", shell_complete=offered.names)
@json_option
@socket_option
def explain(names: tuple[str, ...], as_json: bool, socket_path: Path) -> None:
    """Show why each weight of VIRTUAL_SERVER is what it is: from the file's weight, factor by factor, to the kernel's.

    With the last results of each check, when it is probed next, what would bring a server back, and which line of
    the file says so.

    Exits 0 when the director answers, 1 when none does or the name is not known.
    """
    from director.api.client import Client

    words = names[0].split("/") if len(names) == 1 else list(names)
    if len(words) > 2 or not all(words):
        raise click.UsageError("name one virtual server, and one of its real servers if you like: `web a` or `web/a`")
    found = Client(socket_path).explain(*words)
    click.echo(json.dumps(found) if as_json else "\n".join(_lines(found)))


def _lines(found: Explanation) -> Iterator[str]:
    yield f"{found['virtual_server']}  ({found['at']})"
    yield f"  quorum {found['quorum']}"
    if found["panic"]:
        yield "  so many real servers are down that the probes are not trusted: all are used"
    for real in found["real_servers"]:
        yield ""
        yield from _real_server(real)


def _real_server(real: RealServerLine) -> Iterator[str]:
    kernel = real["kernel_weight"]
    has = "not in the kernel's table" if kernel is None else f"the kernel has {kernel}"
    yield f"{real['name']}  {real['address']}  weight {real['weight']}, {has}"
    if real["resolution"]:
        yield f"  name: {real['resolution']}"
    for index, factor in enumerate(real["factors"]):
        at = f"  ({real['at']})" if index == 0 else ""
        yield f"  {factor['weight']:>5}  {factor['what']}{at}"
    for check in real["checks"]:
        yield from _check("check", check)
    if real["load"] is not None:
        yield from _check("load", real["load"])
    if real["back"]:
        yield f"  back: {real['back']}"


def _check(kind: str, check: CheckLine) -> Iterator[str]:
    since = "" if check["since_s"] is None else f" for {_span(check['since_s'])}"
    yield f"  {kind}: {check['check']}  {check['status']}{since}  ({check['at']})"
    timing = (
        f"every {_span(check['interval_s'])} ({_span(check['fast_interval_s'])} while a change is suspected), timeout "
        f"{_span(check['timeout_s'])}, rise {check['rise']}, fall {check['fall']}"
    )
    yield f"    {timing}"
    if check["trouble"]:
        yield f"    no probe can be made: {check['trouble']}"
    for result in check["recent"]:
        good = "good  " if result["ok"] else "failed"
        said = f'; it said "{result["output"]}"' if result["output"] and not result["ok"] else ""
        warning = f"; warning: {result['warning']}" if result["warning"] else ""
        ago = f"{_span(result['ago_s'])} ago"
        yield f"    {ago:>10}  {good}  {result['duration_ms']:.1f} ms  {result['reason']}{said}{warning}"
    if check["next_s"] is not None:
        yield f"    next probe in {_span(check['next_s'])}; {check['changes_after']}"
    elif check["recent"]:
        yield f"    {check['changes_after']}"


def _span(seconds: float) -> str:
    """A time for people: `0.4s`, `75s`, `12m`, `3.5h`."""
    if seconds < 120:
        return f"{seconds:.3g}s"
    return f"{seconds / 60:.3g}m" if seconds < 7200 else f"{seconds / 3600:.3g}h"
