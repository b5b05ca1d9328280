"""Bodies on their way: one class for each direction.

One rule: a piece is held only until the other side takes it; aiohttp's flow control pauses the side that is ahead.
"""

from __future__ import annotations

import asyncio

from aiohttp import ClientError, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import StreamWriter
from aiohttp.streams import StreamReader

from l7proxy.core.head import RequestHead
from l7proxy.core.headers import BodyFraming
from l7proxy.http.connection import Incoming
from l7proxy.http.link import UpstreamLink


class Upload:
    """A request's body, from the client to the backend. `problem` is what is wrong with it, once that shows."""

    def __init__(self, request: Incoming, head: RequestHead) -> None:
        self._request = request
        self._chunked = head.chunked
        self.done = not head.has_body
        self.problem = ""

    async def run(self, link: UpstreamLink) -> None:
        """Send all of it. Failures show on `link`, whose reader is waiting for the answer."""
        connection, content = self._request.connection, self._request.content
        loop = asyncio.get_running_loop()
        writer = StreamWriter(link, loop)
        if self._chunked:
            writer.enable_chunking()
        try:
            while True:
                connection.awaits_body_since_at = loop.time()
                piece = await content.readany()
                connection.awaits_body_since_at = None
                if not piece:
                    break
                await writer.write(piece)
            await writer.write_eof()
        except web.RequestPayloadError as error:
            self.problem = str(error)
            link.set_exception(ConnectionError("the request's body is broken"))
            link.close()
            return
        except ConnectionError:
            return  # the link's reader knows more: an early answer, or why it was lost
        self.done = True
        link.start_timeout()


class Download:
    """An answer's body, from the backend to the client."""

    def __init__(self) -> None:
        self.sent_bytes = 0

    async def run(
        self, payload: StreamReader, writer: AbstractStreamWriter, start: bytes, framing: BodyFraming
    ) -> str | None:
        """Send `start` (the answer's head) and all of the body; or why it ended early.

        Raises: ConnectionError when the client is gone.
        """
        # What has come already leaves together with the head, in one system call.
        first = payload.read_nowait() if payload.exception() is None else b""
        self.sent_bytes += len(first)
        if framing is BodyFraming.CHUNKED:
            if first:
                start += b"%x\r\n%b\r\n" % (len(first), first)
            if payload.at_eof() and payload.exception() is None:
                await writer.write(start + b"0\r\n\r\n")
                return None
            await writer.write(start)
            writer.enable_chunking()
        else:
            await writer.write(start + first)
        while True:
            try:
                piece = await payload.readany()
            except (ClientError, OSError) as error:
                return str(error).partition("\n")[0] or type(error).__name__
            if not piece:
                break
            self.sent_bytes += len(piece)
            await writer.write(piece)
        await writer.write_eof()
        return None
