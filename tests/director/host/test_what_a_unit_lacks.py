"""What is told where a systemd unit keeps the director from what it needs: the directive by its name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from director.host.iptables import failure

pytestmark = pytest.mark.unit

_READ_ONLY = """
import subprocess
subprocess.run(["mount", "--make-rprivate", "/"], check=True)
subprocess.run(["mount", "--bind", "/proc/sys", "/proc/sys"], check=True)
subprocess.run(["mount", "-o", "remount,bind,ro", "/proc/sys"], check=True)
from director.host.sysctl import IP_FORWARD, write
from director.kit.errors import HostError
try:
    write(IP_FORWARD, "1")
except HostError as error:
    print(error)
"""
_NO_PACKETS = """
import errno, socket
from director.host.announce import Announcer
from director.kit.errors import HostError
def refuse(*kind):
    raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
socket.socket = refuse
try:
    Announcer()
except HostError as error:
    print(error)
"""


def said(*prefix: str, code: str) -> str:
    done = subprocess.run(
        [*prefix, sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30
    )
    if done.returncode and ("mount" in done.stderr or "unshare" in done.stderr):
        pytest.skip(f"no mount namespace can be made here: {done.stderr.splitlines()[-1]}")
    return done.stdout


def test_settings_that_are_read_only_name_the_directives() -> None:
    told = said("unshare", "--mount", "--net", code=_READ_ONLY)
    assert "/proc/sys is read-only here: in a systemd unit it needs ProtectKernelTunables=no" in told


def test_packet_sockets_that_are_not_allowed_name_the_directive() -> None:
    assert "in a systemd unit RestrictAddressFamilies= must have AF_PACKET" in said(code=_NO_PACKETS)


@pytest.mark.parametrize("why", ["Permission denied", "Read-only file system"])
def test_lock_of_iptables_that_cannot_be_had_says_who_makes_it(why: str) -> None:
    told = str(failure("iptables-restore", f"Fatal: can't open lock file /run/xtables.lock: {why}\n"))
    assert "have it made readable for this user's group, as deploy/systemd/director.tmpfiles does" in told
