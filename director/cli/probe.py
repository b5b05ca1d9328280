"""probe: one probe of a real server, here and now, without the daemon."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from director.cli import exits, offered
from director.cli.options import json_option
from director.kit.errors import ConfigError, ProbeError
from director.kit.health import ProbeResult

if TYPE_CHECKING:
    from director.core.model import Config, RealServer
    from director.kit.checks.check import Check

DEFAULT_FILE = Path("/etc/director/director.yaml")


@click.command()
@click.argument("virtual_server", shell_complete=offered.virtual_servers)
@click.argument("real_server", shell_complete=offered.real_servers)
@click.option(
    "--file",
    "-f",
    "file",
    type=click.Path(path_type=Path, readable=False),
    default=DEFAULT_FILE,
    show_default=True,
    help="The configuration that has the check.",
)
@json_option
def probe(virtual_server: str, real_server: str, file: Path, as_json: bool) -> int:
    """Probe REAL_SERVER of VIRTUAL_SERVER once, as the file's check says, and tell all that was seen.

    No daemon is asked or needed, and nothing changes: this is what a check sees from this host at this moment.

    Exits 0 when the server is good by this probe, 2 when it is not, 1 on an error.
    """
    from director.cli.configuration import read_configuration
    from director.kit.checks.check import leaves

    real = _find(read_configuration(file)[1], virtual_server, real_server)
    checks = (*leaves(real.check), *leaves(real.load))
    if not checks:
        raise ConfigError(f"{virtual_server}/{real_server} has no check in {file}: give it one")
    results = asyncio.run(_probe_all(checks))
    if as_json:
        click.echo(json.dumps([_plain(check, result) for check, result in results.items()]))
    else:
        for check, result in results.items():
            _print(check, result)
    decisive = [results[check] for check in leaves(real.check) or checks]  # a load decides where there is nothing else
    lacking = [result for result in decisive if isinstance(result, ProbeError)]
    if lacking:
        raise lacking[0]
    good = [isinstance(result, ProbeResult) and result.ok for result in decisive]
    is_good = all(good) if getattr(real.check, "every", True) else any(good)
    return exits.OK if is_good else exits.CHANGES


def _find(config: Config, virtual_server: str, real_server: str) -> RealServer:
    from director.core.model import ServerRef
    from director.kit.schemawalk import suggestion

    found = config.find(ServerRef(virtual_server, real_server))
    if found is not None:
        return found[1]
    virtual = next((each for each in config.virtual_servers if each.name == virtual_server), None)
    if virtual is None:
        names = [each.name for each in config.virtual_servers]
        raise ConfigError(f"no virtual server {virtual_server!r} in the file{suggestion(virtual_server, names)}")
    names = [each.name for each in virtual.real_servers]
    raise ConfigError(f"{virtual_server!r} has no real server {real_server!r}{suggestion(real_server, names)}")


async def _probe_all(checks: tuple[Check, ...]) -> dict[Check, ProbeResult | ProbeError]:
    from director.kit.probes.run import run_check

    results: dict[Check, ProbeResult | ProbeError] = {}
    for check in checks:
        try:
            _require_way(check)
            results[check] = await run_check(check)
        except ProbeError as error:
            results[check] = error
    return results


def _require_way(check: Check) -> None:
    """Raises: ProbeError when `check` goes through the VIP, and the kernel has no entry that leads it there."""
    if check.route.real is None:
        return
    try:
        table = Path("/proc/net/ip_vs").read_text(encoding="ascii")
    except OSError as error:
        raise ProbeError(f"this kernel has no IPVS table ({error.strerror}): probe where the director runs") from error
    if f"FWM  {check.route.mark:08X} " not in table:
        raise ProbeError(
            "the way through the VIP is not in the kernel's table: `director apply` or a running director makes it"
        )


def _print(check: Check, result: ProbeResult | ProbeError) -> None:
    click.echo(str(check))
    if check.route.source is not None:
        click.echo(f"  from      {check.route.source}")
    if check.route.mark:
        click.echo(f"  mark      {check.route.mark}")
    if isinstance(result, ProbeError):
        click.secho(f"  no probe  {result}", fg="yellow")
        return
    click.secho(f"  result    {'good' if result.ok else 'failed'}", fg="green" if result.ok else "red")
    click.echo(f"  reason    {result.reason}")
    click.echo(f"  took      {result.duration_s * 1000:.1f} ms of at most {check.timing.timeout_s * 1000:g} ms")
    asked = {"weight": result.weight, "percent": result.percent, "asks": result.asks.value if result.asks else None}
    for name, value in asked.items():
        if value is not None:
            click.echo(f"  {name:<8}  {value}")
    if result.warning:
        click.echo(f"  warning   {result.warning}")
    if result.output:
        click.echo(f"  it said   {_text(result.output)}")


def _plain(check: Check, result: ProbeResult | ProbeError) -> dict[str, object]:
    if isinstance(result, ProbeError):
        return {"check": str(check), "ok": None, "reason": str(result)}
    return {
        "check": str(check),
        "ok": result.ok,
        "reason": result.reason,
        "duration_ms": round(result.duration_s * 1000, 3),
        "weight": result.weight,
        "percent": result.percent,
        "asks": result.asks.value if result.asks else None,
        "warning": result.warning,
        "output": _text(result.output),
    }


def _text(output: bytes) -> str:
    from director.core.event import printable

    return printable(output)
