"""Entry point of the `director` command."""

from __future__ import annotations

import sys

from director.cli import exits
from director.cli.root import cli


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(exits.run(cli, "director"))


if __name__ == "__main__":
    main()
