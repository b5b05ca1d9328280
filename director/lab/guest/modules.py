"""Kernel modules by name or alias: what modprobe does, for a machine that need not have it installed.

One rule: a module is loaded after everything modules.dep names for it, and one already loaded is no error.
"""

import contextlib
import errno
import os
import sys

from director.lab.guest import syscalls

ROOT = "/usr/lib/uml/modules"


class Modules:
    """The modules of the running kernel; names may use `-` or `_`."""

    def __init__(self, release: str | None = None) -> None:
        self._folder = f"{ROOT}/{release or os.uname().release}"
        self._needs: dict[str, list[str]] = {}
        with open("/proc/modules") as lines:
            self._loaded = {line.partition(" ")[0] for line in lines}
        with open(f"{self._folder}/modules.dep") as lines:
            for line in lines:
                path, _, needs = line.partition(":")
                self._needs[_name(path)] = [path, *needs.split()]

    def load(self, wanted: str) -> bool:
        """Load a module, or every module with that alias; whether there was one.

        Raises: OSError when the kernel refuses it.
        """
        name = wanted.replace("-", "_")
        found = [name] if name in self._needs else self._aliased(wanted)
        for each in found:
            for path in reversed(self._needs[each]):
                if _name(path) not in self._loaded:
                    try:
                        syscalls.load_module(f"{self._folder}/{path}")
                    except OSError as error:
                        if error.errno != errno.EEXIST:
                            raise
                    self._loaded.add(_name(path))
        return bool(found)

    def _aliased(self, wanted: str) -> list[str]:
        from fnmatch import fnmatchcase

        found = []
        with open(f"{self._folder}/modules.alias") as lines:
            for line in lines:
                words = line.split()
                if words[0] == "alias" and fnmatchcase(wanted, words[1]) and words[2] in self._needs:
                    found.append(words[2])
        return found


def main(arguments: list[str]) -> None:
    """What the kernel calls as `modprobe -q -- NAME`: exit code 0 when loaded or built in, else 1."""
    names = [word for word in arguments if not word.startswith("-")]
    modules = Modules()
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            if not modules.load(name) and "-q" not in arguments:
                sys.stderr.write(f"modprobe: the kernel {os.uname().release} has no module {name}\n")
                sys.exit(1)


def _name(path: str) -> str:
    return path.rpartition("/")[2].partition(".")[0].replace("-", "_")
