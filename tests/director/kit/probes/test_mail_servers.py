"""Checks of mail servers against Exim and Dovecot themselves."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from director.kit.checks.base import Tls
from director.kit.checks.mail import MailProbe, MailProtocol
from tests.director.kit.probes.asking import ask, said
from tests.director.kit.probes.servers import free_ports, needed, needs_root, opened_to, running

pytestmark = pytest.mark.unit

SMTP, IMAP, POP3 = MailProtocol
Ports = dict[tuple[MailProtocol, str], int]

_DOVECOT = """
base_dir = {folder}/run
state_dir = {folder}/state
log_path = /dev/stderr
instance_name = test
protocols = imap pop3
listen = 127.0.0.1
ssl = yes
ssl_cert = <{certificate}
ssl_key = <{key}
default_internal_user = {user}
default_login_user = {user}
default_internal_group = {group}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
  }}
}}
service pop3-login {{
  chroot =
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = {pop3s}
  }}
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
passdb {{
  driver = static
  args = password=x
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home=/nonexistent
}}
"""


@pytest.fixture(scope="module")
def dovecot(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[Ports]:
    program = needed("dovecot", "dovecot-imapd and dovecot-pop3d")
    needs_root("start Dovecot")
    folder = tmp_path_factory.mktemp("dovecot")
    names = ["imap", "imaps", "pop3", "pop3s"]
    ports = dict(zip(names, free_ports(4), strict=True))
    words = {
        "folder": folder,
        "certificate": certificate[0],
        "key": certificate[1],
        "user": "dovecot",
        "group": "dovecot",
    }
    (folder / "dovecot.conf").write_text(_DOVECOT.format(**words, **ports))
    with running([program, "-F", "-c", str(folder / "dovecot.conf")], folder, [*ports.values()]):
        yield {
            (IMAP, "none"): ports["imap"],
            (IMAP, "tls"): ports["imaps"],
            (POP3, "none"): ports["pop3"],
            (POP3, "tls"): ports["pop3s"],
        }


_EXIM = """
exim_user = Debian-exim
exim_group = Debian-exim
spool_directory = {folder}
log_file_path = {folder}/%slog
pid_file_path =
keep_environment =
primary_hostname = mail.example.org
local_interfaces = 127.0.0.1
daemon_smtp_ports = {smtp} : {smtps} : {bare}
tls_on_connect_ports = {smtps}
tls_advertise_hosts = ${{if eq{{$received_port}}{{{bare}}}{{}}{{*}}}}
tls_certificate = {certificate}
tls_privatekey = {key}
host_lookup =
rfc1413_hosts =
"""


@pytest.fixture(scope="module")
def exim(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[tuple[Ports, Path]]:
    """Its ports, and its log."""
    program = needed("exim4", "exim4-daemon-light")
    needs_root("start Exim with a configuration of one's own")
    folder = tmp_path_factory.mktemp("exim")
    opened_to("Debian-exim", folder)
    names = ["smtp", "smtps", "bare"]
    ports = dict(zip(names, free_ports(3), strict=True))
    files = {}
    for name, source in zip(("certificate", "key"), certificate, strict=True):
        files[name] = folder / name
        shutil.copy(source, files[name])
        shutil.chown(files[name], "Debian-exim")
    (folder / "exim.conf").write_text(_EXIM.format(folder=folder, **files, **ports))
    with running([program, "-C", str(folder / "exim.conf"), "-bdf"], folder, [ports["smtp"]]):
        yield (
            {(SMTP, "none"): ports["smtp"], (SMTP, "tls"): ports["smtps"], (SMTP, "bare"): ports["bare"]},
            folder / "mainlog",
        )


@pytest.fixture
def port(request: pytest.FixtureRequest, protocol: MailProtocol, tls: str) -> int:
    ports: Ports = request.getfixturevalue("exim")[0] if protocol is SMTP else request.getfixturevalue("dovecot")
    return ports[protocol, "tls" if tls == "tls" else "none"]


@pytest.mark.parametrize("tls", ["none", "starttls", "tls"])
@pytest.mark.parametrize("protocol", MailProtocol)
def test_mail_server_greets(port: int, protocol: MailProtocol, tls: str, certificate: tuple[Path, Path]) -> None:
    keys = None if tls == "none" else Tls(ca=str(certificate[0]))
    wanted = "greeted" if tls == "none" else "greeted, TLS stands"
    result = ask(port, MailProbe(protocol, keys, tls == "starttls"))
    assert (result.ok, result.reason) == (True, wanted)
    assert ("ends in" in result.warning) is (tls != "none")  # in two days


@pytest.mark.parametrize("tls", ["starttls", "tls"])
@pytest.mark.parametrize("protocol", MailProtocol)
def test_certificate_is_verified(port: int, protocol: MailProtocol, tls: str) -> None:
    probe = MailProbe(protocol, Tls(server_name="www.example.org"), tls == "starttls")
    assert said(port, probe) == (False, "certificate: self-signed certificate")


def test_smtp_without_starttls_says_so(exim: tuple[Ports, Path]) -> None:
    probe = MailProbe(SMTP, Tls(verify=False), starttls=True)
    assert said(exim[0][SMTP, "bare"], probe) == (False, "STARTTLS is not offered")


def test_mail_server_has_nothing_to_complain_of(exim: tuple[Ports, Path], certificate: tuple[Path, Path]) -> None:
    """It would tell of clients that speak too soon, vanish, or break TLS off."""
    before = exim[1].read_text()
    for tls in ("none", "starttls", "tls"):
        keys = None if tls == "none" else Tls(ca=str(certificate[0]))
        assert ask(exim[0][SMTP, "tls" if tls == "tls" else "none"], MailProbe(SMTP, keys, tls == "starttls")).ok
    assert exim[1].read_text() == before


@pytest.mark.parametrize("tls", ["none"])
@pytest.mark.parametrize("protocol", MailProtocol)
def test_one_mail_protocol_is_not_another(port: int, protocol: MailProtocol, tls: str) -> None:
    other = {SMTP: IMAP, IMAP: POP3, POP3: SMTP}[protocol]
    ok, reason = said(port, MailProbe(other))
    assert not ok
    assert reason.startswith(f"the greeting is not {other.name}: it begins with '")
