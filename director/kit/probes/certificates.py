"""When a certificate ends: the one field that is read here, also from a certificate that nobody vouches for."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

_UTC_TIME = 0x17
_GENERALIZED_TIME = 0x18
_VERSION = 0xA0


@lru_cache(maxsize=1024)
def not_after(der: bytes) -> datetime | None:
    """The end of an X.509 certificate's validity (RFC 5280 4.1); None where `der` is not one."""
    try:
        certificate, _, _ = _element(der, 0)
        at, _, _ = _element(der, certificate)  # tbsCertificate
        if der[at] == _VERSION:
            at = _element(der, at)[1]
        for _ in range(3):  # serialNumber, signature, issuer
            at = _element(der, at)[1]
        start, _, _ = _element(der, at)  # validity
        start, end, tag = _element(der, _element(der, start)[1])
        return _time(tag, der[start:end].decode("ascii"))
    except (IndexError, ValueError):
        return None


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Where the content of the element at `at` begins and ends, and its tag (X.690 8.1)."""
    length = der[at + 1]
    start = at + 2
    if length & 0x80:
        count = length & 0x7F
        length = int.from_bytes(der[start : start + count], "big")
        start += count
    if start + length > len(der):
        raise IndexError
    return start, start + length, der[at]


def _time(tag: int, text: str) -> datetime | None:
    if tag == _UTC_TIME:
        text = ("20" if text[:2] < "50" else "19") + text  # RFC 5280 4.1.2.5.1
    elif tag != _GENERALIZED_TIME:
        return None
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
