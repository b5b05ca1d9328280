"""Which certificate a client gets, by the name that it asks for."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import time
from pathlib import Path

import pytest

from director.kit.problem import InvalidConfigError
from l7proxy.admin.shown import status_of
from l7proxy.core.settings.tls import Tls
from l7proxy.files.certificates import read_all
from l7proxy.files.contexts import plan_of
from l7proxy.files.loading import load_file, load_text
from l7proxy.server import Server
from tests.wire.harness import Origin, config_text, free_port, live, named, running, statuses_of
from tests.wire.sealed import credulous, listens_with, make_certificate, shown

pytestmark = pytest.mark.unit

RSA = ("-newkey", "rsa:2048", "-noenc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`shop` (of both kinds), `wild`, and `other`, which is one file."""
    made = tmp_path_factory.mktemp("folder")
    make_certificate(made, "shop", names="DNS:shop.example.org,DNS:www.example.org")
    make_certificate(made, "shop-rsa", *RSA, names="DNS:shop.example.org")
    make_certificate(made, "wild", names="DNS:*.example.org")
    certificate, key = make_certificate(made, "other", names="DNS:other.example.net")
    (made / "other.pem").write_text(certificate.read_text() + key.read_text())
    certificate.unlink()
    key.unlink()
    (made / "README").write_text("not looked at")
    (made / ".hidden.pem").write_text("nor is this")
    return made


CASES = {
    "shop.example.org": "shop",
    "SHOP.Example.ORG": "shop",
    "www.example.org": "shop",
    "any.example.org": "wild",
    "other.example.net": "other",
    "shop.example.org.": "shop",
}


@live
async def test_the_exact_name_wins_then_the_wildcard_and_the_unknown_get_an_alert(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, Origin(named), listener=f", tls: {{folder: {folder}}}") as proxy:
        for name, wanted in CASES.items():
            assert await asyncio.to_thread(shown, proxy.port, name) == f"CN={wanted}", name
        for name in ("example.org", "a.b.example.org", "org", "example.net"):
            with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
                await asyncio.to_thread(shown, proxy.port, name)
        assert await asyncio.to_thread(shown, proxy.port, None) == "CN=other"
        seal = proxy.server.proxy.seals["http"]
        assert seal.failed == {"unknown_name": 4}
    failed = [record.__dict__["reason"] for record in caplog.records if record.message == "TLS handshake failed"]
    assert failed[1] == "no certificate is for the name 'a.b.example.org' that the client asks for"


@live
async def test_a_default_serves_the_unknown_and_those_who_ask_for_no_name(tmp_path: Path, folder: Path) -> None:
    async with running(tmp_path, Origin(named), listener=f", tls: {{folder: {folder}, default: wild}}") as proxy:
        for name in ("unknown.example", None):
            assert await asyncio.to_thread(shown, proxy.port, name) == "CN=wild"
        assert await asyncio.to_thread(shown, proxy.port, "www.example.org") == "CN=shop"


@live
async def test_a_pair_beside_a_folder_is_the_default(tmp_path: Path, folder: Path) -> None:
    pair = make_certificate(tmp_path, "one")
    listener = listens_with(*pair).replace("}", f", folder: {folder}}}")
    async with running(tmp_path, Origin(named), listener=listener) as proxy:
        for name in ("unknown.example", None):
            assert await asyncio.to_thread(shown, proxy.port, name) == "CN=one"
        assert await asyncio.to_thread(shown, proxy.port, "www.example.org") == "CN=shop"


@live
async def test_clients_choose_among_kinds_of_keys_for_one_name(tmp_path: Path, folder: Path) -> None:
    async with running(tmp_path, Origin(named), listener=f", tls: {{folder: {folder}}}") as proxy:
        for cipher, wanted in (("ECDHE-RSA-AES128-GCM-SHA256", "shop-rsa"), ("ECDHE-ECDSA-AES128-GCM-SHA256", "shop")):
            context = credulous(ssl.TLSVersion.TLSv1_2)
            context.set_ciphers(cipher)
            assert await asyncio.to_thread(shown, proxy.port, "shop.example.org", context) == f"CN={wanted}"


@live
async def test_1_3_alone_is_spoken_where_it_is_the_minimum(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listener = f", tls: {{folder: {folder}, minimum: 1.3}}"
    async with running(tmp_path, Origin(named), listener=listener) as proxy:
        with pytest.raises(ssl.SSLError, match=r"(?i)version"):
            await asyncio.to_thread(shown, proxy.port, "www.example.org", credulous(ssl.TLSVersion.TLSv1_2))
        assert await asyncio.to_thread(shown, proxy.port, "www.example.org") == "CN=shop"
        assert proxy.server.proxy.seals["http"].failed == {"too_old": 1}
    (said,) = [record.__dict__["reason"] for record in caplog.records if record.message == "TLS handshake failed"]
    assert said == "unsupported protocol: the client knows no TLS 1.3"


@live
async def test_a_request_goes_through_whatever_name_the_handshake_has(tmp_path: Path, folder: Path) -> None:
    """Routes look at Host alone."""
    async with running(tmp_path, Origin(named), listener=f", tls: {{folder: {folder}, default: shop}}") as proxy:
        for name in ("www.example.org", "unknown.example"):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", proxy.port, ssl=credulous(), server_hostname=name
            )
            writer.write(b"GET / HTTP/1.1\r\nHost: shop.example.org\r\nConnection: close\r\n\r\n")
            assert statuses_of(await reader.read()) == [200]
            writer.close()


def test_hundreds_are_read_and_found_in_no_time(tmp_path: Path, folder: Path) -> None:
    for number in range(300):
        for kind in ("crt", "key"):
            shutil.copy(folder / f"shop.{kind}", tmp_path / f"n{number}.{kind}")
    began_s = time.process_time()
    tls, problems = read_all(Tls(folder=str(tmp_path)))
    assert problems == []
    assert len(tls.found) == 300
    assert time.process_time() - began_s < 3
    plan = plan_of(tls)
    began_s = time.process_time()
    assert plan_of(tls) is plan
    for _ in range(1000):
        assert plan.find("www.example.org") is not None
    assert time.process_time() - began_s < 0.5


def test_start_goes_without_a_bad_certificate_among_good_ones_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One site must not keep all others down; a reload, which has something to lose, takes nothing."""
    made = tmp_path / "certs"
    made.mkdir()
    make_certificate(made, "good", names="DNS:good.example.org")
    _, key = make_certificate(made, "bad", names="DNS:bad.example.org")
    shutil.copy(made / "good.key", key)
    path = tmp_path / "l7proxy.yaml"
    path.write_text(config_text(free_port(), 8000, listener=f", tls: {{folder: {made}}}"))
    with pytest.raises(InvalidConfigError, match=r"bad\.key is not the key"):
        load_file(str(path))
    loaded = load_file(str(path), is_start=True)
    tls = loaded.config.listeners[0].tls
    assert tls is not None
    assert [each.name for each in tls.certificates] == ["good"]
    loaded.log_warnings()
    assert "certificate left out" in caplog.text
    assert load_text(loaded.text, "x", loaded.files).config == loaded.config, "as workers read it"
    server = Server(str(path), loaded)
    assert any("bad.key is not the key" in problem for problem in status_of(server.proxy)["problems"])
    (made / "good.crt").unlink()
    with pytest.raises(InvalidConfigError):
        load_file(str(path), is_start=True)
