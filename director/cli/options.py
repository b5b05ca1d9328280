"""Options and arguments that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from director.api import SOCKET
from director.kit import statefile

if TYPE_CHECKING:
    from director.kit.net import IPAddress

Command = TypeVar("Command", bound=Callable[..., Any])

# readable=False of every path: what cannot be read is told by whoever reads it, with what to do, and exits 1, not 64.


def socket_option(command: Command) -> Command:
    return click.option(
        "--socket",
        "socket_path",
        type=click.Path(path_type=Path, readable=False),
        default=SOCKET,
        envvar="DIRECTOR_SOCKET",
        show_default=True,
        help="The admin socket of the running director.",
    )(command)


def state_option(command: Command) -> Command:
    return click.option(
        "--state-dir",
        "state_directory",
        type=click.Path(path_type=Path, readable=False),
        default=statefile.DIRECTORY,
        envvar="DIRECTOR_STATE_DIR",
        show_default=True,
        help="Where the director keeps what it must not forget.",
    )(command)


def json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(command)


def file_argument(command: Command) -> Command:
    return click.argument("file", type=click.Path(path_type=Path, readable=False))(command)


def duration_option(flag: str, name: str, told: str) -> Callable[[Command], Command]:
    """An option such as `--confirm 60s`, in seconds; None without it."""
    return click.option(flag, name, callback=_seconds, metavar="DURATION", help=told)


def _seconds(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    from director.kit.duration import parse_duration  # it imports pydantic, which not every command needs

    try:
        seconds = parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if not seconds:
        raise click.BadParameter(f"{value!r} is no time at all: leave the option out")
    return seconds


def vip_address(text: str) -> IPAddress:
    """The address that `--vip` names. Raises: UsageError."""
    from director.kit.net import parse_unicast

    try:
        address = parse_unicast(text)
    except ValueError as error:
        raise click.UsageError(f"--vip: {error}") from None
    if address.is_loopback:
        raise click.UsageError(f"--vip: {text} is a loopback address: give the address that clients connect to")
    return address
