"""The kernel's IPVS table: read all of it, write changes to it.

One rule: what is returned is what the kernel said. Nothing is cached between two calls but the family's
number and the socket.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from types import MappingProxyType, TracebackType
from typing import Self

from director.core.diff import AddReal, Change
from director.core.table import Foreign, Reading, SyncDaemon, Table, TableCounters, Timeouts, VirtualEntry, VirtualKey
from director.ipvs import attributes as a
from director.ipvs import encode, tlv
from director.ipvs.batch import Batch, batches
from director.ipvs.channel import Channel, LostError, RefusedError
from director.ipvs.decode import Service, decode_daemon, decode_family, decode_timeouts, decode_version
from director.ipvs.dump import CarriedByKey, Decoder, Reals
from director.ipvs.failure import Failure, failure
from director.kit.errors import KernelError
from director.kit.rights import with_capability

_NO_IPVS = (
    "this kernel has no IPVS: run `modprobe ip_vs` as root; in a container, run it on the host, whose kernel it is"
)
_NOT_PERMITTED = (
    f"not permitted to use IPVS: {with_capability('CAP_NET_ADMIN')}; root of a user namespace "
    "(a rootless container, PrivateUsers= of a unit) is not enough"
)


class IpvsClient:
    """A connection to the IPVS of one network namespace: the calling thread's, when the socket is made.

    `timeout_s` bounds the wait for each answer; dumps and batches have many. One thread at a time may use it.
    A socket that failed is replaced at the next call.
    """

    def __init__(self, timeout_s: float = 5.0) -> None:
        self._timeout_s = timeout_s
        self._channel: Channel | None = None
        self._family = 0
        self._decoder = Decoder()

    @classmethod
    def open(cls, timeout_s: float = 5.0) -> IpvsClient:
        """Connect, and make sure that IPVS is there and permitted.

        Raises: KernelError, with what to do.
        """
        client = cls(timeout_s)
        try:
            client.version()
        except KernelError:
            client.close()
            raise
        return client

    def close(self) -> None:
        """Let go of the socket."""
        if self._channel is not None:
            self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def version(self) -> str:
        """The version of the kernel's IPVS, such as `1.2.1`. Raises: KernelError."""
        bodies = self._ask(encode.get_info())
        if not bodies:
            raise KernelError("the kernel did not say its version of IPVS; try again")
        return decode_version(bodies[0])

    def read(self) -> tuple[Table, TableCounters]:
        """The table and its counters, without what the model cannot hold. Raises: KernelError."""
        reading = self.survey()
        return reading.table, reading.counters

    def survey(self) -> Reading:
        """The table, its counters and what is foreign.

        Real servers come in order of insertion; virtual servers in that of `VirtualKey.sort_key`, because the
        kernel keeps them by hash. A dump is no snapshot: while others write, an entry can be missing or come
        twice, and the next reading puts it right. Raises: KernelError.
        """
        foreign: list[Foreign] = []
        services: dict[VirtualKey, Service] = {}
        for body in self._ask(encode.list_services(), dump=True):
            service = self._decoder.service(body)
            if isinstance(service, Foreign):
                foreign.append(service)
            else:
                services[service.key] = service
        entries: dict[VirtualKey, VirtualEntry] = {}
        found: dict[VirtualKey, Reals] = {}
        for key in sorted(services, key=VirtualKey.sort_key):
            bodies = self._ask(encode.list_destinations(key), dump=True)
            reals = found[key] = self._decoder.destinations(key, reversed(bodies))  # newest first in a dump
            foreign += reals.foreign
            entries[key] = VirtualEntry(services[key].row, MappingProxyType(reals.rows))
        virtual_counters = {key: services[key].counters for key in entries}
        counters = TableCounters(MappingProxyType(virtual_counters), CarriedByKey(found))
        timeouts, sync = self._timeouts(), self._sync(foreign)
        return Reading(Table(MappingProxyType(entries), timeouts, sync), counters, tuple(foreign))

    def _timeouts(self) -> Timeouts:
        bodies = self._ask(encode.get_timeouts())
        if not bodies:
            raise KernelError("the kernel did not say its timeouts; try again")
        return decode_timeouts(bodies[0])

    def _sync(self, foreign: list[Foreign]) -> frozenset[SyncDaemon]:
        daemons = [decode_daemon(body) for body in self._ask(encode.list_daemons(), dump=True)]
        foreign += [daemon for daemon in daemons if isinstance(daemon, Foreign)]
        return frozenset(daemon for daemon in daemons if isinstance(daemon, SyncDaemon))

    def write(self, changes: Iterable[Change]) -> list[Failure]:
        """Make `changes` in order and return those that failed; a failed one stops none of the others.

        A failure that `is_stale` means that the table was not what the change took it for, or that the
        kernel's answer was lost and the change may have been made: read again.
        Raises: KernelError when nothing can be written, or no answer comes in time.
        """
        failures: list[Failure] = []
        changes = tuple(changes)
        channel = self._connected()
        first = channel.reserve(2 * len(changes))
        # Encoded while they are sent: all of ten thousand requests at once would be two megabytes to no purpose.
        for batch in batches(_requests(changes, failures), self._family, first):
            try:
                failures.extend(_write(channel, batch))
            except KernelError:
                channel.close()
                raise
        for change in changes:
            if isinstance(change, AddReal):
                self._decoder.expect(change.real)
        return failures

    def _ask(self, request: bytes, *, dump: bool = False) -> list[bytes]:
        try:
            return self._connected().ask(self._family, request, dump=dump)
        except RefusedError as error:
            if error.code in (errno.EPERM, errno.EACCES):
                raise KernelError(_NOT_PERMITTED) from error
            if error.code == errno.ENOENT:  # a family's number that no longer holds: the module was unloaded
                self.close()
                raise KernelError(_NO_IPVS) from error
            raise

    def _connected(self) -> Channel:
        """The channel, with the family's number known; asking for it makes the kernel load `ip_vs` (its
        module alias net-pf-16-proto-16-family-IPVS)."""
        if self._channel is not None and self._channel.is_open:
            return self._channel
        channel = Channel(self._timeout_s)
        try:
            bodies = channel.ask(a.GENL_ID_CTRL, encode.get_family(a.IPVS_GENL_NAME))
            if not bodies:
                raise KernelError(_NO_IPVS)
            self._family = decode_family(bodies[0])
        except RefusedError as error:
            channel.close()
            raise KernelError(_NO_IPVS if error.code == errno.ENOENT else str(error)) from error
        except KernelError:
            channel.close()
            raise
        self._channel = channel
        return channel


