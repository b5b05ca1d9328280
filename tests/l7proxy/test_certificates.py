"""Certificates of listeners: what keeps one from being served is told where the file names it."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from director.kit.configfile import InvalidConfigError
from l7proxy.certificates import expiry, warnings
from l7proxy.cli import cli
from l7proxy.contexts import plan_of
from l7proxy.core.settings.tls import Certificate
from l7proxy.loading import load_file
from tests.wire.sealed import make_certificate

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `one`, `two`, and what may be taken for them."""
    place = tmp_path_factory.mktemp("certificates")
    for name in ("one", "two"):
        make_certificate(place, name)
    rsa = ("-newkey", "rsa:2048", "-noenc")
    make_certificate(place, "rsa", *rsa)
    make_certificate(place, "short", "-newkey", "rsa:1024", "-noenc")
    make_certificate(place, "locked", "-newkey", "rsa:2048", "-passout", "pass:secret")
    der = ["openssl", "x509", "-in", str(place / "one.crt"), "-outform", "DER", "-out", str(place / "der.crt")]
    subprocess.run(der, check=True, capture_output=True)
    (place / "both.pem").write_text((place / "one.key").read_text() + (place / "one.crt").read_text())
    (place / "chain.crt").write_text((place / "two.crt").read_text() + (place / "one.crt").read_text())
    lines = (place / "one.key").read_text().splitlines()
    (place / "torn.key").write_text("\n".join([lines[0], lines[1][:20], lines[-1]]))
    (place / "torn.crt").write_text("-----BEGIN CERTIFICATE-----\nTWFu\n-----END CERTIFICATE-----\n")
    (place / "empty").write_text("")
    return place


def text(certificate: Path, key: Path) -> str:
    return (
        "listeners:\n"
        "  web:\n"
        "    bind: 127.0.0.1:443\n"
        f"    tls: {{certificate: {certificate},\n"
        f"          key: {key}}}\n"
        "routes: [{upstream: up}]\n"
        "upstreams: {up: {backends: {a: {address: 127.0.0.1:1}}}}\n"
    )


def problems(made: Path, certificate: str, key: str) -> list[str]:
    path = made / "l7proxy.yaml"
    path.write_text(text(made / certificate, made / key))
    try:
        load_file(str(path))
    except InvalidConfigError as error:
        return [line.replace(str(made), "") for line in error.lines()]
    return []


@pytest.mark.parametrize(
    ("certificate", "key"), [("one.crt", "one.key"), ("both.pem", "both.pem"), ("rsa.crt", "rsa.key")]
)
def test_a_pair_is_taken(made: Path, certificate: str, key: str) -> None:
    assert problems(made, certificate, key) == []


@pytest.mark.parametrize(
    ("certificate", "key", "wanted"),
    [
        ("no.crt", "one.key", ["4:24 certificate is not there"]),
        ("no.crt", "no.key", ["4:24 certificate is not there", "5:16 key is not there"]),
        (".", "one.key", ["4:24 certificate is a directory"]),
        ("one.key", "one.crt", ["4:24 certificate is it meant for `key`", "5:16 key is it meant for `certificate`"]),
        ("der.crt", "one.key", ["4:24 certificate -inform DER"]),
        ("empty", "empty", ["4:24 certificate no certificate in PEM", "5:16 key no key in PEM"]),
        ("torn.crt", "one.key", ["4:24 certificate cannot be used"]),
        ("one.crt", "torn.key", ["5:16 key cannot be used"]),
        ("one.crt", "two.key", ["5:16 key is not the key of the first certificate in /one.crt"]),
        ("chain.crt", "one.key", ["5:16 key the certificate stands before its chain"]),
        ("rsa.crt", "one.key", ["5:16 key is not the key of"]),
        ("short.crt", "short.key", ["4:24 certificate is too weak"]),
        ("locked.crt", "locked.key", ["5:16 key has a passphrase: write it without"]),
    ],
)
def test_what_cannot_be_served_is_told_of_the_key_that_names_it(
    made: Path, certificate: str, key: str, wanted: list[str]
) -> None:
    found = problems(made, certificate, key)
    assert len(found) == len(wanted)
    for line, expected in zip(found, wanted, strict=True):
        place, about, said = expected.split(" ", 2)
        assert line.startswith(f"/l7proxy.yaml:{place}: ")
        assert f"listeners.web.tls.{about}: " in line
        assert said in line


def test_a_file_that_may_not_be_read_says_what_to_do(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    opened = os.open

    def refused(path: str, *rest: int) -> int:
        if str(path).endswith("two.key"):
            raise PermissionError(13, "Permission denied")
        return opened(path, *rest)

    monkeypatch.setattr(os, "open", refused)
    (found,) = problems(made, "two.crt", "two.key")
    assert "may not be read by this user: run as root" in found


def test_one_that_has_expired_is_served_with_a_warning(made: Path) -> None:
    path = made / "l7proxy.yaml"
    path.write_text(text(made / "one.crt", made / "one.key"))
    loaded = load_file(str(path))
    assert loaded.warnings == ()
    served = loaded.config.listeners[0].tls
    assert served is not None
    assert served.pair is not None
    ends = expiry(served.pair)
    assert ends is not None
    assert timedelta(days=25) < ends - datetime.now(UTC) < timedelta(days=35)

    def said(at: datetime) -> str:
        return "".join(f"{about[0]} {what}" for about, what in warnings(served, at))

    assert said(ends + timedelta(seconds=1)).startswith(f"certificate {made}/one.crt expired at ")
    assert "ends in 0 days" in said(ends - timedelta(seconds=1))
    assert "ends in 13 days" in said(ends - timedelta(days=13, hours=2))
    assert said(ends - timedelta(days=15)) == ""
    assert "is not valid before" in said(datetime.now(UTC) - timedelta(days=2))


def test_check_tells_of_one_that_has_expired_and_goes_on(tmp_path: Path) -> None:
    from tests.director.kit.engine.test_tls import make_ended

    ended = make_ended(tmp_path)
    path = tmp_path / "l7proxy.yaml"
    path.write_text(text(ended, ended))
    said = CliRunner().invoke(cli, ["check", str(path)])
    assert said.exit_code == 0
    assert f"warning: {path}:4:24: listeners.web.tls.certificate: " in said.output
    assert "expired at 2020-01-02 00:00 UTC" in said.output
    assert "renew it" in said.output


def test_the_same_files_have_the_same_context_and_others_another(made: Path, tmp_path: Path) -> None:
    def context(name: str) -> object:
        for kind in ("crt", "key"):
            shutil.copy(made / f"{name}.{kind}", tmp_path / f"it.{kind}")
        (tmp_path / "l7proxy.yaml").write_text(text(tmp_path / "it.crt", tmp_path / "it.key"))
        served = load_file(str(tmp_path / "l7proxy.yaml")).config.listeners[0].tls
        assert served is not None
        return plan_of(served).find(None)

    one = context("one")
    assert context("one") is one
    assert context("two") is not one
    assert context("one") is one


def test_a_key_stands_in_no_message(made: Path) -> None:
    served = Certificate("/a", "/b", (made / "one.crt").read_bytes(), (made / "one.key").read_bytes())
    assert "PRIVATE" not in repr(served)
