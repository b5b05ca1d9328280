"""The first program of the machine: it puts a writable root over the Debian tree, and becomes systemd.

One rule: nothing outside this kernel changes; what the machine writes is in its memory. It runs by the Python of the
machine that started it, from that machine's files, until it enters the tree.
"""

import json
import os
import sys

sys.path[0] = sys.path[0].removesuffix("/tests/deploy/guest")

from director.lab.guest import machine, modules, syscalls  # noqa: E402 - the line above makes it findable

_MEMORY = "/tmp"
_UNIT = """\
[Unit]
DefaultDependencies=no
After=systemd-tmpfiles-setup-dev.service
[Service]
Type=exec
ExecStart=/usr/bin/python3 -SEsB {project}/tests/deploy/guest/agent.py
KillMode=process
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
OOMScoreAdjust=-900
[Install]
WantedBy=sysinit.target
"""


def main(folder: str) -> None:
    """Never returns: it is systemd then."""
    version = os.uname().release
    syscalls.mount("proc", "/proc", "proc")
    syscalls.mount("tmpfs", _MEMORY, "tmpfs")
    os.mkdir(f"{_MEMORY}/shared")
    syscalls.mount("none", f"{_MEMORY}/shared", "hostfs", 0, folder)
    with open(f"{_MEMORY}/shared/machine.json") as file:
        told = json.load(file)
    syscalls.load_module(f"{modules.ROOT}/{version}/kernel/fs/overlayfs/overlay.ko")
    root = f"{_MEMORY}/root"
    for path in (f"{_MEMORY}/upper", f"{_MEMORY}/work", root):
        os.mkdir(path)
    layers = f"lowerdir={told['tree']},upperdir={_MEMORY}/upper,workdir={_MEMORY}/work"
    syscalls.mount("overlay", root, "overlay", 0, layers)
    mounts = {machine.SHARED: (folder, 0), f"/usr/lib/modules/{version}": (f"{modules.ROOT}/{version}", 1)}
    mounts |= {f"{machine.LAB}/{name}": (path, 1) for name, path in told["mounts"].items()}
    syscalls.mount("tmpfs", f"{root}/run", "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=755")
    for target, (source, flags) in mounts.items():
        os.makedirs(root + target, exist_ok=True)
        syscalls.mount("none", root + target, "hostfs", flags, source)
    _write_unit(f"{root}/run/systemd/system")
    os.mkdir(f"{root}/.before")
    syscalls.pivot_root(root, f"{root}/.before")
    os.chdir("/")
    syscalls.unmount("/.before")
    os.rmdir("/.before")
    os.execve("/lib/systemd/systemd", ["/sbin/init"], {"TERM": "dumb", "LANG": "C.UTF-8"})  # noqa: S606


def _write_unit(folder: str) -> None:
    os.makedirs(f"{folder}/sysinit.target.wants")
    with open(f"{folder}/lab-agent.service", "w") as file:
        file.write(_UNIT.format(project=f"{machine.LAB}/project"))
    os.symlink("../lab-agent.service", f"{folder}/sysinit.target.wants/lab-agent.service")


if __name__ == "__main__":
    main(sys.argv[1])
