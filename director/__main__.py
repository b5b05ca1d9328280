"""Entry point of the `director` command."""

from __future__ import annotations

import gc
import os
import sys

from director.cli import exits
from director.cli.root import cli


def main() -> None:
    """Run the command line and exit with its code."""
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it would search every package of this Python
    if sys.argv[1:2] != ["run"]:
        gc.disable()  # over soon, and there is no garbage among thousands of servers: looking takes a fifth of the time
    sys.exit(exits.run(cli, "director"))


if __name__ == "__main__":
    main()
