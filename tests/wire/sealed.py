"""TLS as bytes: certificates made on the spot, and a client whose records can be cut, held back and left unfinished.

One rule: how a connection ended is told exactly: said (close_notify), cut, reset, or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
import time
from pathlib import Path

from l7proxy.core.x509 import facts_of
from tests.wire.harness import Running

SAID, CUT, RESET, STILL_OPEN = "said", "cut", "reset", "open"
RECORD = 16 * 1024


def make_certificate(
    directory: Path, name: str = "one", *options: str, names: str = "IP:127.0.0.1", issuer: str = ""
) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, or for `names`, and its key, in two files; by itself or by `issuer`, made before."""
    certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
    new = options or ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc")
    about = ["-subj", f"/CN={name}", "-addext", f"subjectAltName={names}"]
    if issuer:
        signing = ["-CA", str(directory / f"{issuer}.crt"), "-CAkey", str(directory / f"{issuer}.key")]
        about += ["-addext", "basicConstraints=CA:FALSE", *signing]
    words = ["openssl", "req", "-x509", *new, *about, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(words, check=True, capture_output=True)
    return certificate, key


def credulous(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """A client that takes whatever is shown, and speaks this version alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    return context


def shown(port: int, name: str | None, context: ssl.SSLContext | None = None) -> str:
    """The subject of the certificate that is shown to who asks for `name`. Raises: ssl.SSLError."""
    context = context or credulous()
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5.0) as raw,
        context.wrap_socket(raw, server_hostname=name) as tls,
    ):
        facts = facts_of(tls.getpeercert(binary_form=True) or b"")
    assert facts is not None
    return facts.subject


def listens_with(certificate: Path, key: Path) -> str:
    """For `running`'s `listener`."""
    return f", tls: {{certificate: {certificate}, key: {key}}}"


def trusting(certificate: Path, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """A client that knows this certificate alone, and speaks this version alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificate)
    context.minimum_version = context.maximum_version = version
    return context


class Tls(Running):
    """The same proxy, asked over TLS."""

    def __init__(self, plain: Running, context: ssl.SSLContext) -> None:
        super().__init__(plain.server, plain.port, plain.path)
        self.context = context

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=self.context)


class Sealed:
    """A blocking client, for a thread beside the proxy's loop."""

    def __init__(self, port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5.0)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="127.0.0.1", session=session)
        self.received = b""
        self.ended = ""

    def __enter__(self) -> Sealed:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def hello(self) -> bytes:
        """The first flight."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    def shake(self, cut: int = 0) -> bytes:
        """Shake hands, `cut` octets at a time; the last flight is returned, not sent."""
        flight = self.hello()
        while True:
            self.put(flight, cut)
            self.incoming.write(self._heard())
            try:
                self.tls.do_handshake()
                return self.outgoing.read()
            except ssl.SSLWantReadError:
                flight = self.outgoing.read()

    def open(self, cut: int = 0) -> Sealed:
        """Shake hands to the end."""
        self.put(self.shake(cut), cut)
        return self

    def seal(self, data: bytes, size: int = RECORD) -> bytes:
        """`data` in records of so many octets."""
        for start in range(0, len(data), size):
            self.tls.write(data[start : start + size])
        return self.outgoing.read()

    def say(self, data: bytes) -> None:
        """Send `data` in a record."""
        self.put(self.seal(data))

    def notify(self) -> bytes:
        """close_notify's record."""
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        return self.outgoing.read()

    def put(self, raw: bytes, cut: int = 0, pause_s: float = 0.0003) -> None:
        """Send octets, so many at a time."""
        with contextlib.suppress(ConnectionError):
            for start in range(0, len(raw), cut or len(raw) or 1):
                self.socket.sendall(raw[start : start + (cut or len(raw))])
                if cut:
                    time.sleep(pause_s)

    def _heard(self) -> bytes:
        raw = self.socket.recv(65536)
        if not raw:
            raise ssl.SSLEOFError(0, "cut")
        return raw

    def read(self, until: bytes | None = None, patience_s: float = 5.0) -> tuple[bytes, str]:
        """All that comes until the end, or until `until` is there; and how it ended."""
        self.socket.settimeout(patience_s)
        while until is None or until not in self.received:
            try:
                piece = self.tls.read(65536)
                if not piece:
                    return self.received, SAID
                self.received += piece
                continue
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLZeroReturnError:
                return self.received, SAID
            try:
                raw = self.socket.recv(65536)
            except ConnectionError:
                return self.received, RESET
            except TimeoutError:
                return self.received, STILL_OPEN
            if not raw:
                return self.received, CUT
            self.incoming.write(raw)
        return self.received, STILL_OPEN
