"""A host and its router, in network namespaces of their own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")

ROUTER, ROUTER6 = "10.9.0.1", "fd09::1"
UNREACHABLE, UNREACHABLE6 = "10.9.1.1", "fd09:1::1"
PROHIBITED = "10.9.2.1"
BLACK_HOLE, BLACK_HOLE6 = "10.9.3.1", "fd09:3::1"
MARK_WITHOUT_A_WAY = 0x5EAD
FILTERED_PORT = 7777

_CLONE_NEWNET = 0x40000000


class Beside:
    """Runs a function on a host whose default router answers for itself and says why the rest is out of reach."""

    def __init__(self, namespace: str) -> None:
        self._path = Path("/run/netns") / namespace

    def __call__(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises, in a thread that is in the namespace."""
        answers: list[T] = []
        errors: list[BaseException] = []

        def enter() -> None:
            try:
                with self._path.open("rb") as namespace:
                    if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                answers.append(work())
            except BaseException as error:  # noqa: BLE001 -- raised where it was asked for
                errors.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return answers[0]


@contextlib.contextmanager
def network() -> Iterator[Beside]:
    """Stands while the context does; skips the test where it cannot."""
    if os.geteuid() != 0:
        pytest.skip("only root can have network namespaces")
    here, router = f"probes{os.getpid()}h", f"probes{os.getpid()}r"
    inside, beyond = f"ip netns exec {here} ", f"ip netns exec {router} "
    made = _run(f"ip netns add {here}")
    if made.returncode:
        pytest.skip(f"this host gives no network namespaces: {made.stderr.strip()}")
    try:
        for command in (
            f"ip netns add {router}",
            f"ip -n {here} link add v0 type veth peer name v1 netns {router}",
            f"ip -n {here} link set lo up",
            f"ip -n {router} link set lo up",
            f"ip -n {here} addr add 10.9.0.2/24 dev v0",
            f"ip -n {here} addr add fd09::2/64 dev v0 nodad",
            f"ip -n {router} addr add {ROUTER}/24 dev v1",
            f"ip -n {router} addr add {ROUTER6}/64 dev v1 nodad",
            f"ip -n {here} link set v0 up",
            f"ip -n {router} link set v1 up",
            f"ip -n {here} route add default via {ROUTER}",
            f"ip -n {here} route add default via {ROUTER6}",
            f"{beyond}sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 "
            "net.ipv4.icmp_ratemask=0 net.ipv6.icmp.ratelimit=0",
            # By rules: error messages of unreachable routes are limited by tokens that nothing turns off. The way
            # leads back, so that a redirect comes before each.
            f"ip -n {router} route add 10.9.1.0/24 dev v1",
            f"ip -n {router} route add 10.9.2.0/24 dev v1",
            f"{beyond}iptables-legacy -A FORWARD -d 10.9.1.0/24 -j REJECT --reject-with icmp-host-unreachable",
            f"{beyond}iptables-legacy -A FORWARD -d 10.9.2.0/24 -j REJECT --reject-with icmp-admin-prohibited",
            f"ip -n {router} route add blackhole 10.9.3.0/24",
            f"ip -n {router} route add unreachable fd09:1::/64",
            f"ip -n {router} route add blackhole fd09:3::/64",
            f"ip -n {here} rule add fwmark {MARK_WITHOUT_A_WAY} lookup 77",
            f"ip -n {here} route add unreachable default table 77",
            f"{inside}iptables-legacy -A OUTPUT -p udp --dport {FILTERED_PORT} -j DROP",
            f"{inside}ping -q -c 1 -w 5 {ROUTER}",  # both ends are up, and know each other
            f"{inside}ping -q -c 1 -w 5 {ROUTER6}",
        ):
            done = _run(command)
            assert done.returncode == 0, f"{command}: {done.stderr}"
        yield Beside(here)
    finally:
        _run(f"ip netns del {here}")
        _run(f"ip netns del {router}")


def _run(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command.split(), check=False, capture_output=True, text=True)
