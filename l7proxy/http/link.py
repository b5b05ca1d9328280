"""Connections to backends: one link each, and a pool of idle ones for each backend.

One rule: a link goes back to the pool only after a whole exchange; after anything else it is closed. The parser and
the flow control are aiohttp's client protocol; its session is not used, because it repeats requests by itself,
re-quotes targets, folds headers and hides what was reused.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator
from dataclasses import dataclass

from aiohttp import ClientPayloadError, SocketTimeoutError
from aiohttp.client_proto import ResponseHandler

from director.kit.errors import DirectorError
from director.kit.net import Endpoint
from director.kit.probes.failures import describe_os_error
from l7proxy.core.model import UpstreamTimeouts

MOST_IDLE = 256
"""Idle links kept for each backend; further ones are closed."""
READ_BUFFER_BYTES = 64 * 1024
LARGEST_FIELD_BYTES = 64 * 1024
YOUNG_S = 1.0
"""What must not be sent twice takes an idle link only if it was used this recently: few servers close sooner."""


SHORTAGE_S = 0.02
"""Pause before another try to connect when there was no descriptor: a burst of refused clients has them for moments."""


class ConnectError(DirectorError):
    """There is no connection; nothing was sent."""


@dataclass(slots=True)
class IdleBudget:
    """How many links of all pools together are idle, and how many may be."""

    most: int
    kept: int = 0


class UpstreamLink(ResponseHandler):
    """One connection to a backend. `answered` is whether a byte of the present answer has come."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pool: LinkPool) -> None:
        super().__init__(loop)
        self.pool = pool
        self.uses = 0
        self.answered = False
        self.idle_since_at = 0.0
        self._unsent_bytes = 0
        self._unsent_since_at = 0.0

    def begin(self, head_only: bool, response_s: float) -> None:
        """Get ready for one more exchange."""
        self.uses += 1
        self.answered = False
        self.set_response_params(
            skip_payload=head_only,
            read_until_eof=True,
            auto_decompress=False,
            read_timeout=response_s,
            read_bufsize=READ_BUFFER_BYTES,
            max_line_size=LARGEST_FIELD_BYTES,
            max_field_size=LARGEST_FIELD_BYTES,
        )

    def data_received(self, data: bytes) -> None:
        self.answered = True
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        payload = self._payload
        if exc is not None and payload is not None and not payload.is_eof():
            # Without this a reset would look like the end of an answer that ends with its connection.
            payload.set_exception(ClientPayloadError(f"connection lost: {exc}"))
        super().connection_lost(exc)
        self.pool.forget(self)

    def give_up_if_stuck(self, now: float, idle_s: float) -> None:
        """Close when the backend has taken nothing of what waits for it for `idle_s`."""
        if not self.writing_paused or self.transport is None:
            self._unsent_bytes = 0
            return
        unsent = self.transport.get_write_buffer_size()
        if unsent != self._unsent_bytes:
            self._unsent_bytes, self._unsent_since_at = unsent, now
        elif now - self._unsent_since_at > idle_s:
            self.set_exception(SocketTimeoutError("the backend stopped reading"))
            self.abort()


class LinkPool:
    """The links to one backend, idle ones last in, first out."""

    def __init__(self, endpoint: Endpoint, budget: IdleBudget) -> None:
        self.endpoint = endpoint
        self._budget = budget
        self._idle: list[UpstreamLink] = []
        self._busy: set[UpstreamLink] = set()
        self._closed = False

    def take_idle(self, repeatable: bool) -> UpstreamLink | None:
        """An idle link that still looks alive."""
        while self._idle:
            link = self._idle[-1]
            if link.transport is None or link.transport.is_closing() or link.should_close:
                self._drop_idle(-1).close()
                continue
            if not repeatable and asyncio.get_running_loop().time() - link.idle_since_at > YOUNG_S:
                return None
            self._drop_idle(-1)
            self._busy.add(link)
            return link
        return None

    async def connect(self, connect_s: float) -> UpstreamLink:
        """A new link. Raises: ConnectError."""
        loop = asyncio.get_running_loop()
        link = UpstreamLink(loop, self)
        short = ""
        try:
            async with asyncio.timeout(connect_s):
                while True:
                    try:
                        await loop.create_connection(lambda: link, str(self.endpoint.address), self.endpoint.port)
                        break
                    except OSError as error:
                        if error.errno not in {errno.EMFILE, errno.ENFILE}:
                            raise
                        short = f": {describe_os_error(error)}"
                    await asyncio.sleep(SHORTAGE_S)
        except TimeoutError:
            link.abort()
            raise ConnectError(f"no connection within {connect_s:g}s{short}") from None
        except OSError as error:
            raise ConnectError(describe_os_error(error)) from error
        except asyncio.CancelledError:
            link.abort()
            raise
        self._busy.add(link)
        return link

    def give_back(self, link: UpstreamLink, whole: bool) -> None:
        """Take `link` back after an exchange; `whole` is whether request and answer are complete."""
        self._busy.discard(link)
        full = len(self._idle) >= MOST_IDLE or self._budget.kept >= self._budget.most
        if not whole or self._closed or full or link.should_close or not link.is_connected():
            link.close()
            return
        link.idle_since_at = asyncio.get_running_loop().time()
        self._idle.append(link)
        self._budget.kept += 1

    def forget(self, link: UpstreamLink) -> None:
        """Drop a link that is gone."""
        self._busy.discard(link)
        if link in self._idle:
            self._drop_idle(self._idle.index(link))

    def sweep(self, now: float, timeouts: UpstreamTimeouts) -> None:
        """Close what has been idle or stuck for too long."""
        while self._idle and now - self._idle[0].idle_since_at > timeouts.keepalive_s:
            self._drop_idle(0).close()
        for link in list(self._busy):
            link.give_up_if_stuck(now, timeouts.idle_s)

    def close(self) -> None:
        """Close idle links now, busy ones after their exchange."""
        self._closed = True
        while self._idle:
            self._drop_idle(-1).close()

    def _drop_idle(self, index: int) -> UpstreamLink:
        self._budget.kept -= 1
        return self._idle.pop(index)

    def __iter__(self) -> Iterator[UpstreamLink]:
        return iter((*self._idle, *self._busy))
