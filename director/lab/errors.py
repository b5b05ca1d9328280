"""What can go wrong with a lab, by who must act.

One rule: a message says what was found and what to do next.
"""

from director.kit.errors import DirectorError


class LabError(DirectorError):
    """The lab cannot do what was asked."""


class KernelUnavailableError(LabError):
    """No such kernel can be booted here; the message says what to install or to become."""


class KernelLostError(LabError):
    """The kernel did not come up, or answers no more; the message ends with its console's last lines."""


class TopologyError(LabError):
    """A topology file is not one; the message lists every problem."""


class CommandError(LabError):
    """A checked command failed; the message holds its full output."""


class StillRunningError(LabError):
    """A background command has not ended in the time given to it."""
