"""What OpenSSL needs to serve clients: contexts, and which of them a handshake is made with.

One rule: a handshake begins with the root of its listener and goes on with the context of a certificate. The root has
the keys of session tickets, and stays while certificates change, so that sessions go on.
"""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from l7proxy.core.settings.tls import Certificate, Clients, Tls

MOST_CONTEXTS = 1024
"""That are kept for the next time, with 25 KiB each; those in service stay anyway."""
MOST_PLANS = 64
CIPHERS = ":".join(
    f"ECDHE-{by}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for by in ("ECDSA", "RSA")
)
"""For TLS 1.2: Mozilla's intermediate set, without the finite-field ones, which want parameters of their own. Clients
choose among them, since all are good and they know what their hardware does well. TLS 1.3 has OpenSSL's own."""


class PassphraseWantedError(Exception):
    """A key asks for what nobody is there to type."""


def _profile(minimum: str, clients: Clients | None) -> ssl.SSLContext:
    """A context without a certificate. Raises: OSError for what it cannot take."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if minimum == "1.3" else ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    if clients is not None:
        with as_file(clients.ca_pem) as authorities:
            context.load_verify_locations(authorities)
        context.verify_mode = ssl.CERT_REQUIRED if clients.required else ssl.CERT_OPTIONAL
    return context


def context_of(*certificates: Certificate, clients: Clients | None = None) -> ssl.SSLContext:
    """What serves `certificates`, whose keys are of different kinds; the same one for the same.

    Raises: OSError for what it cannot take, PassphraseWantedError.
    """
    return _context_of(certificates, clients)


@lru_cache(maxsize=MOST_CONTEXTS)
def _context_of(certificates: tuple[Certificate, ...], clients: Clients | None) -> ssl.SSLContext:
    context = _profile("1.2", clients)  # the oldest version is the root's matter
    for each in certificates:
        load_pair(context, each.chain_pem, each.key_pem)
    return context


def load_pair(context: ssl.SSLContext, chain_pem: bytes, key_pem: bytes) -> None:
    """Give `context` a certificate and its key.

    Raises: OSError for what OpenSSL cannot take, PassphraseWantedError.
    """
    with as_file(chain_pem) as chain, as_file(key_pem) as key:
        context.load_cert_chain(chain, key, password=_passphrase)


def _passphrase() -> str:
    raise PassphraseWantedError


class Plan:
    """Which context serves which name."""

    def __init__(self, tls: Tls) -> None:
        self._groups: dict[str, dict[str, Certificate]] = {}
        for certificate in tls.certificates:
            for name in certificate.facts.names if certificate.facts is not None else ():
                group = self._groups.setdefault(name, {})
                kind = kind_of(certificate)
                group[kind] = later(group[kind], certificate) if kind in group else certificate
        self.by_name = {name: self._context(tuple(group.values()), tls) for name, group in self._groups.items()}
        fallback = tls.fallback
        first = fallback or next(iter(tls.certificates), None)
        self._fallback = self._context(self._beside(fallback), tls) if fallback is not None else None
        self._nameless = self._context(self._beside(first), tls) if first is not None else None

    def _context(self, certificates: Sequence[Certificate], tls: Tls) -> ssl.SSLContext:
        return context_of(*certificates, clients=tls.clients)

    def _beside(self, certificate: Certificate) -> tuple[Certificate, ...]:
        """It, and one with another kind of key for the same name."""
        for name in certificate.facts.names if certificate.facts is not None else ():
            if certificate in self._groups[name].values():
                return tuple(self._groups[name].values())
        return (certificate,)

    def find(self, name: str | None) -> ssl.SSLContext | None:
        """The one for `name` as a client says it (RFC 6066 3); None where none is meant for it.

        An exact name wins, then `*.` in place of its first label (RFC 9525 6.3).
        """
        if not name:
            return self._nameless
        name = name.lower().rstrip(".")
        found = self.by_name.get(name)
        if found is None:
            found = self.by_name.get("*." + name.partition(".")[2], self._fallback)
        return found


@lru_cache(maxsize=MOST_PLANS)
def plan_of(tls: Tls) -> Plan:
    """The plan of `tls`, whose certificates were read; the same one for the same. It takes half a millisecond for each
    certificate that is new.

    Raises: OSError for what OpenSSL cannot take.
    """
    return Plan(tls)


def kind_of(certificate: Certificate) -> str:
    """Of keys: one context serves one certificate of each kind."""
    return certificate.facts.key if certificate.facts is not None else ""


def later(one: Certificate, other: Certificate) -> Certificate:
    """The one that ends later, of two that are for the same name."""
    if one.facts is None or other.facts is None:
        return one
    return other if other.facts.ends > one.facts.ends else one


class Seal:
    """How a listener shakes hands now; `take` changes it for handshakes that begin later."""

    def __init__(self) -> None:
        self.root: ssl.SSLContext
        self._of: tuple[Clients | None, str] | None = None
        self._plan: Plan
        self.tls: Tls | None = None
        self.asks_clients = False
        self.unknown: str | None = None
        """The name that the last handshake was refused for."""
        self.handshakes = 0
        self.resumed = 0
        self.failed: dict[str, int] = {}

    def take(self, tls: Tls) -> None:
        """Serve as `tls` says from now on. Where clients have to prove more, or other things, sessions of before end.

        Raises: OSError for what OpenSSL cannot take.
        """
        if tls is self.tls:
            return
        plan, of = plan_of(tls), (tls.clients, tls.minimum)
        if of != self._of:
            root = _profile(tls.minimum, tls.clients)
            root.sni_callback = self._choose
            self.root, self._of = root, of
        self._plan, self.tls = plan, tls
        self.asks_clients = tls.clients is not None

    def _choose(self, handshake: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        found = self._plan.find(name)
        if found is None:
            self.unknown = name
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        handshake.context = found
        return None

    def why(self, error: ssl.SSLError) -> str:
        """Why a handshake has failed, where more is known of that than OpenSSL says; else empty."""
        unknown, self.unknown = self.unknown, None
        if error.reason == _UNKNOWN_NAME:
            if unknown is None:
                return "the client asks for a name that is none: it is not ASCII"
            return f"no certificate is for the name {unknown!r} that the client asks for"
        if error.reason == "UNSUPPORTED_PROTOCOL" and self.tls is not None:
            return f"unsupported protocol: the client knows no TLS {self.tls.minimum}"
        if error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
            return "the client shows no certificate, and tls.clients requires one"
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"the client's certificate is not taken: {error.verify_message}"
        return ""

    def kind_of(self, error: ssl.SSLError | None) -> str:
        """What metrics call a failure; without an `error` it was no handshake at all."""
        return _KINDS.get(error.reason or "", OTHER) if error is not None else OTHER

    def count(self, kind: str) -> None:
        """A handshake has failed."""
        self.failed[kind] = self.failed.get(kind, 0) + 1


def hush_names() -> None:
    """Python takes the name in a ClientHello for ASCII, and has a traceback for each that is not (`_ssl.c`): keep it
    out of the log, where the handshake that failed has its line anyway."""
    before = sys.unraisablehook

    def told(about: sys.UnraisableHookArgs) -> None:
        if not (isinstance(about.exc_value, UnicodeDecodeError) and isinstance(about.object, bytes)):
            before(about)

    sys.unraisablehook = told


UNFINISHED, OTHER = "unfinished", "other"
_UNKNOWN_NAME = "CALLBACK_FAILED"
_KINDS = {
    _UNKNOWN_NAME: "unknown_name",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no_client_certificate",
    "CERTIFICATE_VERIFY_FAILED": "client_certificate",
    "NO_SHARED_CIPHER": "too_old",
    "UNSUPPORTED_PROTOCOL": "too_old",
    "TLSV1_ALERT_UNKNOWN_CA": "certificate_refused",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "certificate_refused",
    "SSLV3_ALERT_BAD_CERTIFICATE": "certificate_refused",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "certificate_refused",
}
"""What a failure is called in metrics: one closed set."""


@contextmanager
def as_file(content: bytes) -> Iterator[Path]:
    """A file in memory that nobody else sees: OpenSSL is told of certificates by path alone."""
    descriptor = os.memfd_create("pem")
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
