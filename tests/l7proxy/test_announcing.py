"""When the service manager hears how an l7proxy is, over a real datagram socket."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from director.kit.service import ServiceManager
from l7proxy.announcing import Announcer

pytestmark = pytest.mark.unit


def test_ready_that_found_no_room_is_told_at_a_later_look(tmp_path: Path) -> None:
    async def story() -> list[bytes]:
        manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify")})  # which has no watchdog
        announcer = Announcer(manager, lambda: "1 listener")
        loop = asyncio.get_running_loop()
        while manager.status("fills the queue"):
            pass
        announcer.ready()
        heard: list[bytes] = []
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            looks = group.create_task(announcer.run())
            while not heard or heard[-1] == b"STATUS=fills the queue":
                heard.append(await loop.sock_recv(listener, 999))
            looks.cancel()
        return heard

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listener:
        listener.bind(str(tmp_path / "notify"))
        assert asyncio.run(story())[-1].startswith(b"READY=1\nSTATUS=1 listener")
