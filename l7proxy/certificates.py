"""Certificates for clients: their files, and what OpenSSL makes of them.

One rule: what cannot be served is told when the configuration is read, of the key that names it. What is served is
what was read then, whatever becomes of the files.
"""

from __future__ import annotations

import errno
import os
import re
import ssl
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from director.kit.probes.certificates import not_after
from l7proxy.core.model import Certificate

LARGEST_BYTES = 1 << 20
MOST_CONTEXTS = 64
CIPHERS = ":".join(
    f"ECDHE-{by}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for by in ("ECDSA", "RSA")
)
"""For TLS 1.2: Mozilla's intermediate set, without the finite-field ones, which want parameters of their own. Clients
choose among them, since all are good and they know what their hardware does well. TLS 1.3 has OpenSSL's own."""

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_KEY = b"PRIVATE KEY-----"
_ADVICE = {
    errno.ENOENT: "is not there: write its right path, or put it there",
    errno.EACCES: "may not be read by this user: run as root, or let its group read it (chgrp, chmod g+r)",
    errno.EISDIR: "is a directory: name a file in it",
}

About = str
"""Which key of `tls` is meant: `certificate` or `key`."""


class _PassphraseWantedError(Exception):
    """A key asks for what nobody is there to type."""


def read(named: Certificate, held: Mapping[str, str] | None = None) -> Certificate | list[tuple[About, str]]:
    """`named` with what its files hold, or what keeps it from being served. `held` is what they held for who read them
    before, by path (as latin-1)."""
    pems: dict[About, bytes] = {}
    wrong: list[tuple[About, str]] = []
    for about, path in (("certificate", named.chain), ("key", named.key)):
        try:
            pems[about] = content(path, held)
        except OSError as error:
            wrong.append((about, unreadable(path, error)))
    wrong += _not_pem(named, pems)
    if wrong:
        return wrong
    found = replace(named, chain_pem=pems["certificate"], key_pem=pems["key"])
    try:
        context_of(found)
    except _PassphraseWantedError:
        return [
            ("key", f"{named.key} has a passphrase: write it without one, `openssl pkey -in {named.key} -out FILE`")
        ]
    except OSError as error:  # ssl.SSLError is one
        return [_refused(found, error)]
    return found


def expiry(certificate: Certificate) -> datetime | None:
    """When it ends; None where that cannot be told."""
    first = _CERTIFICATE.search(certificate.chain_pem)
    if first is None:
        return None
    try:
        return not_after(ssl.PEM_cert_to_DER_cert(first[0].decode("ascii")))
    except ValueError:
        return None


def warning(certificate: Certificate, now: datetime | None = None) -> str:
    """What is wrong with a certificate that can be served; empty where nothing is."""
    ends = expiry(certificate)
    if ends is None or ends > (now or datetime.now(UTC)):
        return ""
    return f"{certificate.chain} expired at {ends:%Y-%m-%d %H:%M} UTC, and clients refuse it: renew it, then SIGHUP"


@lru_cache(maxsize=MOST_CONTEXTS)
def context_of(certificate: Certificate) -> ssl.SSLContext:
    """What OpenSSL needs to serve `certificate`; the same one for the same, so that session tickets outlive a reload.

    Raises: OSError for what it cannot take.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    load_pair(context, certificate.chain_pem, certificate.key_pem)
    return context


def load_pair(context: ssl.SSLContext, chain_pem: bytes, key_pem: bytes) -> None:
    """Give `context` a certificate and its key.

    Raises: OSError for what OpenSSL cannot take.
    """
    with _as_file(chain_pem) as chain, _as_file(key_pem) as key:
        context.load_cert_chain(chain, key, password=_passphrase)


def content(path: str, held: Mapping[str, str] | None = None) -> bytes:
    """What the file at `path` holds, or did for who has read it before (`held`, by path, as latin-1).

    Raises: OSError.
    """
    return held[path].encode("latin-1") if held is not None and path in held else whole_file(path)


def _passphrase() -> str:
    raise _PassphraseWantedError


def unreadable(path: str, error: OSError) -> str:
    """Why the file at `path` cannot be read, and what to do."""
    return f"{path} {_ADVICE.get(error.errno or 0, f'cannot be read: {error.strerror or error}')}"


def whole_file(path: str, largest_bytes: int = LARGEST_BYTES) -> bytes:
    """What the file at `path` holds. Raises: OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise OSError(errno.EISDIR, "")
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no file")
        content = file.read(largest_bytes + 1)
    if len(content) > largest_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {largest_bytes >> 20} MiB")
    return content


def _not_pem(named: Certificate, pems: dict[About, bytes]) -> Iterator[tuple[About, str]]:
    chain, key = pems.get("certificate"), pems.get("key")
    if chain is not None and not _CERTIFICATE.search(chain):
        if _KEY in chain:
            yield "certificate", f"{named.chain} holds a key and no certificate: is it meant for `key`?"
        else:
            yield "certificate", f"{named.chain} holds no certificate in PEM: `openssl x509 -inform DER` writes one"
    if key is not None and _KEY not in key:
        if _CERTIFICATE.search(key):
            yield "key", f"{named.key} holds a certificate and no key: is it meant for `certificate`?"
        else:
            yield "key", f"{named.key} holds no key in PEM: `openssl pkey -inform DER` writes one"


def _refused(found: Certificate, error: OSError) -> tuple[About, str]:
    """What OpenSSL says, as far as it says anything, in words that help."""
    reason = getattr(error, "reason", None) or ""
    said = reason.lower().replace("_", " ")
    if reason in {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}:
        return "key", (
            f"{found.key} is not the key of the first certificate in {found.chain}: name the pair that was made "
            "together; the certificate stands before its chain"
        )
    if reason.endswith(("_TOO_SMALL", "_TOO_WEAK")):
        return "certificate", f"{found.chain} is too weak for OpenSSL ({said}): have one with a longer key made"
    if _holds_certificates(found.chain_pem):
        return "key", f"{found.key} cannot be used ({said or 'it is no whole key'}): put the key there again"
    return "certificate", f"{found.chain} cannot be used ({said or 'it is no whole certificate'}): put it there again"


def _holds_certificates(pem: bytes) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(
            cadata="\n".join(each.decode("ascii") for each in _CERTIFICATE.findall(pem))
        )
    except (OSError, ValueError):
        return False
    return True


@contextmanager
def _as_file(content: bytes) -> Iterator[Path]:
    """A file in memory that nobody else sees: OpenSSL is told of certificates by path alone."""
    descriptor = os.memfd_create("pem")
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
