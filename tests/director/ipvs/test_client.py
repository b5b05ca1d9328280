"""The socket and the messages for operators: what shows on any Linux, with or without IPVS."""

from __future__ import annotations

import errno
from ipaddress import ip_address

import pytest

from director.core.diff import (
    AddReal,
    AddVirtual,
    Change,
    EditReal,
    EditVirtual,
    RemoveReal,
    RemoveVirtual,
    SetTimeouts,
    StartSync,
    StopSync,
)
from director.core.table import (
    Forward,
    Protocol,
    RealRow,
    SyncDaemon,
    SyncRole,
    Timeouts,
    VirtualEntry,
    VirtualKey,
    VirtualRow,
)
from director.ipvs import attributes as a
from director.ipvs import encode
from director.ipvs.channel import Channel, RefusedError
from director.ipvs.client import IpvsClient
from director.ipvs.decode import decode_family
from director.ipvs.failure import failure
from director.kit.errors import KernelError
from director.kit.net import Endpoint

pytestmark = pytest.mark.unit

KEY = VirtualKey.of(Protocol.TCP, ip_address("10.0.0.1"), 80)
REAL = Endpoint(ip_address("10.0.0.2"), 80)
SYNC = SyncDaemon(SyncRole.MASTER, "eth0")
ROW, REAL_ROW = VirtualRow("wlc"), RealRow(Forward.NAT, 1)


def test_family_is_found_by_name() -> None:
    with Channel(2.0) as channel:
        (body,) = channel.ask(a.GENL_ID_CTRL, encode.get_family("nlctrl"))
    assert decode_family(body) == a.GENL_ID_CTRL


def test_refusal_leaves_the_channel_open() -> None:
    with Channel(2.0) as channel:
        for _ in range(2):
            with pytest.raises(RefusedError) as refused:
                channel.ask(a.GENL_ID_CTRL, encode.get_family("no-such-family"))
            assert refused.value.code == errno.ENOENT
        assert channel.is_open


def test_silence_ends_in_an_error() -> None:
    with Channel(0.05) as channel, pytest.raises(KernelError, match="did not answer in time"):
        channel.receive()


def test_client_makes_a_new_socket_after_a_failed_one() -> None:
    def outcome() -> str:
        try:
            return client.version()
        except KernelError as error:
            return str(error)

    with IpvsClient(2.0) as client:
        first = outcome()
        client.close()
        assert outcome() == first


def test_kernel_without_ipvs_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(a, "IPVS_GENL_NAME", "no-such-family")
    with pytest.raises(KernelError, match="modprobe ip_vs"):
        IpvsClient.open()


@pytest.mark.parametrize(
    ("change", "code", "words", "is_stale"),
    [
        (AddVirtual(KEY, ROW), errno.EEXIST, "cannot create tcp 10.0.0.1:80: it exists already", True),
        (AddVirtual(KEY, ROW), errno.ENOENT, "modprobe ip_vs_wlc", False),
        (EditVirtual(KEY, ROW, ROW), errno.ENOENT, "scheduler 'wlc' is not in this kernel", False),
        (EditVirtual(KEY, ROW, ROW), errno.ESRCH, "virtual server tcp 10.0.0.1:80 is not in the kernel", True),
        (RemoveVirtual(KEY, VirtualEntry(ROW)), errno.ESRCH, "cannot remove tcp 10.0.0.1:80", True),
        (AddReal(KEY, REAL, REAL_ROW), errno.EEXIST, "cannot add 10.0.0.2:80 to tcp 10.0.0.1:80", True),
        (AddReal(KEY, REAL, REAL_ROW), errno.EINVAL, "must be a unicast one", False),
        (SetTimeouts(None, Timeouts(1, 2, 3)), errno.EPERM, "cannot set the timeouts to tcp 1 s, tcpfin 2 s", False),
        (StartSync(SYNC), errno.ENOMEM, "cannot start the sync master on eth0: the kernel has no memory", False),
        (StartSync(SYNC), errno.EIO, "cannot start the sync master on eth0: the kernel answered EIO", False),
        (StopSync(SYNC), errno.ENOBUFS, "cannot stop the sync master on eth0: the kernel's answer was lost", True),
        (EditReal(KEY, REAL, REAL_ROW, REAL_ROW), errno.ENOENT, "it is not in the kernel", True),
        (RemoveReal(KEY, REAL, REAL_ROW), errno.ENOENT, "it is not in the kernel", True),
        (RemoveReal(KEY, REAL, REAL_ROW), errno.ENOBUFS, "answer was lost", True),
        (AddReal(KEY, REAL, REAL_ROW), errno.ERANGE, "lower threshold", False),
        (AddReal(KEY, REAL, REAL_ROW), errno.EPERM, "CAP_NET_ADMIN", False),
        (AddReal(KEY, REAL, REAL_ROW), errno.EIO, "EIO", False),
    ],
)
def test_failure_names_the_change_and_what_to_do(change: Change, code: int, words: str, is_stale: bool) -> None:
    found = failure(change, code, "its own words")
    assert words in found.reason
    assert found.reason.endswith("(the kernel says: its own words)")
    assert (found.change, found.errno, found.is_stale) == (change, code, is_stale)
