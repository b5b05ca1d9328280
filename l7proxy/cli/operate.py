"""Commands that ask a running l7proxy over its admin socket.

One rule: what was asked for goes to standard output, text or JSON; what is told beside it goes to standard error.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from director.kit.completion import ANSWER_WITHIN_S, offer, offer_files
from l7proxy.cli.client import SOCKET, VARIABLE

if TYPE_CHECKING:
    from l7proxy.cli.client import Client

Command = TypeVar("Command", bound=Callable[..., Any])
LOOK_EVERY_S = 0.2
STOPS_LATER_S = 15.0
"""So long after its deadlines an l7proxy that was to stop must be gone."""


class _Weight(click.IntRange):
    name = "weight: write a whole number"


def _socket(command: Command) -> Command:
    return click.option(
        "--socket",
        "socket_path",
        type=click.Path(path_type=Path),
        default=SOCKET,
        envvar=VARIABLE,
        show_default=True,
        show_envvar=True,
        help="The admin socket of the running l7proxy.",
    )(command)


def _json(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(command)


def _named_by_the_running(ctx: click.Context, _: str) -> Iterable[str]:
    from l7proxy.cli.client import Client

    found = Client(ctx.params.get("socket_path") or SOCKET, ANSWER_WITHIN_S).get("/v1/backends")["backends"]
    return [f"{each['upstream']}/{each['backend']}" for each in found]


_backends = offer(_named_by_the_running)


def _backend(command: Command) -> Command:
    return click.argument("backend", metavar="UPSTREAM/BACKEND", callback=_named, shell_complete=_backends)(command)


def _named(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, str] | None:
    if value is None:
        return None
    upstream, _slash, backend = value.partition("/")
    if not upstream or not backend or "/" in backend:
        raise click.BadParameter(f"{value!r} is no backend: write UPSTREAM/BACKEND, as `l7proxy backends` shows them")
    return upstream, backend


def _seconds(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    from director.kit.duration import parse_duration  # it imports pydantic, which not every command needs

    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _client(path: Path) -> Client:
    from l7proxy.cli.client import Client

    return Client(path)


def _note(notes: list[str], as_json: bool = False) -> None:
    """What is worth knowing of what was done."""
    if as_json:
        click.echo(json.dumps({"notes": notes}))
        return
    for note in notes:
        click.echo(f"note: {note}", err=True)


@click.command()
@_socket
@_json
def status(socket_path: Path, as_json: bool) -> None:
    """Say how the running l7proxy is: clients, workers, upstreams, and what is wrong."""
    from l7proxy.cli.tables import show, status_lines

    client = _client(socket_path)
    found, drain = client.get("/v1/status"), client.get("/v1/drain")["drain"]
    if as_json:
        click.echo(json.dumps({**found, "drain": drain}))
        return
    for line in status_lines(found, drain):
        click.echo(line)
    rows = [
        [
            name,
            each["balance"],
            f"{each['up']} of {len(each['backends'])}",
            sum(part["counters"]["in_flight"] for part in each["backends"].values()),
            sum(part["counters"]["requests"] for part in each["backends"].values()),
            each["why"],
        ]
        for name, each in found["upstreams"].items()
    ]
    click.echo()
    show(("UPSTREAM", "BALANCE", "SERVING", "IN FLIGHT", "REQUESTS", "WHY"), rows)


@click.command()
@_socket
@_json
def backends(socket_path: Path, as_json: bool) -> None:
    """List backends: how they are, what they weigh, and why."""
    from l7proxy.cli.tables import BACKEND_COLUMNS, backend_rows, show

    found = _client(socket_path).get("/v1/backends")
    if as_json:
        click.echo(json.dumps(found))
        return
    show(BACKEND_COLUMNS, backend_rows(found["backends"]))


@click.command()
@click.argument("backend", metavar="[UPSTREAM/BACKEND]", required=False, callback=_named, shell_complete=_backends)
@click.option("--stop", is_flag=True, help="Stop once its clients are gone, or the time is over.")
@click.option("--wait", is_flag=True, help="Return when its clients are gone; with --stop, when it has ended.")
@click.option(
    "--within",
    "within_s",
    metavar="DURATION",
    callback=_seconds,
    help="How long clients may take; default: timeouts.drain of the file with --stop, else as long as they do.",
)
@_socket
@_json
def drain(
    backend: tuple[str, str] | None,
    stop: bool,
    wait: bool,
    within_s: float | None,
    socket_path: Path,
    as_json: bool,
) -> None:
    """Drain all of the running l7proxy, or one backend.

    All of it: the agent says `drain` and the health path 503, so that directors send clients elsewhere; who comes is
    served. That lasts until `l7proxy undrain`, or until it stops. One backend: its weight is 0, what it answers it
    finishes; that lasts until `l7proxy enable`.
    """
    client = _client(socket_path)
    if backend is not None:
        if stop or wait or within_s is not None:
            raise click.UsageError("--stop, --wait and --within are for all of l7proxy: leave UPSTREAM/BACKEND out")
        _note(client.wish(*backend, action="drain"), as_json)
        return
    if within_s is not None and not stop and not wait:
        raise click.UsageError("--within goes with --wait or --stop")
    _note(client.post("/v1/drain", stop=stop, within_s=within_s if stop else None), as_json)
    if wait:
        _wait(client, stop, within_s)


def _wait(client: Client, stop: bool, within_s: float | None) -> None:
    """Until what was asked for is so.

    Raises: DirectorError where it is not in time.
    """
    from director.kit.errors import DirectorError
    from l7proxy.cli.client import NotRunningError
    from l7proxy.cli.tables import count

    said = ""
    ends_at = time.monotonic() + within_s if within_s is not None and not stop else None
    while True:
        try:
            found = client.get("/v1/drain")
        except NotRunningError:
            if not stop:
                raise
            click.echo("stopped", err=True)
            return
        drain, connections = found["drain"], found["connections"]
        if drain is None:
            raise DirectorError("it is drained no longer: somebody else has undrained or started it")
        if drain["may_end"] and not stop:
            click.echo("drained", err=True)
            return
        now = f"draining: {count(connections, 'client connection')}"
        if now != said:
            said = now
            click.echo(now, err=True)
        if ends_at is not None and time.monotonic() > ends_at:
            raise DirectorError(f"{count(connections, 'client connection')} left after {within_s:g}s; it stays drained")
        time.sleep(LOOK_EVERY_S)


@click.command()
@_socket
@_json
def undrain(socket_path: Path, as_json: bool) -> None:
    """Take clients again, after `l7proxy drain`."""
    _note(_client(socket_path).post("/v1/undrain"), as_json)


@click.command()
@_backend
@_socket
@_json
def enable(backend: tuple[str, str], socket_path: Path, as_json: bool) -> None:
    """Undo what was wanted of a backend (drain, disable, weight): it is as the file says again."""
    _note(_client(socket_path).wish(*backend, action="enable"), as_json)


@click.command()
@_backend
@_socket
@_json
def disable(backend: tuple[str, str], socket_path: Path, as_json: bool) -> None:
    """Send a backend nothing at all any more, not even sessions that it holds; what it answers it finishes."""
    _note(_client(socket_path).wish(*backend, action="disable"), as_json)


@click.command()
@_backend
@_socket
@_json
def forget(backend: tuple[str, str], socket_path: Path, as_json: bool) -> None:
    """Forget what was wanted of a backend, also of one that is not in the file any more."""
    _note(_client(socket_path).wish(*backend, action="forget"), as_json)


@click.command()
@_backend
@click.argument("weight", type=_Weight(0, 1000))
@_socket
@_json
def weight(backend: tuple[str, str], weight: int, socket_path: Path, as_json: bool) -> None:
    """Use WEIGHT for a backend instead of the file's, until `l7proxy enable`."""
    _note(_client(socket_path).wish(*backend, weight=weight), as_json)


