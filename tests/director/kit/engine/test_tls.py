"""TLS around conversations: from the start or later, good and bad, and certificates that end soon."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from director.kit.checks.base import Tls
from director.kit.errors import ProbeError
from director.kit.health import ProbeResult
from director.kit.probes import tls as probes_tls
from director.kit.probes.certificates import not_after
from director.kit.probes.dialogue import Dialogue, StartTls, Step
from director.kit.probes.tls import ending
from director.kit.probes.wire import converse
from tests.director.kit.engine.peers import Says, Talk, a_check, listening

pytestmark = [
    pytest.mark.unit,
    # ssl.SSLSocket, the peers' side, is left open where the connection is reset before its handshake begins.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

DAY_S = 86400.0


def make(directory: Path, name: str, *options: str) -> Path:
    """A self-signed certificate of 127.0.0.1 with its key, in one file."""
    path = directory / f"{name}.pem"
    key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        str(path),
        "-out",
        f"{path}.crt",
    ]
    names = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(["openssl", "req", "-x509", *key, *names, *options], check=True, capture_output=True)
    with path.open("a") as file:
        file.write(Path(f"{path}.crt").read_text())
    return path


def make_ended(directory: Path) -> Path:
    """One that has ended on the second day of 2020."""
    config = directory / "ca.conf"
    config.write_text(
        "[ca]\ndefault_ca = it\n[it]\npolicy = any\nx509_extensions = names\ndefault_md = sha256\nrand_serial = yes\n"
        f"database = {directory}/index.txt\nnew_certs_dir = {directory}\n"
        "[any]\ncommonName = supplied\n[names]\nsubjectAltName = IP:127.0.0.1\n"
        "[req]\ndistinguished_name = nothing\n[nothing]\n"
    )
    (directory / "index.txt").touch()
    path = directory / "ended.pem"
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(path)]
    times = ["-startdate", "20200101000000Z", "-enddate", "20200102000000Z"]
    signing = ["-selfsign", "-notext", "-keyfile", str(path), "-in", f"{path}.csr", "-out", f"{path}.crt"]
    for command in (
        ["req", "-new", "-config", str(config), *key, "-subj", "/CN=ended", "-out", f"{path}.csr"],
        ["ca", "-batch", "-config", str(config), *signing, *times],
    ):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    with path.open("a") as file:
        file.write(Path(f"{path}.crt").read_text())
    return path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("tls")
    return {
        "soon": make(directory, "soon", "-days", "5"),
        "later": make(directory, "later", "-days", "400"),
        "far": make(directory, "far", "-days", "20000"),  # beyond 2049: the other way to write a time
    }


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    probes_tls.forget_contexts()
    yield
    probes_tls.forget_contexts()


def server_context(path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def over_tls(path: Path, greeting: bytes = b"") -> Talk:
    """Says `greeting` without TLS, and answers "world" with it."""
    context = server_context(path)

    def talk(peer: socket.socket) -> None:
        if greeting:
            peer.sendall(greeting)
            peer.recv(100)
            peer.sendall(b"go ahead\n")
        with contextlib.suppress(ssl.SSLError), context.wrap_socket(peer, server_side=True) as secured:
            if secured.recv(100) == b"hello\n":
                secured.sendall(b"world\n")
                secured.recv(1)

    return talk


def ask(talk: Talk, tls: Tls | None, dialogue: Dialogue | None = None) -> ProbeResult:
    with listening(talk) as port:
        return asyncio.run(converse(a_check(port), dialogue or Says(), tls))


def test_conversation_goes_over_tls(runner: asyncio.Runner, certificates: dict[str, Path]) -> None:
    path = certificates["later"]
    with listening(over_tls(path)) as port:
        result = runner.run(converse(a_check(port), Says(), Tls(ca=f"{path}.crt")))
    assert (result.ok, result.reason, result.output, result.warning) == (True, "said so", b"world\n", "")


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    ("name", "warn_s", "warning"),
    [
        ("soon", 14 * DAY_S, "certificate of 127.0.0.1 ends in 4 days"),
        ("soon", 2 * DAY_S, ""),
        ("soon", 0.0, ""),
        ("later", 14 * DAY_S, ""),
        ("later", 500 * DAY_S, "certificate of 127.0.0.1 ends in 399 days"),
        ("far", 30000 * DAY_S, "certificate of 127.0.0.1 ends in 19999 days"),
    ],
)
def test_certificate_that_ends_soon_is_a_warning(
    certificates: dict[str, Path], verify: bool, name: str, warn_s: float, warning: str
) -> None:
    path = certificates[name]
    result = ask(over_tls(path), Tls(verify=verify, ca=f"{path}.crt" if verify else None, warn_s=warn_s))
    assert result.ok
    assert result.warning.partition(" (")[0] == warning


def test_certificate_that_has_ended(tmp_path: Path) -> None:
    """Verified, it is a failure in OpenSSL's words; otherwise a warning."""
    path = make_ended(tmp_path)
    verified = ask(over_tls(path), Tls(ca=f"{path}.crt"))
    assert (verified.ok, verified.reason) == (False, "certificate: certificate has expired")
    unverified = ask(over_tls(path), Tls(verify=False))
    assert unverified.ok
    assert unverified.warning == "certificate of 127.0.0.1 has ended (2020-01-02)"


