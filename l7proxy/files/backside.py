"""What OpenSSL needs to speak to backends.

One rule: what cannot be used is told when the configuration is read, of the key that names it.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache

from l7proxy.core.settings.backside import BackendTls
from l7proxy.core.settings.tls import Certificate
from l7proxy.files import certificates
from l7proxy.files.contexts import load_pair

MOST_CONTEXTS = 256


def read(named: BackendTls, held: Mapping[str, str] | None = None) -> BackendTls | list[tuple[str, str]]:
    """`named` with what its files hold, or what keeps it from being used, by key. `held` is as for certificates."""
    found, wrong = named, []
    if named.ca is not None:
        try:
            pem = certificates.content(named.ca, held)
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode("ascii"))
            found = replace(found, ca_pem=pem)
        except (ssl.SSLError, UnicodeDecodeError):
            wrong.append(("ca", f"{named.ca} holds no certificate in PEM: `openssl x509 -inform DER` writes one"))
        except OSError as error:
            wrong.append(("ca", certificates.unreadable(named.ca, error)))
    if named.certificate is not None and named.key is not None:
        pair = certificates.read(Certificate(named.certificate, named.key), held)
        if isinstance(pair, Certificate):
            found = replace(found, chain_pem=pair.chain_pem, key_pem=pair.key_pem)
        else:
            wrong += pair
    return wrong or found


def files_of(tls: BackendTls) -> Iterator[tuple[str, bytes]]:
    """What its files held, by path."""
    for path, pem in ((tls.ca, tls.ca_pem), (tls.certificate, tls.chain_pem), (tls.key, tls.key_pem)):
        if path is not None:
            yield path, pem


@lru_cache(maxsize=MOST_CONTEXTS)
def context_of(tls: BackendTls) -> ssl.SSLContext:
    """For a client of backends: TLS 1.2 and later, verified; the same one for the same.

    Raises: OSError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif tls.ca_pem:
        context.load_verify_locations(cadata=tls.ca_pem.decode("ascii"))
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if tls.chain_pem:
        load_pair(context, tls.chain_pem, tls.key_pem)
    return context
