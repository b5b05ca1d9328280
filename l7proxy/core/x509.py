"""What a certificate says of itself: names, times, key, and how its subject is written.

One rule: nothing here vouches for anything. What is read is what stands there; whether it is true is OpenSSL's matter.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address

_OCTETS, _OID, _UTC_TIME, _GENERALIZED_TIME = 0x04, 0x06, 0x17, 0x18
_TEXTS = {0x0C: "utf-8", 0x12: "ascii", 0x13: "ascii", 0x14: "latin-1", 0x16: "ascii", 0x1A: "ascii", 0x1C: "utf-32-be",
          0x1E: "utf-16-be"}  # fmt: skip
_KEYS = {
    "1.2.840.113549.1.1.1": "RSA",
    "1.2.840.113549.1.1.10": "RSA-PSS",
    "1.2.840.10045.2.1": "EC",
    "1.3.101.112": "Ed25519",
    "1.3.101.113": "Ed448",
}
_WEAK_DIGESTS = {
    "1.2.840.113549.1.1.4": "MD5",
    "1.2.840.113549.1.1.5": "SHA-1",
    "1.2.840.10040.4.3": "SHA-1",
    "1.2.840.10045.4.1": "SHA-1",
}
_ATTRIBUTES = {
    "2.5.4.3": "CN",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "STREET",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.25": "DC",
    "1.2.840.113549.1.9.1": "emailAddress",
}
"""RFC 4514 3, and the two more that OpenSSL writes by name."""
_SUBJECT_ALT_NAME = "2.5.29.17"
_SPECIAL = re.compile(r'[",+;<>\\]')
_Element = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Facts:
    """A certificate in words. `names` are those of hosts, in lower case; `others` the rest of subjectAltName: mail
    addresses, URIs, IP addresses. `bits` is the size of an RSA key, else 0; `weak_digest` what it is signed with, where
    that is broken. `subject` is in RFC 4514's form and in ASCII; `serial` in hexadecimal digits."""

    names: tuple[str, ...]
    others: tuple[str, ...]
    begins: datetime
    ends: datetime
    key: str
    bits: int
    weak_digest: str
    subject: str
    serial: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """Who a client has proved to be. `fingerprint` is the SHA-256 of the certificate, in hexadecimal digits."""

    subject: str
    fingerprint: str
    serial: str
    names: tuple[str, ...]


@lru_cache(maxsize=1024)
def client_certificate(der: bytes) -> ClientCertificate:
    """The same of a certificate that was verified; what cannot be read in it is empty."""
    facts = facts_of(der)
    if facts is None:
        return ClientCertificate("", hashlib.sha256(der).hexdigest(), "", ())
    return ClientCertificate(facts.subject, facts.fingerprint, facts.serial, facts.names + facts.others)


@lru_cache(maxsize=4096)
def facts_of(der: bytes) -> Facts | None:
    """What stands in an X.509 certificate (RFC 5280 4.1); None where `der` is not one."""
    try:
        return _facts(der)
    except (IndexError, ValueError, StopIteration):
        return None


def _facts(der: bytes) -> Facts:
    (whole,) = _elements(der, 0, len(der))
    signed = next(_elements(der, *whole[1:]))
    parts = list(_elements(der, *signed[1:]))
    if parts[0][0] == 0xA0:  # version
        del parts[0]
    serial, algorithm, _, validity, subject, key = parts[:6]
    begins, ends = (_time(der, each) for each in _elements(der, *validity[1:]))
    names: list[str] = []
    others: list[str] = []
    for kind, name in _alternatives(der, parts[6:]):
        (names if kind == _DNS else others).append(name)
    key_name, bits = _key(der, key)
    signed_by = _oid(der, next(_elements(der, *algorithm[1:])))
    return Facts(
        tuple(dict.fromkeys(names)),
        tuple(dict.fromkeys(others)),
        begins,
        ends,
        key_name,
        bits,
        _WEAK_DIGESTS.get(signed_by, ""),
        _name(der, subject),
        der[serial[1] : serial[2]].hex().lstrip("0") or "0",
        hashlib.sha256(der).hexdigest(),
    )