def test_a_certificates_warning_is_another_at_most_once_a_day() -> None:
    """Each other text is an event and a notification of every real server that shows it."""
    ends = datetime(2026, 3, 6, 12, tzinfo=UTC)
    minutes = range(-3 * 24 * 60, 3 * 24 * 60)
    said = [ending("it", ends, 14 * DAY_S, ends.timestamp() + 60 * minute) for minute in minutes]
    assert list(dict.fromkeys(said)) == [
        "certificate of it ends in 3 days (2026-03-06)",
        "certificate of it ends in 2 days (2026-03-06)",
        "certificate of it ends in 1 day (2026-03-06)",
        "certificate of it ends in less than a day (2026-03-06)",
        "certificate of it has ended (2026-03-06)",
    ]


class Upgrades(Says):
    """Says something in the clear first."""

    def __init__(self, tls: Tls) -> None:
        super().__init__()
        self.tls = tls
        self.is_greeted = self.is_secured = False

    def opened(self) -> Step:
        return b""

    def secured(self) -> Step:
        self.is_secured = True
        return self.first

    def heard(self, data: bytes) -> Step:
        if self.is_secured:
            return super().heard(data)
        if self.is_greeted:
            return StartTls(self.tls)
        self.is_greeted = True
        return b"STARTTLS\n"


def test_conversation_can_go_over_to_tls(runner: asyncio.Runner, certificates: dict[str, Path]) -> None:
    path = certificates["soon"]
    with listening(over_tls(path, b"220 there\n")) as port:
        result = runner.run(converse(a_check(port), Upgrades(Tls(ca=f"{path}.crt")), None))
    assert result.ok
    assert result.output == b"220 there\ngo ahead\nworld\n"
    assert result.warning.startswith("certificate of 127.0.0.1 ends in 4 days")


def test_certificate_that_nobody_vouches_for_fails(certificates: dict[str, Path]) -> None:
    assert ask(over_tls(certificates["later"]), Tls()).reason == "certificate: self-signed certificate"


def test_name_that_the_certificate_lacks_fails(certificates: dict[str, Path]) -> None:
    path = certificates["later"]
    result = ask(over_tls(path), Tls(ca=f"{path}.crt", server_name="other.example"))
    assert not result.ok
    assert result.reason.startswith("certificate: Hostname mismatch")


def garbage(peer: socket.socket) -> None:
    peer.recv(1000)
    peer.sendall(b"\x00" * 1000)


