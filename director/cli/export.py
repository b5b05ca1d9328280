"""export: the kernel's table as director.yaml.

One rule: it only reads, whoever made the table and whether or not a director runs.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from director.cli import exits
from director.cli.options import state_option


@click.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Write to this new file instead of standard output.",
)
@state_option
def export(output: Path | None, state_directory: Path) -> int:
    """Print the kernel's table as a file that `check` takes and that changes nothing when applied.

    Full NAT and marked traffic are known by director's own rules in the packet filter. Where settings of the host are
    others than the virtual servers need, the file says `settings: report`, so that applying it changes none.

    Weights are those of the moment. Checks are not in it: the kernel knows none. Addresses that director keeps by
    itself get their `interface:`, others are left alone. Lines `# not exported: ...` say what no file can say; they
    go to standard error, too.

    Exits 0 when all is in the file, 2 when something is left out, 1 on an error.
    """
    from director.core.config import parse_config
    from director.core.export import export as written
    from director.core.steering import without
    from director.host import addresses
    from director.host.surroundings import Surroundings
    from director.ipvs.client import IpvsClient
    from director.memory import Memory

    with IpvsClient.open() as kernel:
        reading = kernel.survey()
        version = kernel.version()
    owned, around = Memory(state_directory).load(), Surroundings(state_directory)
    table = without(reading.table, owned.virtual_servers)
    kept, standing = addresses.present(owned.vips), around.standing()
    own_timeouts = owned.namespace.timeouts is not None
    exported = written(table, kept, reading.foreign, standing, own_timeouts=own_timeouts)
    config = parse_config(exported.text(), "the exported file")
    if not standing.settings and any(each.is_setting for each in around.pending(config, release=True)):
        exported = written(*(table, kept, reading.foreign, standing), own_timeouts=own_timeouts, report_settings=True)
    text = exported.text(*_head(version))
    if output is None:
        click.echo(text, nl=False)
    else:
        _save(output, text)
    for each in exported.left_out:
        click.echo(f"not exported: {each}", err=True)
    return exits.CHANGES if exported.left_out else exits.OK


def _head(kernels: str) -> list[str]:
    import platform
    import time
    from importlib.metadata import version

    from director.host.lockfile import namespace_inode

    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return [
        f"The IPVS table of {platform.node()} (network namespace {namespace_inode()}, IPVS {kernels}) at {when},",
        f"by director {version('lvs-director')} export. Weights are those of that moment; 0 takes no connections.",
    ]


def _save(path: Path, text: str) -> None:
    from director.kit.errors import HostError

    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise HostError(f"{path} exists: give a new file, or remove that one first") from error
    except OSError as error:
        raise HostError(f"could not write {path}: {error.strerror}: give another path") from error
