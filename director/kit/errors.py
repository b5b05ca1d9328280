"""The base of every error that both tiers raise on purpose.

One rule: a message says what was found, where, and what to do next; subclasses say who must act.
"""

from __future__ import annotations


class DirectorError(Exception):
    """Something went wrong and the message says what to do."""


class ConfigError(DirectorError):
    """The operator's input is wrong."""


class KernelError(DirectorError):
    """The kernel refused, or lacks, what was asked of it."""


class HostError(DirectorError):
    """The host around IPVS (addresses, sysctls, files, locks) refused what was asked of it."""


class ProbeError(DirectorError):
    """A probe could not be made at all, for want of something on this host: it says nothing about the server."""
