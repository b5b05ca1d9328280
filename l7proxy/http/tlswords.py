"""What OpenSSL says, in words.

One rule: where its word says too little, what it mostly means stands beside it.
"""

from __future__ import annotations

import ssl


def said(error: ssl.SSLError) -> str:
    """OpenSSL's reason in plain words."""
    reason = error.reason or ""
    words = reason.lower().replace("_", " ") or str(error)
    meaning = _MEANINGS.get(reason)
    return f"{words}: {meaning}" if meaning else words


_MEANINGS = {
    "NO_SHARED_CIPHER": "the client knows no cipher that is offered",
    "UNSUPPORTED_PROTOCOL": "the client knows no TLS 1.2",
    "TLSV1_ALERT_UNKNOWN_CA": "the client does not trust the certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the client does not take the certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the client does not take the certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client says the certificate has expired",
}
