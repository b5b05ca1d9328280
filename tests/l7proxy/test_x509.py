"""What a certificate says of itself, beside what openssl reads in it."""

from __future__ import annotations

import random
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from l7proxy.core.x509 import client_certificate, escaped, facts_of
from tests.wire.sealed import make_certificate

pytestmark = pytest.mark.unit

SUBJECT = "/DC=org/DC=example/O=Smith, Sons+OU=a;b/CN=#1 <ann> Ä/emailAddress=ann@example.org/serialNumber=7"
NAMES = "DNS:Shop.Example.org,DNS:*.example.org,email:ann@example.org,URI:spiffe://a/b,IP:192.0.2.1,IP:2001:db8::1"


def made(place: Path, *options: str) -> tuple[bytes, str]:
    """The certificate, and a function of it that openssl knows."""
    words = ["openssl", "req", "-x509", "-noenc", *options, "-keyout", str(place / "key"), "-outform", "DER"]
    return subprocess.run([*words, "-out", "-"], check=True, capture_output=True).stdout, str(place)


def told(der: bytes, *options: str) -> str:
    words = ["openssl", "x509", "-inform", "DER", "-noout", *options]
    return subprocess.run(words, input=der, check=True, capture_output=True).stdout.decode().strip()


EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")


def test_names_subject_serial_and_fingerprint_are_as_openssl_reads_them(tmp_path: Path) -> None:
    der, _ = made(tmp_path, *EC, "-utf8", "-multivalue-rdn", "-subj", SUBJECT, "-addext", f"subjectAltName={NAMES}")
    facts = facts_of(der)
    assert facts is not None
    assert facts.names == ("shop.example.org", "*.example.org")
    assert facts.others == ("ann@example.org", "spiffe://a/b", "192.0.2.1", "2001:db8::1")
    assert "subject=" + facts.subject == told(der, "-subject", "-nameopt", "RFC2253")
    assert facts.serial == told(der, "-serial").removeprefix("serial=").lower().lstrip("0")
    assert facts.fingerprint == told(der, "-fingerprint", "-sha256").partition("=")[2].replace(":", "").lower()
    assert (facts.key, facts.bits, facts.weak_digest) == ("EC", 0, "")
    assert timedelta(days=29) < facts.ends - datetime.now(UTC) < timedelta(days=31)
    assert abs(datetime.now(UTC) - facts.begins) < timedelta(minutes=1)
    client = client_certificate(der)
    assert (client.subject, client.fingerprint, client.serial) == (facts.subject, facts.fingerprint, facts.serial)
    assert client.names == facts.names + facts.others


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (("-newkey", "rsa:1024", "-sha1"), ("RSA", 1024, "SHA-1")),
        (("-newkey", "rsa:2048", "-md5"), ("RSA", 2048, "MD5")),
        ((*EC, "-sha1"), ("EC", 0, "SHA-1")),
        (("-newkey", "ed25519"), ("Ed25519", 0, "")),
    ],
)
def test_kind_and_size_of_a_key_and_a_weak_signature_are_known(
    tmp_path: Path, options: tuple[str, ...], wanted: tuple[str, int, str]
) -> None:
    facts = facts_of(made(tmp_path, *options, "-subj", "/CN=a")[0])
    assert facts is not None
    assert (facts.key, facts.bits, facts.weak_digest) == wanted
    assert facts.names == ()


def test_what_is_torn_or_changed_is_no_certificate_or_another_and_never_an_error(tmp_path: Path) -> None:
    der, _ = made(tmp_path, *EC, "-subj", SUBJECT, "-addext", f"subjectAltName={NAMES}")
    for length in range(len(der)):
        assert facts_of(der[:length]) is None
    chance = random.Random(6)  # noqa: S311 -- no secret
    for _ in range(3000):
        other = bytearray(der)
        for _ in range(chance.randrange(1, 4)):
            other[chance.randrange(len(der))] = chance.randrange(256)
        facts_of(bytes(other))
        client_certificate(bytes(other))


def test_nothing_of_a_subject_can_end_a_header_line(tmp_path: Path) -> None:
    for octet in range(256):
        assert all(" " <= each <= "~" for each in escaped(f"a{chr(octet)}b"))


def test_a_certificate_reads_as_its_file_does(tmp_path: Path) -> None:
    certificate, _ = make_certificate(tmp_path, "shop", names="DNS:a.example")
    import ssl

    facts = facts_of(ssl.PEM_cert_to_DER_cert(certificate.read_text()))
    assert facts is not None
    assert (facts.subject, facts.names) == ("CN=shop", ("a.example",))
