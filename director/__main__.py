"""Entry point of the `director` command.

One rule: an operator waits for its start and its end, so that neither does what this one command has no use for.
"""

from __future__ import annotations

import gc
import os
import sys

from director.cli import exits
from director.cli.root import cli


def main() -> None:
    """Run the command line and exit with its code."""
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it would search every package of this Python
    if sys.argv[1:2] == ["run"]:
        sys.exit(exits.run(cli, "director"))
    gc.disable()  # over soon, and there is no garbage among thousands of servers: looking takes a fifth of the time
    code = exits.run(cli, "director")
    gc.freeze()  # or the interpreter would look through all of it at its end
    sys.exit(code)


if __name__ == "__main__":
    main()
