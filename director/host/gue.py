"""UDP ports on which this kernel unwraps GUE (linux/fou.h): which are there, open one, close one.

One rule: a port is a whole: one that is open already, whoever opened it, serves as well.

What comes out is an IPv4 or IPv6 packet in its outer addresses, which the tunnel devices then judge: a port open
to everybody lets in only what has a device. Blocks, and needs a thread without a running loop, like rtnetlink.
"""

from __future__ import annotations

import contextlib
import errno
import subprocess
from collections.abc import Iterable, Iterator
from typing import Any

from director.host.change import Change
from director.host.decapsulation import Listener
from director.host.rtnetlink import FAMILIES
from director.kit.errors import HostError
from director.kit.rights import with_capability

# linux/fou.h
_FAMILY = "fou"
_ADD, _DELETE, _GET = 1, 2, 3
_TYPE_GUE = 2
_ATTRIBUTES = (
    ("FOU_ATTR_UNSPEC", "none"),
    ("FOU_ATTR_PORT", "be16"),
    ("FOU_ATTR_AF", "uint8"),
    ("FOU_ATTR_IPPROTO", "uint8"),
    ("FOU_ATTR_TYPE", "uint8"),
)


def present() -> frozenset[Listener]:
    """The GUE ports that are open.

    Raises: HostError when this kernel has no fou.
    """
    with _Fou() as fou:
        return fou.listeners()


def enforce(wanted: Iterable[Listener], there: frozenset[Listener]) -> list[Change]:
    """Open every port of `wanted` that is not in `there`.

    Raises: HostError when something else has the UDP port.
    """
    missing = sorted(frozenset(wanted) - there)
    changes = []
    for listener in missing:
        with _Fou() as fou:
            fou.add(listener)
        changes.append(Change("port", str(listener), None, "open"))
    return changes


def remove(unwanted: Iterable[Listener]) -> list[Change]:
    """Close those of `unwanted` that are open.

    Raises: HostError when the kernel refuses.
    """
    ports = sorted(unwanted)
    if not ports:
        return []
    changes = []
    with _Fou() as fou:
        there = fou.listeners()
        for listener in ports:
            if listener in there:
                fou.delete(listener)
                changes.append(Change("port", str(listener), "open", None))
    return changes


class _Fou:
    """The kernel's fou family, for a while."""

    def __init__(self) -> None:
        self._socket, self._message = _connect()

    def __enter__(self) -> _Fou:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def listeners(self) -> frozenset[Listener]:
        from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST

        versions = {family: version for version, family in FAMILIES.items()}
        answers = self._ask("list GUE ports", _GET, NLM_F_REQUEST | NLM_F_DUMP, None)
        return frozenset(
            Listener(int(each.get("port")), versions[each.get("af")])
            for each in answers
            if each.get("type") == _TYPE_GUE
        )

    def add(self, listener: Listener) -> None:
        self._change(f"open {listener}", _ADD, listener)

    def delete(self, listener: Listener) -> None:
        self._change(f"close {listener}", _DELETE, listener)

    def _change(self, doing: str, command: int, listener: Listener) -> None:
        from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST

        for _ in self._ask(doing, command, NLM_F_REQUEST | NLM_F_ACK, listener):
            pass

    def _ask(self, doing: str, command: int, flags: int, listener: Listener | None) -> Iterator[Any]:
        from pyroute2 import NetlinkError

        message = self._message()
        message["cmd"], message["version"] = command, 1
        if listener is not None:
            message["attrs"] = [
                ("FOU_ATTR_PORT", listener.port),
                ("FOU_ATTR_AF", FAMILIES[listener.version]),
                ("FOU_ATTR_TYPE", _TYPE_GUE),
            ]
        try:
            yield from self._socket.nlm_request(message, msg_type=self._socket.prid, msg_flags=flags)
        except NetlinkError as error:
            advice = {
                errno.EADDRINUSE: "another program has the port (ss -lunp), or `ip fou show` has it with another type",
                errno.EPERM: with_capability("CAP_NET_ADMIN"),
            }.get(error.code, "")
            raise HostError(f"could not {doing}: {error.args[1]}{': ' if advice else ''}{advice}") from error


def _connect() -> tuple[Any, Any]:
    from pyroute2 import NetlinkError
    from pyroute2.netlink import genlmsg
    from pyroute2.netlink.generic import AsyncGenericNetlinkSocket, GenericNetlinkSocket

    class Quiet(AsyncGenericNetlinkSocket):  # type: ignore[misc]  # pyroute2 has no types
        module_err_level = "debug"

    class Socket(GenericNetlinkSocket):  # type: ignore[misc]  # pyroute2 has no types
        async_class = Quiet

    class Message(genlmsg):  # type: ignore[misc]  # pyroute2 has no types
        prefix = "FOU_ATTR_"
        nla_map = _ATTRIBUTES

    for attempt in ("as it is", "with the module"):
        connection = Socket()
        try:
            connection.bind(_FAMILY, Message)
            return connection, Message
        except NetlinkError as error:
            connection.close()
            if error.code != errno.ENOENT:
                raise HostError(f"could not ask the kernel for fou: {error.args[1]}") from error
        if attempt == "as it is":
            # Generic netlink loads no module for this family: ip-fou(8) has the same want.
            with contextlib.suppress(OSError):
                subprocess.run(["modprobe", "-q", "fou"], check=False, capture_output=True)
    raise HostError(
        "this kernel cannot receive gue: it has no module fou (CONFIG_NET_FOU): load or build it, "
        "or tunnel with ipip or gre"
    )
