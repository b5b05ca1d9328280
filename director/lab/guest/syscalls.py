"""System calls that Python 3.11 has no name for: namespaces, mounts, modules, power.

One rule: every call that fails raises OSError with the call's name and its main argument.
"""

import ctypes
import os

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWNET = 0x40000000
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2
MOUNT_ATTR_RDONLY = 1

_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_SYS_FINIT_MODULE = {"x86_64": 313, "aarch64": 273}
_SYS_MOUNT_SETATTR = 442  # the same number on every architecture since Linux 5.12
_PR_SET_NAME = 15
_RB_POWER_OFF = 0x4321FEDC

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_machine = os.uname().machine


class _MountAttributes(ctypes.Structure):
    """struct mount_attr of include/uapi/linux/mount.h."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags` for new ones."""
    _checked(_libc.unshare(flags), f"unshare {flags:#x}")


def enter(namespace_fd: int) -> None:
    """Enter the namespace behind an open file of /proc/PID/ns."""
    _checked(_libc.setns(namespace_fd, 0), f"setns {namespace_fd}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    code = _libc.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode())
    _checked(code, f"mount {kind or 'bind'} on {target}")


def unmount(target: str) -> None:
    """Detach a mount at once, and free it when its last user is gone."""
    _checked(_libc.umount2(target.encode(), MNT_DETACH), f"unmount {target}")


def set_read_only(target: str, read_only: bool, recursive: bool) -> None:
    """Change the read-only attribute of a mount, or of all mounts below it.

    Raises: OSError ENOSYS before Linux 5.12.
    """
    wanted, unwanted = (MOUNT_ATTR_RDONLY, 0) if read_only else (0, MOUNT_ATTR_RDONLY)
    attributes = _MountAttributes(wanted, unwanted, 0, 0)
    code = _libc.syscall(
        _SYS_MOUNT_SETATTR,
        _AT_FDCWD,
        target.encode(),
        _AT_RECURSIVE if recursive else 0,
        ctypes.byref(attributes),
        ctypes.sizeof(attributes),
    )
    _checked(code, f"mount_setattr {target}")


def pivot_root(new_root: str, put_old: str) -> None:
    """Make `new_root` the root, and the former one appear at `put_old` below it."""
    _checked(_libc.syscall(_SYS_PIVOT_ROOT[_machine], new_root.encode(), put_old.encode()), f"pivot_root {new_root}")


def load_module(path: str) -> None:
    """Load one kernel module file; its dependencies must be loaded already."""
    fd = os.open(path, os.O_RDONLY)
    try:
        _checked(_libc.syscall(_SYS_FINIT_MODULE[_machine], fd, b"", 0), f"insmod {path}")
    finally:
        os.close(fd)


def set_hostname(name: str) -> None:
    """Name the machine of this UTS namespace."""
    _checked(_libc.sethostname(name.encode(), len(name)), f"sethostname {name}")


def set_name(name: str) -> None:
    """Name this process, as `ps -o comm` and `pgrep` show it: 15 characters of its last part."""
    _checked(_libc.prctl(_PR_SET_NAME, name.rpartition("/")[2].encode()[:15], 0, 0, 0), f"prctl {name}")


def power_off() -> None:
    """Switch the kernel off; returns only if it refuses."""
    os.sync()
    _checked(_libc.reboot(_RB_POWER_OFF), "reboot")


def _checked(code: int, what: str) -> None:
    if code < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