def _requests(changes: Iterable[Change], failures: list[Failure]) -> Iterator[tuple[Change, bytes]]:
    """Changes with what is sent for them; those with values that do not fit become `failures`."""
    encoder = encode.Encoder()
    for change in changes:
        try:
            yield change, encoder.encode(change)
        except KernelError as error:
            failures.append(Failure(change, errno.ERANGE, str(error)))


def _write(channel: Channel, batch: Batch) -> Iterator[Failure]:
    """Send one batch and take in its answers; the last request's comes last."""
    channel.send(batch.data)
    answered: set[int] = set()
    lost = False
    while batch.last not in answered:
        try:
            received = channel.receive(wait=not lost)
        except LostError:
            lost = True
            continue
        if not received and lost:  # all that was delivered has been read
            break
        for kind, flags, sequence, body in received:
            change = batch.change(sequence)
            if kind != a.NLMSG_ERROR or (change is None and sequence != batch.last):
                continue
            answered.add(sequence)
            answer = tlv.acknowledgement(flags, body)
            if answer.errno and change is not None:
                yield failure(change, answer.errno, answer.message)
    if lost:
        for place, change in enumerate(batch.changes):
            if (batch.first + place) & 0xFFFFFFFF not in answered:
                yield failure(change, errno.ENOBUFS)
