"""Whether this aiohttp is the one that the data path leans on.

One rule: an aiohttp that is put together otherwise stops the start with its version, not a request with a traceback.
"""

from __future__ import annotations

import aiohttp
from aiohttp import http_parser

from director.kit.errors import HostError
from l7proxy.core.head import RequestHead, ResponseHead
from l7proxy.http.parser import read_request, read_response


def assert_stack() -> None:
    """Refuse to run without aiohttp's C parser, or on one that cannot be called as `parser.py` does.

    Raises: HostError.
    """
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise HostError("aiohttp came without its C parser: install a wheel, and unset AIOHTTP_NO_EXTENSIONS")
    try:
        request = read_request(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked")
        response = read_response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked")
        fits = isinstance(request, RequestHead) and isinstance(response, ResponseHead)
        reason = "it does not read what it should"
    except (TypeError, AttributeError) as error:
        fits, reason = False, str(error)
    if not fits:
        raise HostError(
            f"aiohttp {aiohttp.__version__} does not fit this l7proxy ({reason}): "
            "install the version that l7proxy's package asks for (`pip install --force-reinstall lvs-director`)"
        )
