"""What of aiohttp the data path leans on that aiohttp does not promise.

One rule: an aiohttp that is put together otherwise stops the start with its version, not a request with a traceback.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp import http_parser, streams, web, web_protocol
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import StreamWriter

from director.kit.errors import HostError

_NAMES: dict[str, str] = {
    "RequestHandler": "_current_request _force_close _loop _messages _request_count transport connection_lost "
    "connection_made data_received eof_received force_close handle_error",
    "ResponseHandler": "_payload abort connection_lost data_received is_connected read read_timeout set_exception "
    "set_response_params should_close start_timeout transport writing_paused",
    "BaseRequest": "_cancel _finish",
    "StreamResponse": "_keep_alive keep_alive prepare write_eof",
    "StreamReader": "at_eof exception is_eof read_nowait readany set_exception",
    "StreamWriter": "enable_chunking output_size",
    "web_protocol": "_ErrInfo RequestPayloadError",
}
_PARAMETERS: dict[str, str] = {
    "RequestHandler": "access_log auto_decompress keepalive_timeout lingering_time loop max_field_size max_line_size "
    "read_bufsize",
    "Server": "handler_cancellation request_factory",
    "set_response_params": "auto_decompress max_field_size max_line_size read_bufsize read_timeout read_until_eof "
    "skip_payload",
}


def assert_stack() -> None:
    """Refuse to run on an aiohttp that lacks something, or on its Python parser: it is slower and reads some requests
    otherwise.

    Raises: HostError.
    """
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise HostError("aiohttp came without its C parser: install a wheel, and unset AIOHTTP_NO_EXTENSIONS")
    missing = sorted(_missing())
    if missing:
        raise HostError(
            f"aiohttp {aiohttp.__version__} does not fit this l7proxy, it has no {', '.join(missing)}: "
            "install the version that l7proxy's package asks for (`pip install --force-reinstall lvs-director`)"
        )


def _missing() -> set[str]:
    loop = asyncio.new_event_loop()  # some names are set only in an instance
    try:
        holders: dict[str, object] = {
            "RequestHandler": web_protocol.RequestHandler,
            "ResponseHandler": ResponseHandler(loop),
            "BaseRequest": web.BaseRequest,
            "StreamResponse": web.StreamResponse(),
            "StreamReader": streams.StreamReader,
            "StreamWriter": StreamWriter,
            "web_protocol": web_protocol,
        }
        missing = {
            f"{holder}.{name}"
            for holder, names in _NAMES.items()
            for name in names.split()
            if not hasattr(holders[holder], name)
        }
    finally:
        loop.close()
    calls: dict[str, Callable[..., Any]] = {
        "RequestHandler": web_protocol.RequestHandler,
        "Server": web.Server,
        "set_response_params": ResponseHandler.set_response_params,
    }
    for call, names in _PARAMETERS.items():
        known = inspect.signature(calls[call]).parameters
        missing |= {f"{call}({name}=)" for name in names.split() if name not in known}
    return missing
