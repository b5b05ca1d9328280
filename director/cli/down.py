"""down: take away all that the director made on this host, or leave it to the operator.

One rule: only what the state file remembers as the director's own is touched.
"""

from __future__ import annotations

from pathlib import Path

import click

from director.cli import exits
from director.cli.lines import Draining, note, print_applied, print_plan
from director.cli.options import duration_option, json_option, socket_option, state_option
from director.kit.errors import DirectorError

NOTHING = "Nothing to take away: the director has nothing on this host."


@click.command()
@click.option("--dry-run", is_flag=True, help="Only show what would go; exits 2 when something would.")
@click.option("--keep-table", is_flag=True, help="Leave everything that forwards as it is, and forget it.")
@duration_option("--drain", "drain_s", "Remove real servers when their connections have ended, or after this long.")
@json_option
@socket_option
@state_option
def down(
    dry_run: bool, keep_table: bool, drain_s: float | None, as_json: bool, socket_path: Path, state_directory: Path
) -> int:
    """Take away everything that the director made here.

    Virtual servers, addresses, packet-filter rules, timeouts and sync daemons go; settings are what they were before.
    What somebody else has in the table stays. All of it, or nothing.

    With --keep-table the kernel goes on forwarding: table, addresses, rules and settings stay, and are the operator's
    from then on. The chains of rules are called LVS-KEPT-MARK, -SNAT and -GUARD then, and no director touches them.

    A running director must be stopped first. Exits 0 when all was done, 1 on an error.
    """
    from director.api.client import Client
    from director.cli import alone
    from director.core.model import Config

    if keep_table and (dry_run or drain_s is not None):
        raise click.UsageError("--keep-table changes nothing in the kernel: it goes with neither --dry-run nor --drain")
    if Client(socket_path).is_running():
        raise DirectorError(f"a director is running ({socket_path}): stop it first, or it would make all of it anew")
    if waits := alone.waiting(state_directory):
        raise DirectorError(f"{waits}: `director confirm` or `director undo` comes first")
    nobody = Config()
    if dry_run:
        planned = alone.plan(nobody, state_directory)
        print_plan(planned, as_json)
        return exits.CHANGES if planned["steps"] else exits.OK
    if keep_table:
        for left in alone.left_behind(state_directory):
            raise DirectorError(f"{left}; that comes first")
        click.echo(alone.forget(state_directory))
        return exits.OK
    draining = Draining()
    answer = alone.apply(nobody, "virtual_servers: {}\n", "`director down`", state_directory, drain_s, draining.tell)
    note(answer["waiting"])
    print_applied(answer, as_json, NOTHING)
    if answer["failures"]:
        raise DirectorError("\n".join(answer["failures"]))
    return exits.OK
