"""drift: what somebody else has changed in the kernel.

One rule: it only looks; a director that runs puts things right, or `apply` does.
"""

from __future__ import annotations

from pathlib import Path

import click

from director.cli import exits
from director.cli.lines import note, print_drift
from director.cli.options import json_option, socket_option, state_option


@click.command()
@click.argument("file", type=click.Path(path_type=Path, readable=False), required=False)
@json_option
@socket_option
@state_option
def drift(file: Path | None, as_json: bool, socket_path: Path, state_directory: Path) -> int:
    """Show what somebody else has changed in the kernel: what it was, what it is, who puts it right and when.

    A running director is asked: it knows what it left there, and needs no FILE. Without one, the virtual servers of
    FILE that were applied are compared with FILE.

    With `on_drift: repair`, the default, a running director has put it right by its next look. With `on_drift:
    report` it stays until checks or an operator change the same thing, or until an apply, or the director starts anew:
    both make all as the file says.

    Addresses, settings and packet-filter rules are not told here: a running director puts them right and logs it, and
    `director plan` shows what of them differs.

    Exits 0 when there is none, 2 when there is some, 1 on an error.
    """
    from director.api.client import Client
    from director.kit.errors import ConfigError

    client = Client(socket_path)
    if client.is_running():
        if file is not None:
            note([f"a director runs and knows what it left there: {file} was not looked at"])
        lines = client.drift()
    elif file is None:
        raise ConfigError("no director runs: name the FILE that was applied, or start one with `director run FILE`")
    else:
        from director.cli import alone
        from director.cli.configuration import parsed
        from director.kit.configfile import read_text

        config = parsed(read_text(file), str(file), state_directory, presume=True)
        lines = alone.drift(config, state_directory)
    print_drift(lines, as_json)
    return exits.CHANGES if lines else exits.OK
