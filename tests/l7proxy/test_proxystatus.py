"""Causes, and how Proxy-Status tells them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7proxy.core.proxystatus import Cause, proxy_status

pytestmark = pytest.mark.unit

ERROR_TYPES = """
    dns_timeout dns_error destination_not_found destination_unavailable destination_ip_prohibited
    destination_ip_unroutable connection_refused connection_terminated connection_timeout connection_read_timeout
    connection_write_timeout connection_limit_reached tls_protocol_error tls_certificate_error tls_alert_received
    http_request_error http_request_denied http_response_incomplete http_response_header_section_size
    http_response_header_size http_response_body_size http_response_trailer_section_size http_response_trailer_size
    http_response_transfer_coding http_response_content_coding http_response_timeout http_upgrade_failed
    http_protocol_error proxy_internal_response proxy_internal_error proxy_configuration_error proxy_loop_detected
"""
"""RFC 9209 2.3: all of them."""

CLIENTS = {"http_request_error", "http_request_denied", "destination_not_found"}


@pytest.mark.parametrize("cause", list(Cause), ids=lambda cause: cause.label)
def test_every_cause_is_told_in_the_registrys_words(cause: Cause) -> None:
    assert cause.error.decode() in ERROR_TYPES.split()
    assert (400 <= cause.status < 500) is (cause.error.decode() in CLIENTS)
    assert re.fullmatch("[a-z_]+", cause.label)
    assert cause.text.isascii()
    assert not re.search("[0-9]", cause.text)


def test_causes_are_told_apart() -> None:
    assert len({proxy_status("a", cause) for cause in Cause}) == len(Cause)
    assert len({cause.label for cause in Cause}) == len(Cause.__members__) == len(list(Cause))


@pytest.mark.parametrize(
    ("instance", "cause", "received", "value"),
    [
        ("edge", Cause.CONNECTION_REFUSED, None, b"edge;error=connection_refused"),
        ("edge", Cause.NO_ROUTE, None, b'edge;error=destination_not_found;details="no_route"'),
        (
            "a.b-1:80/x",
            Cause.RESPONSE_INCOMPLETE,
            200,
            b'a.b-1:80/x;error=http_response_incomplete;received-status=200;details="response_incomplete"',
        ),
        ("1st", Cause.CONNECTION_TIMEOUT, None, b'"1st";error=connection_timeout'),
        ("", Cause.CONNECTION_TIMEOUT, None, b'"";error=connection_timeout'),
        ('a"\\b', Cause.CONNECTION_TIMEOUT, None, b'"a\\"\\\\b";error=connection_timeout'),
        ("a\r\nX: é", Cause.CONNECTION_TIMEOUT, None, b'"a??X: ?";error=connection_timeout'),
    ],
)
def test_the_field_is_a_structured_one(instance: str, cause: Cause, received: int | None, value: bytes) -> None:
    assert proxy_status(instance, cause, received) == value


STRING = rb'"(?:[ !#-\[\]-~]|\\["\\])*"'
FIELD = re.compile(
    rb"(?:[A-Za-z*][!#$%%&'*+.^_`|~0-9A-Za-z:/-]*|%b);error=[a-z_]+(?:;received-status=[0-9]+)?(?:;details=%b)?"
    % (STRING, STRING)
)


@given(
    st.text(st.characters(codec=None), max_size=400), st.sampled_from(list(Cause)), st.none() | st.integers(100, 999)
)
def test_no_name_breaks_the_field(instance: str, cause: Cause, received: int | None) -> None:
    value = proxy_status(instance, cause, received)
    assert FIELD.fullmatch(value)
    assert len(value) < 2 * 255 + 120
