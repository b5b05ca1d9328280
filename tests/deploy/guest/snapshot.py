"""Everything that an installation may leave on a machine, as JSON: files, sysctls, addresses, routes, rules.

One rule: what changes by itself is left out by name, here; all else that differs before and after was left behind.
"""

import hashlib
import json
import os
import stat
import subprocess
import sys

FOLDERS = ("/etc", "/opt", "/usr", "/var/lib", "/var/cache", "/var/spool", "/run", "/root", "/srv", "/home")
LEFT_OUT = (
    *("/run/lab", "/run/log", "/run/netns", "/run/systemd", "/run/lab-hosts", "/run/mount", "/run/utmp", "/run/udev"),
    *("/run/lock", "/run/xtables.lock", "/root/.ansible", "/root/play.yml", "/root/inventory.json", "/etc/.pwd.lock"),
    *("/usr/lib/modules", "/usr/lib/python3", "/usr/lib/python3.11", "/var/lib/systemd", "/var/cache/ldconfig"),
)
"""Written by systemd and by Ansible while they work, or by Python for itself. The lock is of whoever uses iptables."""
BACKUPS = ("/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-")
SYSCTLS = ("/proc/sys/net", "/proc/sys/kernel/modprobe", "/proc/sys/fs/file-max")


def files() -> dict[str, str]:
    found: dict[str, str] = {}
    for top in FOLDERS:
        for folder, folders, names in os.walk(top):
            folders[:] = [name for name in folders if f"{folder}/{name}" not in LEFT_OUT and name != "__pycache__"]
            for name in [*folders, *names]:
                path = f"{folder}/{name}"
                if path not in LEFT_OUT and path not in BACKUPS:
                    found[path] = _told(path)
    return found


def _told(path: str) -> str:
    about = os.lstat(path)
    told = f"{stat.filemode(about.st_mode)} {about.st_uid}:{about.st_gid}"
    if stat.S_ISLNK(about.st_mode):
        return f"{told} -> {os.readlink(path)}"
    if stat.S_ISREG(about.st_mode) and path.startswith("/etc/"):
        with open(path, "rb") as file:
            return f"{told} {hashlib.sha256(file.read()).hexdigest()}"
    return f"{told} {about.st_size}" if stat.S_ISREG(about.st_mode) else told


def sysctls() -> dict[str, str]:
    found = {}
    for top in SYSCTLS:
        for folder, _, names in os.walk(top):
            for name in names:
                path = f"{folder}/{name}"
                try:
                    with open(path) as file:
                        found[path.removeprefix("/proc/sys/")] = file.read().strip()
                except OSError:
                    found[path] = "unreadable"
        if os.path.isfile(top):
            with open(top) as file:
                found[top.removeprefix("/proc/sys/")] = file.read().strip()
    return found


def lines(*command: str) -> list[str]:
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()


def table() -> list[str]:
    """Without ipvsadm, which would load the module."""
    try:
        with open("/proc/net/ip_vs") as file:
            return file.read().splitlines()[3:]
    except OSError:
        return []


def main() -> None:
    rules = [line for program in ("iptables-save", "ip6tables-save") for line in lines(program)]
    links = json.loads("\n".join(lines("ip", "-j", "address")))
    kept = [
        [link["ifname"], link["flags"], *sorted((at["local"], at["prefixlen"]) for at in link["addr_info"])]
        for link in links
    ]
    units = lines("systemctl", "list-unit-files", "--no-legend", "--plain")
    told = {
        "files": files(),
        "sysctls": sysctls(),
        "addresses": {str(link[0]): str(link[1:]) for link in kept},
        "routes": dict.fromkeys(lines("ip", "route", "show", "table", "all"), ""),
        "rules": dict.fromkeys([line for line in rules if line.startswith("-A") or " - [" in line], ""),
        "policy rules": dict.fromkeys(lines("ip", "rule"), ""),
        "units": {" ".join(line.split()[:2]): "" for line in units},
        "IPVS": dict.fromkeys(table(), ""),
        "failed units": dict.fromkeys(lines("systemctl", "list-units", "--failed", "--no-legend", "--plain"), ""),
    }
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
