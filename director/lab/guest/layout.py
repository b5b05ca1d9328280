"""The hosts of one layout: namespaces with private folders, joined by bridges in a namespace of their own.

One rule: a host is nothing but open namespace files and processes; close the first and kill the second, and it
is gone, with its links, addresses, tables and mounts.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

from director.lab.guest import machine, syscalls

PRIVATE = ("/run", "/tmp", "/var/lib", "/var/log")  # noqa: S108 - the lab's own
PRIVATE_IN_ETC = ("director", "l7proxy", "keepalived", "bird")
_KEPT_IN_PRIVATE = ("/var/lib/nginx", "/var/log/nginx", "/run/lock")  # programs expect these to exist
_BASE = "/run/lab-hosts"
KINDS = ("net", "mnt", "uts")

RunIp = Callable[[str], None]
"""Runs `ip -batch` on a text, in the current namespaces; raises OSError with its complaint."""


class Place:
    """A set of namespaces, held open, and their identities as the links in /proc/PID/ns read."""

    def __init__(self, fds: list[int], identities: set[str]) -> None:
        self.fds = fds
        self.identities = identities

    @classmethod
    def current(cls, kinds: Sequence[str] = KINDS) -> "Place":
        fds = [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY) for kind in kinds]
        return cls(fds, {os.readlink(f"/proc/self/ns/{kind}") for kind in kinds})

    def enter(self) -> None:
        for fd in self.fds:
            syscalls.enter(fd)

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)


class Layout:
    """Hosts by name, as laid out from a topology in the form of director.lab.topology's `as_plain`."""

    def __init__(self, topology: Mapping[str, object], home: Place, run_ip: RunIp, keep: Sequence[str]) -> None:
        self._home = home
        self._keep = keep
        self.places: dict[str, Place] = {}
        self._topology = topology
        self._run_ip = run_ip
        self._switch: Place | None = None

    def build(self) -> None:
        """Create everything; on an error, what was created is there for `remove`."""
        hosts: Mapping[str, Mapping[str, object]] = self._topology["hosts"]  # type: ignore[assignment]
        networks: Sequence[str] = self._topology["networks"]  # type: ignore[assignment]
        os.makedirs(_BASE, exist_ok=True)
        os.makedirs("/run/netns", exist_ok=True)
        with self._back_home():
            syscalls.unshare(syscalls.CLONE_NEWNET)
            self._switch = Place.current(("net",))
            _write_sysctls({"net.ipv6.conf.all.disable_ipv6": "1", "net.ipv6.conf.default.disable_ipv6": "1"})
        for name, host in hosts.items():
            self._create(name, host["sysctls"])  # type: ignore[arg-type]
        with self.inside_switch():
            self._run_ip("\n".join(_cables(networks, hosts)))
        for name, host in hosts.items():
            with self.inside(name):
                self._run_ip("\n".join(_addresses(host)))

    @contextlib.contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """Be in a host's namespaces, in its root folder.

        Raises: KeyError when there is no such host.
        """
        place = self.places[name]
        with self._back_home():
            place.enter()
            yield

    @contextlib.contextmanager
    def inside_switch(self) -> Iterator[None]:
        """Be where the bridges are."""
        if self._switch is None:
            raise OSError("the layout has no switch: it was not built")
        with self._back_home():
            self._switch.enter()
            yield

    def identities(self) -> set[str]:
        """The identities of all namespaces of the hosts, for finding processes."""
        return {identity for place in self.places.values() for identity in place.identities}

    def remove(self) -> None:
        """Let go of everything; processes must be gone already."""
        for name, place in self.places.items():
            place.close()
            for path in (f"/run/netns/{name}", f"{_BASE}/{name}"):
                with contextlib.suppress(OSError):
                    syscalls.unmount(path)
        self.places.clear()
        if self._switch is not None:
            self._switch.close()
            self._switch = None

    @contextlib.contextmanager
    def _back_home(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._home.enter()

    def _create(self, name: str, sysctls: Mapping[str, str]) -> None:
        folder = f"{_BASE}/{name}"
        os.makedirs(folder, exist_ok=True)
        open(f"/run/netns/{name}", "w").close()
        syscalls.mount("tmpfs", folder, "tmpfs", 0, "mode=755")
        with self._back_home():
            syscalls.unshare(syscalls.CLONE_NEWNET | syscalls.CLONE_NEWNS | syscalls.CLONE_NEWUTS)
            self.places[name] = Place.current()
            syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
            syscalls.set_hostname(name)
            _mount_private(folder, self._keep)
            _write_sysctls(sysctls)
        syscalls.mount(f"/proc/self/fd/{self.places[name].fds[0]}", f"/run/netns/{name}", "", syscalls.MS_BIND)


def _mount_private(folder: str, keep: Sequence[str]) -> None:
    etc = f"{folder}/etc"
    for name in ("etc", "etc.upper", "etc.work"):
        os.mkdir(f"{folder}/{name}")
    layers = f"lowerdir=/etc,upperdir={etc}.upper,workdir={etc}.work"
    syscalls.mount("overlay", "/etc", "overlay", 0, layers)
    targets = [*PRIVATE[1:], *(f"/etc/{name}" for name in PRIVATE_IN_ETC), PRIVATE[0]]
    for target in targets:
        source = folder + target
        os.makedirs(source, exist_ok=True)
        os.makedirs(target, exist_ok=True)
    for path in _KEPT_IN_PRIVATE:
        os.makedirs(folder + path)
    os.chmod(folder + PRIVATE[1], 0o1777)  # noqa: S103 - as /tmp is
    os.mkdir(folder + machine.LAB)
    syscalls.mount(machine.LAB, folder + machine.LAB, "", syscalls.MS_BIND | syscalls.MS_REC)
    machine.Kept(keep, PRIVATE).restore(folder)
    for target in targets:  # /run last: it hides the folder
        syscalls.mount(folder + target, target, "", syscalls.MS_BIND | syscalls.MS_REC)
    syscalls.mount("sysfs", "/sys", "sysfs")


def _write_sysctls(sysctls: Mapping[str, str]) -> None:
    for key, value in sysctls.items():
        path = "/proc/sys/" + key.replace(".", "/")
        try:
            with open(path, "w") as file:
                file.write(value)
        except OSError as error:
            raise OSError(error.errno, f"sysctl {key}={value}: {error.strerror}") from error


def _cables(networks: Sequence[str], hosts: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    for network in networks:
        yield f"link add {network} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
        yield f"link set {network} up"
    number = 0
    for name, host in hosts.items():
        links: Mapping[str, Mapping[str, str]] = host["links"]  # type: ignore[assignment]
        for network, link in links.items():
            number += 1
            peer = f"name {network} address {link['mac']} netns {name}"
            yield f"link add {link['port']} type veth peer {peer}"
            yield f"link set {link['port']} master {network} up"


def _addresses(host: Mapping[str, object]) -> Iterator[str]:
    links: Mapping[str, Mapping[str, str]] = host["links"]  # type: ignore[assignment]
    gateways: Sequence[str] = host["gateways"]  # type: ignore[assignment]
    yield "link set lo up"
    for network, link in links.items():
        yield f"link set {network} up"
        for address in link["addresses"]:
            yield f"address add {address} dev {network}" + (" nodad" if ":" in address else "")
    for gateway in gateways:
        yield f"route add default via {gateway}"
