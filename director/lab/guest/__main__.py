"""Entry point of the agent, started as a file: it owns the import path and nothing else.

One rule: no import before the path is right, and none that the agent does not need.
"""

import sys

sys.path[0] = sys.path[0].removesuffix("/director/lab/guest")

from director.lab.guest.agent import main  # noqa: E402 - the line above makes it findable

main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4])
