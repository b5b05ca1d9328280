"""A conversation with the kernel about links, addresses and routes, with its errors told to an operator.

These calls block and cannot run on a thread whose event loop is running: pyroute2's IPRoute drives
a loop of its own. An asyncio caller uses `to_thread`.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING

from director.kit.errors import HostError
from director.kit.rights import with_capability

if TYPE_CHECKING:
    from pyroute2 import IPRoute

# linux/if.h
IFF_UP = 0x1
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}

ADVICE: Mapping[int, str] = MappingProxyType(
    {
        errno.EPERM: with_capability("CAP_NET_ADMIN"),
        # addrconf_add_dev
        errno.EACCES: "IPv6 is switched off there (sysctl net.ipv6.conf.<interface>.disable_ipv6)",
    }
)


@contextmanager
def iproute(
    doing: str, already_so: Collection[int] = (), advice: Mapping[int, str] = MappingProxyType({})
) -> Iterator[IPRoute]:
    """An open IPRoute. An error number of `already_so` ends the block quietly: what was asked for holds.

    Raises: HostError, "could not DOING: ...", with what `advice` or `ADVICE` has for the error number.
    """
    # Imported here: 0.1 s (0.4 s in the lab), which a command that touches no address need not pay.
    from pyroute2 import IPRoute, NetlinkError

    try:
        with IPRoute() as ipr:
            yield ipr
    except NetlinkError as error:
        if error.code in already_so:
            return
        raise _told(doing, error.code, str(error.args[1]), advice) from error
    except OSError as error:
        raise _told(doing, error.errno, error.strerror or str(error), advice) from error


def _told(doing: str, code: int | None, reason: str, advice: Mapping[int, str]) -> HostError:
    known = {**ADVICE, **advice}
    after = f": {known[code]}" if code in known else ""
    return HostError(f"could not {doing}: {reason}{after}")
