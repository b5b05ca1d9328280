"""TLS over bytes: what comes from the peer goes in, what the dialogue says and hears comes out.

One rule: nothing here touches a socket; a certificate's end is looked at whether or not it is verified.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from datetime import UTC, datetime
from pathlib import Path

from director.kit.checks.base import Tls
from director.kit.errors import ProbeError
from director.kit.net import IPAddress
from director.kit.probes.certificates import not_after

_MOST_CONTEXTS = 256
_LOOK_AGAIN_S = 5.0
"""How old the knowledge of a file's last change may be: a renewed one is used soon, yet not looked for each time."""

_Files = tuple[float, ...]
_Key = tuple[bool, str | None, str | None, str | None, tuple[str, ...]]
_contexts: dict[_Key, tuple[float, _Files, ssl.SSLContext]] = {}


def context_of(tls: Tls) -> ssl.SSLContext:
    """What OpenSSL needs to know for `tls`; made once, and anew when a file of it has changed.

    Raises: ProbeError when a file of it cannot be used.
    """
    now = time.monotonic()
    key = (tls.verify, tls.ca, tls.certificate, tls.key, tls.alpn)
    known = _contexts.get(key)
    if known is not None and now - known[0] < _LOOK_AGAIN_S:
        return known[2]
    files = tuple(_changed_at(name, path) for name, path in _files(tls))
    context = known[2] if known is not None and known[1] == files else _made(tls)
    _contexts.pop(key, None)
    while len(_contexts) >= _MOST_CONTEXTS:  # reloads bring new ones
        del _contexts[next(iter(_contexts))]
    _contexts[key] = (now, files, context)
    return context


def forget_contexts() -> None:
    """Read every file anew."""
    _contexts.clear()


def _files(tls: Tls) -> tuple[tuple[str, str], ...]:
    named = (("ca", tls.ca), ("certificate", tls.certificate), ("key", tls.key))
    return tuple((name, path) for name, path in named if path is not None)


def _changed_at(name: str, path: str) -> float:
    try:
        return Path(path).stat().st_mtime
    except OSError as error:
        raise ProbeError(f"{name} file {path}: {error.strerror}: put it there, or write its right path") from error


def _made(tls: Tls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca)
    except (OSError, ValueError) as error:
        raise ProbeError(f"ca file {tls.ca} cannot be used: {_said(error)}: it must have PEM certificates") from error
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.alpn:
        context.set_alpn_protocols(list(tls.alpn))
    if tls.certificate is not None:
        try:
            # The empty password: a key that needs one must not ask for it at the terminal.
            context.load_cert_chain(tls.certificate, tls.key, password="")
        except (OSError, ValueError) as error:
            what = f"certificate {tls.certificate}" + (f" with key {tls.key}" if tls.key else "")
            raise ProbeError(
                f"{what} cannot be used: {_said(error)}: both must be PEM, belong together, and need no password"
            ) from error
    return context


def _said(error: Exception) -> str:
    text = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return str(text).lower().replace("_", " ")


class Channel:
    """One TLS connection's state; it stands once `is_open`."""

    __slots__ = ("_incoming", "_object", "_outgoing", "_tls", "_who", "is_open")

    def __init__(self, tls: Tls, address: IPAddress) -> None:
        """Raises: ProbeError when a file of `tls` cannot be used."""
        self._tls = tls
        self._who = tls.server_name or str(address)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context_of(tls).wrap_bio(self._incoming, self._outgoing, server_hostname=self._who)
        self.is_open = False

    def put(self, raw: bytes) -> None:
        """What the peer has sent; none: it sends no more."""
        if raw:
            self._incoming.write(raw)
        else:
            self._incoming.write_eof()

    def shake(self) -> bool:
        """Go on with the handshake; whether it is done.

        Raises: ssl.SSLError.
        """
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self.is_open = True
        return True

    def take(self) -> bytes | None:
        """What the peer says next; none at its end; None while nothing is there.

        Raises: ssl.SSLError.
        """
        try:
            return self._object.read(65536)
        except ssl.SSLWantReadError:
            return None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    def say(self, data: bytes) -> None:
        """Say `data`; `to_send` has it then."""
        self._object.write(data)

    def farewell(self) -> bytes:
        """What is to be sent so that the peer knows that no more comes (RFC 8446 6.1)."""
        with contextlib.suppress(ssl.SSLError):  # the peer's own word is not waited for
            self._object.unwrap()
        return self.to_send()

    def to_send(self) -> bytes:
        """What is to be sent to the peer now."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def warning(self) -> str:
        """That the peer's certificate ends soon, or has ended, or nothing."""
        der = self._object.getpeercert(binary_form=True) if self._tls.warn_s > 0 else None
        ends = not_after(der) if der else None
        return "" if ends is None else ending(self._who, ends, self._tls.warn_s, time.time())


def ending(who: str, ends: datetime, warn_s: float, now_unix_s: float) -> str:
    """The warning about a certificate of `who`; empty when it ends later than `warn_s` from now.

    It is another at most once a day, and after the end never: whatever is another is told, to people.

    >>> ending("a.example", datetime(2026, 3, 6, tzinfo=UTC), 864000.0, 1772323200.0)
    'certificate of a.example ends in 5 days (2026-03-06)'
    """
    left_s = ends.timestamp() - now_unix_s
    if left_s > warn_s:
        return ""
    day = f"{ends.astimezone(UTC):%Y-%m-%d}"
    if left_s <= 0:
        return f"certificate of {who} has ended ({day})"
    days = int(left_s // 86400)
    left = f"{days} day{'' if days == 1 else 's'}" if days else "less than a day"
    return f"certificate of {who} ends in {left} ({day})"
