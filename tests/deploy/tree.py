"""The Debian that the machine boots: a small one with systemd, Ansible and what a director's host has installed.

One rule: it is made by mmdebstrap from the sources and with the settings of this machine's own apt, and holds neither.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.deploy.cache import cached, key_of

PACKAGES = (
    *("systemd-sysv", "kmod", "procps", "iproute2", "iptables", "ipvsadm", "curl", "iputils-ping", "iputils-arping"),
    *("python3", "python3-venv", "python3-apt", "ansible-core", "nginx-light", "openssl", "ca-certificates"),
)
LEFT_OUT = ("man", "locale", "doc", "info", "lintian")
MASKED = (
    *("e2scrub_reap.service", "getty-static.service", "getty@.service", "console-getty.service", "getty.target"),
    *("systemd-binfmt.service", "systemd-random-seed.service", "systemd-update-utmp.service", "systemd-pstore.service"),
    *("systemd-update-utmp-runlevel.service", "modprobe@.service", "dev-mqueue.mount", "dev-hugepages.mount"),
    *("sys-kernel-config.mount", "sys-fs-fuse-connections.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount"),
    *("proc-sys-fs-binfmt_misc.automount", "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer"),
    *("e2scrub_all.timer", "fstrim.timer", "systemd-remount-fs.service", "kmod-static-nodes.service"),
)
"""What a machine without disks and terminals only waits for."""
SETTLE = f"""
set -eu
cd "$1"
rm -f etc/apt/apt.conf.d/99mmdebstrap etc/apt/sources.list etc/apt/sources.list.d/* etc/resolv.conf
echo machine >etc/hostname
printf '127.0.0.1 localhost\\n127.0.1.1 machine\\n::1 localhost\\n' >etc/hosts
echo 0123456789abcdef0123456789abcdef >etc/machine-id
printf 'install nf_tables /bin/false\\n' >etc/modprobe.d/no-nftables.conf
for name in iptables ip6tables; do chroot . update-alternatives --quiet --set $name /usr/sbin/$name-legacy; done
chroot . systemctl --quiet disable nginx.service ipvsadm.service
chroot . systemctl --quiet mask {" ".join(MASKED)}
chroot . systemctl --quiet set-default multi-user.target
"""
"""The user-mode kernel's nf_tables knows no IP: where it is loaded, whoever looks at rules fails on it."""
TREE = "LVS_DEPLOY_TREE"


class TreeError(Exception):
    """There is no tree, and why; the operator's to mend."""


def tree() -> Path:
    """The tree, built where it is missing; $LVS_DEPLOY_TREE names another.

    Raises: TreeError.
    """
    if given := os.environ.get(TREE):
        if not Path(given, "lib/systemd/systemd").exists():
            raise TreeError(f"{TREE}={given}: there is no Debian with systemd in it")
        return Path(given).resolve()
    release = _release()
    recipe = key_of(release, *PACKAGES, *LEFT_OUT, SETTLE)
    return cached(f"{release}-tree", recipe, lambda folder: _build(release, folder))


def _release() -> str:
    values = {}
    for line in Path("/etc/os-release").read_text().splitlines():
        name, _, value = line.partition("=")
        values[name] = value.strip('"')
    if values.get("ID") != "debian":
        raise TreeError(f"a Debian tree is built on Debian: give one that is there, {TREE}=/its/folder")
    return values["VERSION_CODENAME"]


def _build(release: str, folder: Path) -> None:
    if os.geteuid() != 0:
        raise TreeError("a Debian tree is built by root: its files belong to root")
    if shutil.which("mmdebstrap") is None:
        raise TreeError("mmdebstrap is missing: apt-get install mmdebstrap")
    sys.stderr.write(f"building a Debian tree in {folder.parent}, once: this takes a minute or two\n")
    with tempfile.TemporaryDirectory() as scratch:
        sources = Path(scratch, "sources.list")
        sources.write_text(_sources())
        settings = Path(scratch, "apt.conf")
        settings.write_text(_settings())
        left_out = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in LEFT_OUT]
        command = [
            *("mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", f"--include={','.join(PACKAGES)}"),
            *(f"--aptopt={settings}", '--aptopt=APT::Install-Recommends "false"', "--dpkgopt=force-unsafe-io"),
            *(*left_out, f"--customize-hook={SETTLE}", release, str(folder), str(sources)),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TreeError(f"mmdebstrap failed with {done.returncode}:\n{done.stderr[-4000:]}")


def _sources() -> str:
    """The sources of this machine's apt that are Debian's."""
    names = "$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)"
    command = ["apt-get", "indextargets", "--format", names, "Created-By: Packages"]
    for update in (True, False):
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        found = [line.partition(" ")[2] for line in lines if line.startswith("Debian ")]
        if found:
            return "".join(f"deb {source}\n" for source in dict.fromkeys(found))
        if update:
            subprocess.run(["apt-get", "update", "-qq"], capture_output=True, check=True)
    raise TreeError("this machine's apt has no source of Debian's packages: see apt-get indextargets")


def _settings() -> str:
    """How this machine's apt fetches: proxies, certificates, checks."""
    lines = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout.splitlines()
    return "".join(f"{line}\n" for line in lines if line.startswith("Acquire::") and "::IndexTargets" not in line)
