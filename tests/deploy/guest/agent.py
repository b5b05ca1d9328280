"""The lab's agent as a service of the machine: one of its hosts is the machine itself, the others stand around it.

One rule: what it runs on the machine runs as it would for root at a console, with nothing of the project in its way.
"""

import json
import os
import sys
from collections.abc import Mapping

sys.path[0] = sys.path[0].removesuffix("/tests/deploy/guest")

from director.lab.guest import machine, syscalls  # noqa: E402 - the line above makes it findable
from director.lab.guest.agent import Agent  # noqa: E402
from director.lab.guest.layout import Layout, Place  # noqa: E402

MACHINE = "machine"


class AroundMachine(Layout):
    """A layout whose host `machine` is where the agent runs: it gets links and addresses, and nothing private."""

    def _create(self, name: str, sysctls: Mapping[str, str]) -> None:
        if name != MACHINE:
            super()._create(name, sysctls)
            return
        self.places[name] = Place.current()
        with open(f"/run/netns/{name}", "w"):
            pass
        syscalls.mount("/proc/self/ns/net", f"/run/netns/{name}", "", syscalls.MS_BIND)


class MachineAgent(Agent):
    """The agent, with hosts around the machine."""

    def do_lay_out(self, _number: int, order: Mapping[str, object]) -> dict[str, object]:
        self._layout = AroundMachine(order["topology"], self._home, self._run_ip, self._keep)  # type: ignore[arg-type]
        self._layout.build()
        return {}

    def do_clear(self, _number: int, _order: Mapping[str, object]) -> dict[str, object]:
        return {}  # its hosts end with the machine


def main() -> None:
    """Serve until the owner is gone, and switch the machine off."""
    bell = os.open("/dev/ttyS0", os.O_RDWR | os.O_NOCTTY)
    machine.make_raw(bell)
    syscalls.unshare(syscalls.CLONE_FS)
    with open(f"{machine.SHARED}/machine.json") as file:
        told = json.load(file)
    os.environ.clear()
    os.environ.update(told["environment"])
    agent = MachineAgent(machine.SHARED, bell, [], [])
    agent.answer({"job": 0, "release": os.uname().release})
    try:
        agent.serve()
    finally:
        syscalls.power_off()


if __name__ == "__main__":
    main()