def _elements(der: bytes, at: int, end: int) -> Iterator[_Element]:
    """Tag, and where the content begins and ends, of each element in a row (X.690 8.1)."""
    while at < end:
        tag, length = der[at], der[at + 1]
        at += 2
        if length & 0x80:
            count = length & 0x7F
            length = int.from_bytes(der[at : at + count], "big")
            at += count
        if at + length > end:
            raise IndexError
        yield tag, at, at + length
        at += length


def _oid(der: bytes, element: _Element) -> str:
    tag, at, end = element
    if tag != _OID:
        raise ValueError
    numbers: list[int] = []
    value = 0
    for octet in der[at:end]:
        value = value << 7 | octet & 0x7F
        if not octet & 0x80:
            numbers.append(value)
            value = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))


def _time(der: bytes, element: _Element) -> datetime:
    tag, at, end = element
    text = der[at:end].decode("ascii")
    if tag == _UTC_TIME:
        text = ("20" if text[:2] < "50" else "19") + text  # RFC 5280 4.1.2.5.1
    elif tag != _GENERALIZED_TIME:
        raise ValueError
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _key(der: bytes, element: _Element) -> tuple[str, int]:
    algorithm, bits = _elements(der, *element[1:])
    name = _oid(der, next(_elements(der, *algorithm[1:])))
    kind = _KEYS.get(name, name)
    if not kind.startswith("RSA"):
        return kind, 0
    numbers = next(_elements(der, bits[1] + 1, bits[2]))
    _, at, end = next(_elements(der, *numbers[1:]))
    return kind, int.from_bytes(der[at:end], "big").bit_length()


_MAIL, _DNS, _URI, _ADDRESS = 0x81, 0x82, 0x86, 0x87


def _alternatives(der: bytes, parts: list[_Element]) -> Iterator[tuple[int, str]]:
    """Names of subjectAltName (RFC 5280 4.2.1.6)."""
    for tag, at, end in parts:
        if tag != 0xA3:
            continue
        for extension in _elements(der, *next(_elements(der, at, end))[1:]):
            inner = list(_elements(der, *extension[1:]))
            if _oid(der, inner[0]) != _SUBJECT_ALT_NAME or inner[-1][0] != _OCTETS:
                continue
            for kind, start, stop in _elements(der, *next(_elements(der, *inner[-1][1:]))[1:]):
                value = der[start:stop]
                if kind == _DNS:
                    yield kind, value.decode("ascii").lower().rstrip(".")
                elif kind in {_MAIL, _URI}:
                    yield kind, value.decode("ascii")
                elif kind == _ADDRESS and len(value) in {4, 16}:
                    yield kind, str(ip_address(value))


def _name(der: bytes, element: _Element) -> str:
    """A distinguished name, the last part first (RFC 4514 2)."""
    told = []
    for _, at, end in _elements(der, *element[1:]):
        pairs = []
        for _, start, stop in _elements(der, at, end):
            kind, value = _elements(der, start, stop)
            pairs.append(_attribute(der, _oid(der, kind), value))
        told.append("+".join(reversed(pairs)))  # as OpenSSL does
    return ",".join(reversed(told))


def _attribute(der: bytes, oid: str, value: _Element) -> str:
    tag, at, end = value
    name, coding = _ATTRIBUTES.get(oid), _TEXTS.get(tag)
    if name is None or coding is None:
        length = end - at
        size = bytes([length]) if length < 0x80 else b"\x82" + length.to_bytes(2, "big")
        return f"{oid}=#{(bytes([tag]) + size + der[at:end]).hex()}"
    return f"{name}={escaped(der[at:end].decode(coding))}"


def escaped(text: str) -> str:
    r"""A value of a distinguished name in RFC 4514's form. What is not printable ASCII is written in hexadecimal, so
    that it can stand in a header.

    >>> escaped("Smith, Ann"), escaped(" #1"), escaped("a\r\n")
    ('Smith\\, Ann', '\\ #1', 'a\\0D\\0A')
    """
    text = _SPECIAL.sub(lambda found: "\\" + found[0], text)
    if text[:1] in {" ", "#"}:
        text = "\\" + text
    if text[-1:] == " " and text != "\\ ":
        text = text[:-1] + "\\ "
    return "".join(
        each if " " <= each <= "~" else "".join(f"\\{octet:02X}" for octet in each.encode("utf-8", "replace"))
        for each in text
    )