def alert(peer: socket.socket) -> None:
    peer.recv(1000)
    peer.sendall(b"\x15\x03\x03\x00\x02\x02\x28")  # fatal: handshake_failure (RFC 8446 6)
    peer.recv(1)


def closes(peer: socket.socket) -> None:
    peer.recv(10_000)


def stalls(peer: socket.socket) -> None:
    while peer.recv(1000):
        pass


@pytest.mark.parametrize(
    ("talk", "reason"),
    [
        (garbage, "TLS: wrong version number"),
        (alert, "TLS: sslv3 alert handshake failure"),
        (closes, "connection closed during the TLS handshake"),
    ],
)
def test_broken_handshake_has_a_reason(talk: Talk, reason: str) -> None:
    result = ask(talk, Tls(verify=False))
    assert (result.ok, result.reason) == (False, reason)


def test_handshake_that_stalls_ends_with_the_timeout() -> None:
    with listening(stalls) as port:
        result = asyncio.run(converse(a_check(port, 0.1), Says(), Tls(verify=False)))
    assert (result.ok, result.reason) == (False, "no answer within 100ms")


def test_client_certificate_is_shown(certificates: dict[str, Path]) -> None:
    own, theirs = certificates["later"], certificates["soon"]
    context = server_context(theirs)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(f"{own}.crt")

    def talk(peer: socket.socket) -> None:
        with context.wrap_socket(peer, server_side=True) as secured:
            secured.recv(100)
            secured.sendall(b"world\n")
            secured.recv(1)

    assert ask(talk, Tls(verify=False, certificate=str(own), warn_s=0.0)).ok
    without = ask(talk, Tls(verify=False, warn_s=0.0))
    assert not without.ok
    assert "certificate required" in without.reason


@pytest.mark.parametrize(
    ("tls", "said"),
    [
        (Tls(ca="/nowhere/ca.pem"), "ca file /nowhere/ca.pem: No such file or directory: put it there"),
        (Tls(ca="/etc/passwd"), "ca file /etc/passwd cannot be used: "),
        (Tls(certificate="/etc/passwd"), "certificate /etc/passwd cannot be used: "),
    ],
)
def test_file_that_cannot_be_used_is_not_the_servers_fault(certificates: dict[str, Path], tls: Tls, said: str) -> None:
    with pytest.raises(ProbeError) as raised:
        ask(over_tls(certificates["later"]), tls)
    assert str(raised.value).startswith(said)


def test_renewed_file_is_used_soon(
    certificates: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted = tmp_path / "ca.pem"
    shutil.copy(f"{certificates['soon']}.crt", trusted)
    tls = Tls(ca=str(trusted))
    assert not ask(over_tls(certificates["later"]), tls).ok
    context = probes_tls.context_of(tls)
    assert probes_tls.context_of(tls) is context
    shutil.copy(f"{certificates['later']}.crt", trusted)
    os.utime(trusted, (1, 1))
    monkeypatch.setattr(probes_tls, "_LOOK_AGAIN_S", 0.0)
    assert ask(over_tls(certificates["later"]), tls).ok


def test_end_of_a_certificate_is_read(certificates: dict[str, Path]) -> None:
    for path in certificates.values():
        der = ssl.PEM_cert_to_DER_cert(Path(f"{path}.crt").read_text())
        said = subprocess.run(
            ["openssl", "x509", "-in", f"{path}.crt", "-noout", "-enddate"], check=True, capture_output=True, text=True
        ).stdout.strip()
        assert not_after(der) == datetime.strptime(said, "notAfter=%b %d %H:%M:%S %Y %Z").replace(tzinfo=UTC)


def test_what_is_no_certificate_has_no_end(certificates: dict[str, Path]) -> None:
    der = ssl.PEM_cert_to_DER_cert(Path(f"{certificates['soon']}.crt").read_text())
    for length in range(200):
        assert not_after(der[:length]) is None
    for at in range(200):
        not_after(der[:at] + b"\xff" + der[at + 1 :])  # returns
