"""Why an exchange went wrong here: one closed set of causes, for the access log, metrics, and Proxy-Status (RFC 9209).

One rule: a cause says what happened, not to whom. Its texts are public; addresses and reasons stand in the log.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache

_TOKEN = re.compile(r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*")
_UNSPEAKABLE = re.compile(r"[^ -~]")
_LONGEST_NAME = 255


class Cause(Enum):
    """Each with the status that answers it, its error type (RFC 9209 2.3), and a few words for the body.

    `label` is its name in logs and metrics. Where an answer had begun before (`response_incomplete`,
    `client_left`, ...), nothing can be answered any more, and the status is what would have been.
    """

    label: str
    status: int
    error: bytes
    text: str

    def __new__(cls, status: int, error: str, text: str) -> Cause:
        self = object.__new__(cls)
        self._value_ = (status, error, text)
        self.status = status
        self.error = error.encode("ascii")
        self.text = text
        return self

    def __init__(self, *_: object) -> None:
        self.label = self.name.lower()

    # What the client sent.
    MALFORMED_REQUEST = (400, "http_request_error", "malformed request")
    NOT_TLS = (400, "http_request_error", "this port speaks TLS: ask it by https://")
    MALFORMED_BODY = (400, "http_request_error", "malformed body")
    DANGEROUS_PATH = (400, "http_request_denied", "this path is not served")
    UNAUTHORIZED = (401, "http_request_denied", "who are you?")
    ACCESS_DENIED = (403, "http_request_denied", "you may not see this")
    CERTIFICATE_WANTED = (403, "http_request_denied", "a client certificate is wanted")
    METHOD_NOT_ALLOWED = (405, "http_request_denied", "method not allowed")
    HEAD_TIMEOUT = (408, "http_request_error", "the request took too long")
    BODY_TIMEOUT = (408, "http_request_error", "the body took too long")
    BODY_TOO_LARGE = (413, "http_request_denied", "the body is too large")
    TARGET_TOO_LONG = (414, "http_request_denied", "the request line is too long")
    EXPECTATION_FAILED = (417, "http_request_error", "unknown expectation")
    RATE_LIMITED = (429, "http_request_denied", "too many requests: slow down")
    TOO_MANY_REQUESTS = (429, "http_request_denied", "too many requests at one time")
    HEAD_TOO_LARGE = (431, "http_request_denied", "the header is too large")
    CLIENT_LEFT = (499, "http_request_error", "the client left")
    UNKNOWN_CODING = (501, "proxy_internal_response", "unknown transfer coding")
    UNKNOWN_VERSION = (505, "proxy_internal_response", "unknown version of HTTP")

    # What we found of our own.
    NO_ROUTE = (404, "destination_not_found", "no route")
    PROXY_LOOP = (508, "proxy_loop_detected", "the request came back")
    ROUTE_BUSY = (503, "proxy_internal_response", "too many requests at one time")
    TOO_MANY_CONNECTIONS = (503, "proxy_internal_response", "too many connections")
    MAINTENANCE = (503, "proxy_internal_response", "under maintenance")
    TOO_MANY_LOGINS = (503, "proxy_internal_response", "too many logins at one time")
    AUTH_UNREACHABLE = (502, "destination_unavailable", "nobody says who may pass")
    AUTH_TIMEOUT = (504, "http_response_timeout", "nobody says in time who may pass")
    DRAINED = (503, "proxy_internal_response", "this proxy is stopping")
    INTERNAL_ERROR = (500, "proxy_internal_error", "internal error")

    # What the upstream's backends did, or did not.
    BREAKER_OPEN = (503, "destination_unavailable", "the backends are spared for a moment")
    NO_BACKEND = (503, "destination_unavailable", "no backend is available")
    NAME_UNKNOWN = (502, "dns_error", "no backend was reached")
    NAME_TIMEOUT = (504, "dns_timeout", "no backend was reached")
    UNROUTABLE = (502, "destination_ip_unroutable", "no backend was reached")
    CONNECTION_REFUSED = (502, "connection_refused", "no backend was reached")
    CONNECTION_TIMEOUT = (504, "connection_timeout", "no backend was reached")
    CONNECTION_FAILED = (502, "destination_unavailable", "no backend was reached")
    CONNECTION_LIMIT = (503, "connection_limit_reached", "no backend is available")
    QUEUE_TIMEOUT = (503, "connection_limit_reached", "no backend was free in time")
    CONNECTION_TERMINATED = (502, "connection_terminated", "the backend gave no answer")
    WRITE_TIMEOUT = (504, "connection_write_timeout", "the backend did not take the request")
    RESPONSE_TIMEOUT = (504, "http_response_timeout", "the backend gave no answer in time")
    IDLE_TIMEOUT = (504, "connection_read_timeout", "nothing was sent for too long")
    READ_TIMEOUT = (504, "connection_read_timeout", "the backend's answer stopped")
    RESPONSE_INCOMPLETE = (502, "http_response_incomplete", "the backend's answer broke off")
    RESPONSE_HEAD_TOO_LARGE = (502, "http_response_header_section_size", "the backend's answer is too large")
    RESPONSE_CODING = (502, "http_response_transfer_coding", "the backend gave no valid answer")
    MALFORMED_RESPONSE = (502, "http_protocol_error", "the backend gave no valid answer")
    UPGRADE_FAILED = (502, "http_upgrade_failed", "the backend did not switch protocols")
    TLS_FAILED = (502, "tls_protocol_error", "no backend was reached")
    TLS_CERTIFICATE = (502, "tls_certificate_error", "no backend was reached")


@lru_cache(maxsize=1024)
def proxy_status(instance: str, cause: Cause, received_status: int | None = None) -> bytes:
    """The value of Proxy-Status from the proxy that is called `instance`.

    Where several causes share an error type, `details` tells which. `received_status` is what a backend had
    answered, if it had.

    >>> proxy_status("edge-1", Cause.CONNECTION_REFUSED), proxy_status("the edge", Cause.HEAD_TIMEOUT)
    (b'edge-1;error=connection_refused', b'"the edge";error=http_request_error;details="head_timeout"')
    """
    parts = [_item(instance), b";error=", cause.error]
    if received_status is not None:
        parts.append(b";received-status=%d" % received_status)
    if cause.label.encode("ascii") != cause.error:
        parts.append(b';details="%b"' % cause.label.encode("ascii"))
    return b"".join(parts)


def _item(text: str) -> bytes:
    """A Token where the text is one, else a String (RFC 8941 3.3); what neither can hold becomes `?`."""
    text = text[:_LONGEST_NAME]
    if _TOKEN.fullmatch(text):
        return text.encode("ascii")
    plain = _UNSPEAKABLE.sub("?", text)
    return b'"%b"' % plain.replace("\\", "\\\\").replace('"', '\\"').encode("ascii")
