"""An origin that keeps requests until a test lets them go."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from tests.wire.harness import PATIENCE_S, Origin


def begun(request: Coroutine[None, None, bytes]) -> asyncio.Task[bytes]:
    """A request that is on its way while a test looks at others."""
    return asyncio.get_running_loop().create_task(request)


class Gate:
    """Its `answer` holds each request back until it is open."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self.held = 0
        self.most = 0
        self.seen: list[bytes] = []

    def open(self) -> None:
        """Let them all go, and those that come."""
        self._open.set()

    async def answer(
        self, origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.held += 1
        self.most = max(self.most, self.held)
        self.seen.append(head.split(b" ")[1])
        try:
            await self._open.wait()
        finally:
            self.held -= 1
        name = origin.name.encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name))

    async def has(self, count: int) -> None:
        """Wait until it holds so many."""
        async with asyncio.timeout(PATIENCE_S):
            while self.held < count:  # noqa: ASYNC110 -- what is waited for has no event
                await asyncio.sleep(0.002)
