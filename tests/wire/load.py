"""Clients that never give in: each failure of each request is counted, by what was seen.

One rule: they are strict. A request that was sent must be answered whole: there is no second try, whoever was to blame.
What a server may do is to close a connection after an answer that says so, or one that no request is on.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.wire.harness import PATIENCE_S

ANSWERS_WITHIN_S = PATIENCE_S


class Load:
    """`kept` clients on connections that are kept, `fresh` ones with a connection for each request."""

    def __init__(self, port: int, kept: int, fresh: int, body: bytes = b"", tls: ssl.SSLContext | None = None) -> None:
        self._port = port
        self._tls = tls
        self._kept = kept
        self._fresh = fresh
        head = f"{'POST' if body else 'GET'} /x HTTP/1.1\r\nHost: a\r\n"
        head += f"Content-Length: {len(body)}\r\n" if body else ""
        self._request = head.encode() + b"\r\n" + body
        self._last = head.encode() + b"Connection: close\r\n\r\n" + body
        self.answered = 0
        self.closed_by_answer = 0
        self.failures: Counter[str] = Counter()
        self.served_by: Counter[bytes] = Counter()
        self._ends = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Load]:
        """Load for as long as the body runs; each request that was begun is waited for."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._kept):
                group.create_task(self._keep())
            for _ in range(self._fresh):
                group.create_task(self._renew())
            try:
                yield self
            finally:
                self._ends.set()

    async def more(self, count: int) -> None:
        """Wait until so many more are answered, or one has failed."""
        until = self.answered + count
        async with asyncio.timeout(3 * PATIENCE_S):
            while self.answered < until and not self.failures:  # noqa: ASYNC110 -- bounded
                await asyncio.sleep(0.005)

    async def _keep(self) -> None:
        while not self._ends.is_set():
            pair = await self._connect()
            if pair is None:
                continue
            reader, writer = pair
            try:
                while not self._ends.is_set() and not reader.at_eof():
                    if not await self._one(reader, writer, self._request):
                        break
                    await asyncio.sleep(random.random() * 0.04)  # noqa: S311 -- no secret
            finally:
                writer.close()

    async def _renew(self) -> None:
        while not self._ends.is_set():
            pair = await self._connect()
            if pair is not None:
                await self._one(*pair, self._last)
                pair[1].close()
            await asyncio.sleep(random.random() * 0.02)  # noqa: S311 -- no secret

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        try:
            async with asyncio.timeout(ANSWERS_WITHIN_S):
                return await asyncio.open_connection("127.0.0.1", self._port, ssl=self._tls)
        except (OSError, TimeoutError) as error:
            self.failures[f"connect: {type(error).__name__}"] += 1
            await asyncio.sleep(0.05)
            return None

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bool:
        """One exchange; whether the connection may have another."""
        part = "before the answer"
        try:
            async with asyncio.timeout(ANSWERS_WITHIN_S):
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                part = "in the answer"
                lines = head.lower().split(b"\r\n")
                size = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
                await reader.readexactly(size)
        except (OSError, EOFError, TimeoutError) as error:
            self.failures[f"{part}: {type(error).__name__}"] += 1
            return False
        if lines[0].split(b" ")[1] != b"200":
            self.failures[f"status {lines[0].split(b' ')[1].decode()}"] += 1
        self.answered += 1
        closes = b"connection: close" in lines
        self.closed_by_answer += closes
        return not closes
