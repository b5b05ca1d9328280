"""What is measured of a running director, gathered from whoever knows it.

One rule: it only reads.
"""

from __future__ import annotations

from director.control import Control
from director.core.metrics import Work
from director.core.status import Status
from director.hooks import Hooks
from director.notifier import Notifier
from director.requests import Requests


class Measures:
    """For the metrics endpoint; for the loop's thread."""

    def __init__(self, requests: Requests, control: Control, hooks: Hooks, notifier: Notifier) -> None:
        self._requests = requests
        self._control = control
        self._hooks = hooks
        self._notifier = notifier

    async def status(self) -> Status:
        """A fresh look at the kernel beside what is known. Raises: KernelError."""
        return await self._requests.status()

    def work(self) -> Work:
        """What has been counted up to now."""
        control, hooks = self._control, self._hooks
        probes, punctuality = control.probes()
        return Work(
            looks=control.looks,
            probes=probes,
            probes_due=punctuality.due,
            probes_on_time=punctuality.on_time,
            taken_at=control.taken_at,
            hooks={
                virtual.name: (hooks.run_for[virtual.name], hooks.failed_for[virtual.name])
                for virtual in control.config.virtual_servers
                if virtual.policy.quorum.on_up is not None or virtual.policy.quorum.on_down is not None
            },
            deliveries=self._notifier.tallies(),
        )
