"""Certificates of listeners: what keeps one from being served is told where the file names it."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from director.kit.configfile import InvalidConfigError
from l7proxy.cli.main import cli
from l7proxy.core.settings.tls import Certificate
from l7proxy.files.certificates import expiry, warnings
from l7proxy.files.contexts import plan_of
from l7proxy.files.loading import load_file, load_text, renewed
from tests.wire.sealed import make_certificate

pytestmark = pytest.mark.unit

EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc")


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


# folders, clients, and what stands beside them


def listener(more: str) -> str:
    return (
        "listeners:\n"
        "  web:\n"
        "    bind: 127.0.0.1:443\n"
        f"    {more}\n"
        "routes: [{upstream: up}]\n"
        "upstreams: {up: {backends: {a: {address: 127.0.0.1:1}}}}\n"
    )


def found(place: Path, more: str) -> list[str]:
    path = place / "l7proxy.yaml"
    path.write_text(listener(more))
    try:
        load_file(str(path))
    except InvalidConfigError as error:
        return [line.replace(str(place), "") for line in error.lines()]
    return []


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A directory with a folder `f` of one good pair, `one`."""
    (tmp_path / "f").mkdir()
    for kind in ("crt", "key"):
        shutil.copy(made / f"one.{kind}", tmp_path / "f")
    return tmp_path


PUT = {
    "nothing": {},
    "a wrong key": {"two.crt": "two.crt", "two.key": "one.key"},
    "no key": {"two.crt": "two.crt"},
    "no key in the one file": {"two.pem": "two.crt"},
    "no certificate": {"two.key": "two.key"},
    "two files": {"two.pem": "two.crt", "two.crt": "two.crt", "two.key": "two.key"},
    "a passphrase": {"two.crt": "locked.crt", "two.key": "locked.key"},
    "a short key": {"two.crt": "short.crt", "two.key": "short.key"},
    "no PEM": {"two.crt": "der.crt", "two.key": "one.key"},
    "a torn one": {"two.crt": "torn.crt", "two.key": "one.key"},
}


@pytest.mark.parametrize(
    ("put", "wanted"),
    [
        ("nothing", ""),
        ("a wrong key", "/f/two.key is not the key of the first certificate in /f/two.crt"),
        ("no key", "/f/two.crt holds no key, and two.key is not beside it"),
        ("no key in the one file", "/f/two.pem holds no key, and two.key is not beside it"),
        ("no certificate", "/f/two.key has no certificate beside it: put two.crt there"),
        ("two files", "/f/two.pem and /f/two.crt are both there: remove one"),
        ("a passphrase", "/f/two.key has a passphrase: write it without one"),
        ("a short key", "/f/two.crt is too weak for OpenSSL"),
        ("no PEM", "/f/two.crt holds no certificate in PEM"),
        ("a torn one", "/f/two.crt cannot be used"),
    ],
)
def test_a_bad_one_among_good_ones_is_named(made: Path, folder: Path, put: str, wanted: str) -> None:
    for name, source in PUT[put].items():
        shutil.copy(made / source, folder / "f" / name)
    said = found(folder, f"tls: {{folder: {folder}/f}}")
    if not wanted:
        assert said == []
    else:
        (line,) = said
        assert line.startswith("/l7proxy.yaml:4:19: listeners.web.tls.folder: ")
        assert wanted in line


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ("tls: {}", ["4:10 tls: no certificate: name `certificate` and `key`, or a `folder`"]),
        ("tls: {certificate: PLACE/f/one.crt}", ["4:24 tls.certificate: its `key` is not named"]),
        ("tls: {key: PLACE/f/one.key}", ["4:16 tls.key: the `certificate` that it is the key of is not named"]),
        ("tls: {certificate: PLACE/f/one.crt, key: PLACE/f/one.key, default: one}", ["tls.default: it names a"]),
        ("tls: {folder: PLACE/f, default: on}", []),
        ("tls: {folder: PLACE/f, default: onne}", ["tls.default: /f has no certificate 'onne': did you mean 'one'?"]),
        ("tls: {folder: PLACE/no}", ["4:19 tls.folder: /no is not there"]),
        ("tls: {folder: PLACE/f/one.crt}", ["tls.folder: /f/one.crt is a file: name the folder"]),
        ("tls: {folder: PLACE/empty}", ["tls.folder: /empty holds no certificate: put NAME.pem there"]),
        ("tls: {folder: PLACE/f, minimum: 1.1}", ["tls.minimum: '1.1' is not known"]),
        ("tls: {folder: PLACE/f, clients: {ca: PLACE/no.pem}}", ["tls.clients.ca: /no.pem is not there"]),
        ("tls: {folder: PLACE/f, clients: {ca: PLACE/f/one.key}}", ["tls.clients.ca: /f/one.key holds no certificate"]),
        ("tls: {folder: PLACE/f, clients: {ca: PLACE/f/one.crt, mode: always}}", ["tls.clients.mode: "]),
        ("tls: {folder: PLACE/f, clients: {ca: PLACE/f/one.crt}}", []),
        ("hsts: {}", ["4:11 hsts: browsers believe it over TLS alone"]),
        ("{tls: {folder: PLACE/f}, redirect_to_https: true}", ["redirect_to_https: clients speak TLS here already"]),
        ("{tls: {folder: PLACE/f}, redirect_to_https: false}", []),
        ("redirect_to_https: {status: 200}", ["redirect_to_https.status: "]),
        ("redirect_to_https: {port: 0}", ["redirect_to_https.port: "]),
        ("redirect_to_https: yes please", ["redirect_to_https: "]),
        ("{tls: {folder: PLACE/f}, hsts: {max_age: 30}}", ["hsts.max_age: 30 is not an age: write a whole number"]),
        ("{tls: {folder: PLACE/f}, hsts: {max_age: 11y}}", ["hsts.max_age: '11y' is too long"]),
        ("{tls: {folder: PLACE/f}, hsts: {preload: true}}", ["hsts.preload: lists of browsers take it with `include"]),
        (
            "{tls: {folder: PLACE/f}, hsts: {preload: true, include_subdomains: true, max_age: 30d}}",
            ["hsts.preload: lists of browsers take it with a `max_age` of 1y or more"],
        ),
        ("{tls: {folder: PLACE/f}, hsts: {preload: true, include_subdomains: true}}", []),
        ("acme: {}", ["4:11 acme: nobody answers: name a `folder` or an `upstream`"]),
        ("acme: {folder: PLACE/f, upstream: up}", ["acme.upstream: `folder` answers already"]),
        ("acme: {upstream: upp}", ["acme.upstream: there is no upstream 'upp': did you mean 'up'?"]),
        ("acme: {folder: challenges}", ["acme.folder: 'challenges' is not an absolute path"]),
    ],
)
def test_keys_that_do_not_go_together_are_told_of_at_their_place(folder: Path, more: str, wanted: list[str]) -> None:
    (folder / "empty").mkdir()
    more = more.replace("PLACE", str(folder))
    if more.startswith("{"):
        more = more[1:-1].replace(", redirect_to", "\n    redirect_to").replace(", hsts", "\n    hsts")
    if "default: on}" in more:
        shutil.copy(folder / "f" / "one.crt", folder / "f" / "on.crt")
        shutil.copy(folder / "f" / "one.key", folder / "f" / "on.key")
        more = more.replace("default: on}", "default: 'on'}")
    said = found(folder, more)
    assert len(said) == len(wanted), said
    for line, part in zip(said, wanted, strict=True):
        place, space, rest = part.partition(" ")
        if space and place.replace(":", "").isdigit():
            assert line.startswith(f"/l7proxy.yaml:{place}: listeners.web.{rest}"), line
        else:
            assert f"listeners.web.{part}" in line


