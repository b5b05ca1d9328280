"""The machine the hosts stand on: what the agent mounts before it answers.

One rule: nothing outside the agent's own mount namespace changes, and only `folder` is written through.
"""

import contextlib
import os
from collections.abc import Mapping, Sequence

from director.lab.guest import modules, syscalls

LAB = "/run/lab"
"""What the machine and every host see alike: `bin` with the project's programs, and the shared folder."""
SHARED = f"{LAB}/shared"


HIDDEN = ("/dev/shm", "/tmp", "/run")  # noqa: S108 - mount points, covered by folders of the machine's own


class Kept:
    """Folders that stay visible where a fresh one covers them: a clone of the project in /tmp, say.

    Made before the covering, `restore` after it.
    """

    def __init__(self, paths: Sequence[str], under: Sequence[str]) -> None:
        self._held = {
            path: os.open(path, os.O_PATH) for path in paths if any(path.startswith(f"{top}/") for top in under)
        }

    def restore(self, root: str = "") -> None:
        """Bind each to its path below `root`."""
        for path, fd in self._held.items():
            os.makedirs(root + path, exist_ok=True)
            syscalls.mount(f"/proc/self/fd/{fd}", root + path, "", syscalls.MS_BIND | syscalls.MS_REC)
            os.close(fd)
        self._held.clear()


def prepare_uml(folder: str, keep: Sequence[str]) -> None:
    """As init of a user-mode kernel with the host's files as a read-only root: a writable root in memory.

    The root is an overlay entered by pivot_root, because the kernel starts modprobe in init's root: with a
    chroot, schedulers that load by themselves come back as ENOENT.
    """
    version = os.uname().release
    syscalls.mount("proc", "/proc", "proc")
    syscalls.mount("tmpfs", "/tmp", "tmpfs")  # noqa: S108 - a mount point of the guest
    syscalls.load_module(f"{modules.ROOT}/{version}/kernel/fs/overlayfs/overlay.ko")
    for name in ("upper", "work", "root"):
        os.mkdir(f"/tmp/{name}")  # noqa: S108 - the guest's own
    root = "/tmp/root"  # noqa: S108
    syscalls.mount("overlay", root, "overlay", 0, "lowerdir=/,upperdir=/tmp/upper,workdir=/tmp/work")
    os.makedirs(f"{root}/.before")
    syscalls.pivot_root(root, f"{root}/.before")
    os.chdir("/")
    kept = Kept(keep, HIDDEN)
    _mount_fresh("/dev", "devtmpfs")
    _mount_devices()
    kept.restore()
    os.makedirs("/lib/modules", exist_ok=True)
    _mount_fresh("/lib/modules", "tmpfs")
    os.mkdir(f"/lib/modules/{version}")
    syscalls.mount(f"{modules.ROOT}/{version}", f"/lib/modules/{version}", "", syscalls.MS_BIND)
    os.makedirs(SHARED)
    syscalls.mount("none", SHARED, "hostfs", 0, folder)
    syscalls.unmount("/.before")
    syscalls.set_hostname("lab")


def prepare_namespaces(folder: str, keep: Sequence[str]) -> None:
    """As the first process of new mount, network and process namespaces: the host's files, read-only.

    Raises: OSError where the kernel is older than 5.12.
    """
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    folder_fd = os.open(folder, os.O_PATH)
    syscalls.set_read_only("/", True, recursive=True)
    kept = Kept(keep, HIDDEN)
    _mount_fresh("/dev/pts", "devpts", "newinstance,ptmxmode=0666,mode=620,gid=5")
    _mount_devices(pts=False)
    kept.restore()
    os.makedirs(SHARED)
    syscalls.mount(f"/proc/self/fd/{folder_fd}", SHARED, "", syscalls.MS_BIND)
    syscalls.set_read_only(SHARED, False, recursive=False)
    os.close(folder_fd)


def write_programs(programs: Mapping[str, str]) -> None:
    """Write the scripts that go by a name on every host's PATH."""
    os.mkdir(f"{LAB}/bin")
    for name, text in programs.items():
        with open(f"{LAB}/bin/{name}", "w") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o755)


def load_modules(names: Sequence[str]) -> None:
    """Load modules now, and have the kernel call our own modprobe for others."""
    with open("/proc/sys/kernel/modprobe", "w") as file:
        file.write(f"{LAB}/bin/modprobe")
    known = modules.Modules()
    for name in names:
        known.load(name)


def make_raw(terminal: int) -> None:
    """Have a serial line pass bytes as they are."""
    import termios
    import tty

    tty.setraw(terminal, termios.TCSANOW)


def _mount_devices(pts: bool = True) -> None:
    if pts:
        os.makedirs("/dev/pts", exist_ok=True)
        _mount_fresh("/dev/pts", "devpts")
    with contextlib.suppress(FileExistsError, OSError):
        os.mkdir("/dev/shm")  # noqa: S108
    for target in HIDDEN:
        _mount_fresh(target, "tmpfs", "mode=1777" if target != "/run" else "mode=755")
    _mount_fresh("/proc", "proc")
    _mount_fresh("/sys", "sysfs")


def _mount_fresh(target: str, kind: str, options: str = "") -> None:
    syscalls.mount(kind, target, kind, 0, options)
