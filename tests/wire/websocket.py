"""A WebSocket client on a bare connection (RFC 6455), for short frames and long ones, and nothing fragmented."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import struct
from typing import Self

from tests.wire.harness import fields_of, status_of

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class WebSocket:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int, target: str) -> Self:
        """Shake hands. Raises: AssertionError."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        key = base64.b64encode(os.urandom(16))
        writer.write(
            f"GET {target} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key.decode()}\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert status_of(head) == 101, head
        digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()  # noqa: S324 -- RFC 6455 1.3
        assert fields_of(head, b"sec-websocket-accept") == [base64.b64encode(digest)]
        return cls(reader, writer)

    def send(self, opcode: int, data: bytes) -> None:
        size = len(data)
        if size < 126:
            length = bytes([0x80 | size])
        elif size < 65536:
            length = b"\xfe" + struct.pack(">H", size)
        else:
            length = b"\xff" + struct.pack(">Q", size)
        mask = os.urandom(4)
        masked = int.from_bytes(data, "big") ^ int.from_bytes((mask * (size // 4 + 1))[:size], "big")
        self._writer.write(bytes([0x80 | opcode]) + length + mask + masked.to_bytes(size, "big"))

    async def drain(self) -> None:
        await self._writer.drain()

    async def receive(self) -> tuple[int, bytes]:
        """The next frame's opcode and data."""
        first, size = await self._reader.readexactly(2)
        assert first & 0x80, "fragmented"
        assert not size & 0x80, "masked by a server"
        if size == 126:
            size = struct.unpack(">H", await self._reader.readexactly(2))[0]
        elif size == 127:
            size = struct.unpack(">Q", await self._reader.readexactly(8))[0]
        return first & 0x0F, await self._reader.readexactly(size)

    async def ended(self) -> bool:
        """Whether the other side closes, having sent nothing more."""
        return await self._reader.read() == b""

    def close(self) -> None:
        self._writer.close()