def test_workers_take_from_what_was_read_all_that_is_served(made: Path, folder: Path) -> None:
    path = folder / "l7proxy.yaml"
    path.write_text(listener(f"tls: {{folder: {folder}/f, clients: {{ca: {made}/two.crt}}}}"))
    loaded = load_file(str(path))
    shutil.rmtree(folder / "f")
    again = load_text(loaded.text, loaded.source, loaded.files)
    assert again.config == loaded.config
    assert again.config.listeners[0].tls is not None
    assert [each.name for each in again.config.listeners[0].tls.certificates] == ["one"]


def test_a_renewal_changes_nothing_where_files_are_the_same_and_keeps_what_workers_need(
    made: Path, folder: Path
) -> None:
    path = folder / "l7proxy.yaml"
    path.write_text(listener(f"tls: {{folder: {folder}/f}}"))
    loaded = load_file(str(path))
    same = renewed(loaded)
    assert (same.loaded.config is loaded.config, same.changed, same.problems) == (True, (), ())
    shutil.copy(made / "two.key", folder / "f" / "one.key")
    bad = renewed(loaded)
    assert (bad.loaded.config is loaded.config, bad.changed) == (True, ())
    (said,) = bad.problems
    assert said.startswith(f"{path}:4:19: listeners.web.tls.folder: {folder}/f/one.key is not the key")
    shutil.copy(made / "two.crt", folder / "f" / "one.crt")
    for kind in ("crt", "key"):
        shutil.copy(made / f"rsa.{kind}", folder / "f" / f"new.{kind}")
    other = renewed(loaded)
    ((name, what),) = other.changed
    assert name == "web"
    assert what.startswith("new (127.0.0.1) until 2")
    assert "; one (127.0.0.1) until 2" in what
    assert load_text(loaded.text, loaded.source, other.loaded.files).config == other.loaded.config
    assert sorted(other.loaded.files) == [f"{folder}/f/{each}" for each in ("new.crt", "new.key", "one.crt", "one.key")]


def test_weak_ones_and_two_for_one_name_are_warned_of(made: Path, folder: Path) -> None:
    place = folder / "f"
    make_certificate(place, "old", names="DNS:a.example")
    make_certificate(place, "later", *EC, "-days", "60", names="DNS:a.example")
    make_certificate(place, "sha1", *EC, "-sha1", names="DNS:b.example")
    path = folder / "l7proxy.yaml"
    path.write_text(listener(f"tls: {{folder: {folder}/f}}"))
    said = [line.replace(str(folder), "") for line in load_file(str(path)).warnings]
    assert len(said) == 3
    assert all(line.startswith("/l7proxy.yaml:4:19: listeners.web.tls.folder: /f/") for line in said)
    assert any(
        "/f/later.crt and /f/old.crt are both for a.example: /f/later.crt is shown, it ends later" in x for x in said
    )
    assert any("/f/sha1.crt is signed with SHA-1, which clients refuse" in line for line in said)
    assert any("/f/one.crt names no host, so nobody gets it" in line for line in said)


def test_a_folder_of_challenges_that_is_not_there_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "l7proxy.yaml"
    path.write_text(listener(f"acme: {{folder: {tmp_path}/no}}"))
    (said,) = load_file(str(path)).warnings
    assert said == f"{path}:4:20: listeners.web.acme.folder: {tmp_path}/no is no folder yet: no challenge is answered"