@click.command()
@click.option("-n", "most", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many, at most.")
@click.option("--whole", is_flag=True, help="Also the request's head, and the times of its phases.")
@click.option("--follow", is_flag=True, help="And those that come, until interrupted.")
@_socket
@_json
def failures(most: int, whole: bool, follow: bool, socket_path: Path, as_json: bool) -> None:
    """Show the last requests that went wrong, oldest first: what was asked, what was tried, and why it failed.

    Secrets in them (credentials, cookies, tokens) are not shown. JSON is one object a line.
    """
    from l7proxy.cli.tables import flight_lines

    client = _client(socket_path)
    seen: dict[tuple[int, int], None] = {}
    asked = most
    while True:
        for flight in client.get(f"/v1/failures?n={asked}")["failures"]:
            key = flight["pid"], flight["number"]
            if key in seen:
                continue
            seen[key] = None
            click.echo(json.dumps(flight) if as_json else "\n".join(flight_lines(flight, whole=whole)))
        if not follow:
            return
        while len(seen) > 10_000:
            del seen[next(iter(seen))]
        asked = 1000
        time.sleep(1.0)


@click.command()
@_socket
@_json
def certificates(socket_path: Path, as_json: bool) -> None:
    """List the certificates that are served, the one that ends first at the top."""
    from l7proxy.cli.tables import show

    found = _client(socket_path).get("/v1/certificates")
    if as_json:
        click.echo(json.dumps(found))
        return
    rows = [
        [each["name"], ", ".join(each["names"]), each["not_after"], each["days_left"], ", ".join(each["listeners"])]
        for each in found["certificates"]
    ]
    show(("CERTIFICATE", "NAMES", "NOT AFTER", "DAYS LEFT", "LISTENERS"), rows)


@click.command()
@_socket
@_json
def config(socket_path: Path, as_json: bool) -> None:
    """Print the configuration in force, without its secrets and comments."""
    found = _client(socket_path).get("/v1/config")
    if as_json:
        click.echo(json.dumps(found))
        return
    import yaml

    click.echo(f"# {found['source']}, as it is served")
    click.echo(yaml.safe_dump(found["config"], sort_keys=False, allow_unicode=True), nl=False)


@click.command()
@click.option("--file", "file", metavar="FILE", help="What is read again: it is checked first.")
@click.option(
    "--pid",
    type=click.IntRange(2),
    help="Goes with --file: where nobody answers on the socket that FILE names, or it names none, PID gets SIGHUP.",
)
@_socket
@_json
def reload(file: str | None, pid: int | None, socket_path: Path, as_json: bool) -> None:
    """Have the file read again. One with problems changes nothing: they are told, and the exit code is 1.

    With --file and --pid it is what a unit's ExecReload= wants: it works whatever FILE says of an admin socket.
    """
    if (file is None) is not (pid is None):
        raise click.UsageError("--file and --pid go together")
    if file is None or pid is None:
        _note(_client(socket_path).post("/v1/reload"), as_json)
        return
    from l7proxy.cli.reload import reload_process

    _note(reload_process(file, pid), as_json)


@click.command()
@click.option("--once", is_flag=True, help="Print it once, and end.")
@click.option(
    "--interval", "interval_s", metavar="DURATION", default="1s", callback=_seconds, help="Between two looks."
)
@_socket
def top(once: bool, interval_s: float | None, socket_path: Path) -> None:
    """Watch the running l7proxy: requests a second, what is in flight, and the last failures."""
    from l7proxy.cli.top import watch

    watch(_client(socket_path), max(0.1, interval_s or 0.0), once)


@click.command()
@click.argument("words", metavar="[FILE] REQUEST", nargs=-1, required=True, shell_complete=offer_files)
@click.option(
    "--file",
    "file",
    metavar="FILE",
    help="Explain by this file, as it would be; the same as FILE.",
    shell_complete=offer_files,
)
@click.option("-H", "--header", "headers", multiple=True, metavar="LINE", help="A header, such as 'Cookie: beta=yes'.")
@click.option("--client", metavar="ADDR", help="The address that the connection comes from; default: 192.0.2.1.")
@click.option("--listener", metavar="NAME", help="Where it comes in; default: by the URL's port, then by its scheme.")
@_socket
@_json
def explain(
    words: tuple[str, ...],
    file: str | None,
    headers: tuple[str, ...],
    client: str | None,
    listener: str | None,
    socket_path: Path,
    as_json: bool,
) -> None:
    """Say what becomes of REQUEST, such as 'GET https://shop.example.org/v1': which route takes it and why, what others
    lack, what is done to it, and which backends can answer. Nothing is sent, and nothing counts.

    By the running l7proxy: its configuration, and how its backends, sessions and limits are now. By FILE: as it would
    be. Ends with 1 where no route takes it.
    """
    by_socket = click.get_current_context().get_parameter_source("socket_path") is ParameterSource.COMMANDLINE
    *files, request = [*([file] if file is not None else []), *words]
    if len(files) > 1:
        raise click.UsageError(f"say one FILE and one REQUEST, in quotes: {' '.join(map(repr, words))} is more")
    if files and by_socket:
        raise click.UsageError("either FILE or --socket: a file is explained as it would be, a socket as it is")
    if not files and not headers and Path(request).is_file():
        raise click.UsageError(f"{request} is a file: say what is asked too, such as 'GET https://shop.example.org/'")
    if files:
        from l7proxy.cli.explain import run
        from l7proxy.core.question import Question

        sys.exit(run(files[0], Question(request, headers, client, listener), as_json))
    found = _client(socket_path).ask("/v1/explain", request=request, headers=headers, client=client, listener=listener)
    click.echo(json.dumps(found["explanation"], indent=2) if as_json else "\n".join(found["told"]))
    sys.exit(1 if found["explanation"]["is_unmatched"] else 0)


COMMANDS = (
    explain,
    status,
    top,
    backends,
    drain,
    undrain,
    enable,
    disable,
    weight,
    forget,
    failures,
    certificates,
    config,
    reload,
)
