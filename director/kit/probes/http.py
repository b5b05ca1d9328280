"""The http and https probe: one GET over a connection of its own, judged by status and body.

One rule: redirects, cookies, proxies of the environment and compression play no part in it.
"""

from __future__ import annotations

import ssl
from functools import cache, lru_cache

import aiohttp
from yarl import URL

from director.kit.checks.http import MAX_BODY_BYTES, HttpProbe
from director.kit.net import Endpoint
from director.kit.pattern import Pattern, compile_pattern

_NO_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=None)  # the check's own stands around all
_LONGEST_LINE_BYTES = 64 * 1024
"""Of a status line and of a header: what passes the proxy passes a check. aiohttp ends an answer at 128 headers, so one
costs 8 MiB at worst."""
_HEADERS = {"User-Agent": "director-check", "Accept": "*/*", "Connection": "close"}


async def probe_http(target: Endpoint, probe: HttpProbe) -> tuple[bool, str]:
    """GET `probe.path`. A wrong status or body is an outcome.

    Raises: OSError when there is no connection (aiohttp's connection errors are OSErrors).
    """
    url = URL(f"{'https' if probe.tls else 'http'}://{target}{probe.path}", encoded=True)
    headers = {**_HEADERS, "Host": probe.host or str(target)}
    # A session for each probe: a connection of its own is what makes it a test of the accept path.
    connector = aiohttp.TCPConnector(force_close=True, use_dns_cache=False)
    try:
        async with (
            aiohttp.ClientSession(
                connector=connector,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("Accept-Encoding",),
                timeout=_NO_TIMEOUT,
                max_line_size=_LONGEST_LINE_BYTES,
                max_field_size=_LONGEST_LINE_BYTES,
            ) as session,
            session.get(
                url,
                headers=headers,
                allow_redirects=False,
                ssl=_context(probe.verify) if probe.tls else True,
                server_hostname=_server_name(target, probe) if probe.tls else None,
            ) as response,
        ):
            if not any(low <= response.status <= high for low, high in probe.statuses):
                return False, f"status {response.status}, expected {_ranges(probe)}"
            if probe.body is None:
                return True, f"status {response.status}"
            body = await _read(response.content)
            if _pattern(probe.body).search(body):
                return True, f"status {response.status}, body matches"
            return False, f"status {response.status}, but the body does not match {probe.body!r}"
    except aiohttp.ClientConnectorCertificateError as error:
        return (
            False,
            f"certificate: {getattr(error.certificate_error, 'verify_message', error.certificate_error)}",
        )
    except aiohttp.ServerDisconnectedError:
        return False, "connection closed before an answer"
    except OSError:
        raise
    except aiohttp.ClientPayloadError as error:
        return False, f"the answer broke off: {_said(error)}"
    except (aiohttp.ClientError, ValueError) as error:
        return False, f"not an HTTP answer: {_said(error)}"


def _said(error: Exception) -> str:
    """aiohttp's message in one line: it quotes the peer in several, with a caret below."""
    cause = error.__cause__ if isinstance(error, aiohttp.ClientPayloadError) and error.__cause__ else error
    text = str(getattr(cause, "message", cause)) or type(error).__name__
    line = " ".join(part.strip() for part in text.splitlines() if part.strip(" ^"))
    line = "".join(c if c.isprintable() else "?" for c in line)[:120]
    return line[:1].lower() + line[1:]


async def _read(content: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    while len(body) < MAX_BODY_BYTES and (chunk := await content.read(MAX_BODY_BYTES - len(body))):
        body += chunk
    return bytes(body)


def _server_name(target: Endpoint, probe: HttpProbe) -> str:
    if probe.server_name or probe.host is None:
        return probe.server_name or str(target.address)
    return probe.host[1:].partition("]")[0] if probe.host.startswith("[") else probe.host.partition(":")[0]


def _ranges(probe: HttpProbe) -> str:
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in probe.statuses)


@cache
def _context(verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@lru_cache(maxsize=256)  # reloads bring new ones
def _pattern(text: str) -> Pattern:
    return compile_pattern(text)
