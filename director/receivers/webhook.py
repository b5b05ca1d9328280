"""A notification by HTTP: `{"host": ..., "text": ..., "events": [...]}` is posted, the events oldest first.

One rule: a receiver need know one shape, however many events there are; `text` has them in sentences, a line each,
which is what chat programs show.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Sequence
from importlib.metadata import version

import aiohttp

from director.core.event import Event, printable, sentence
from director.core.notifying import Webhook
from director.receivers.failure import NotDeliveredError, RefusedError, read_secret, reason, tls_context

AT_ONCE = 500
MOST_LINES = 100
MOST_ANSWER_BYTES = 200
_OF_NO_USE = {400, 413, 422}  # what is wrong is in the request (RFC 9110, 15.5)


async def post(webhook: Webhook, events: Sequence[Event]) -> None:
    """Any 2xx is an arrival. Raises: NotDeliveredError."""
    try:
        async with asyncio.timeout(webhook.timeout_s):
            await _post(webhook, events)
    except TimeoutError as error:
        raise NotDeliveredError(f"no answer within {webhook.timeout_s:g}s") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        # Some name the URL, whose path may be a secret.
        raise NotDeliveredError(reason(error).replace(webhook.url, webhook.origin)) from error


async def _post(webhook: Webhook, events: Sequence[Event]) -> None:
    # In a thread: certificates and secrets are on a disk, and thousands of events take their time.
    body, secrets, context = await asyncio.to_thread(
        lambda: (
            _body(events),
            {name: read_secret(path) for name, path in webhook.header_files},
            tls_context(webhook.trust) if webhook.url.startswith("https:") else False,
        )
    )
    headers = {"User-Agent": f"lvs-director/{version('lvs-director')}", **dict(webhook.headers), **secrets}
    connector = aiohttp.TCPConnector(ssl=context, limit=1, force_close=True)
    async with (
        aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=webhook.timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        ) as session,
        session.post(
            webhook.url, data=body, headers={**headers, "Content-Type": "application/json"}, allow_redirects=False
        ) as response,
    ):
        if 200 <= response.status < 300:
            return
        said = printable(" ".join((await response.content.read(MOST_ANSWER_BYTES)).decode(errors="replace").split()))
        what = f"answered {response.status}{': ' + said if said else ''}"
        if 300 <= response.status < 400:
            raise NotDeliveredError(
                f"answered {response.status}: redirects are not followed, write the URL they lead to"
            )
        raise (RefusedError if response.status in _OF_NO_USE else NotDeliveredError)(what)


def _body(events: Sequence[Event]) -> bytes:
    lines = [sentence(event) for event in events[:MOST_LINES]]
    if len(events) > MOST_LINES:
        lines.append(f"and {len(events) - MOST_LINES} more")
    host, text = socket.gethostname(), "\n".join(lines)
    return json.dumps({"host": host, "text": text, "events": [event.plain() for event in events]}).encode()
