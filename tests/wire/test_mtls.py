"""Clients that have to prove who they are."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from l7proxy.core.x509 import ClientCertificate
from l7proxy.http.client import ClientConnection
from tests.wire.harness import Origin, Running, live, named, running, statuses_of
from tests.wire.sealed import Sealed, credulous, listens_with, make_certificate
from tests.wire.test_running import reloaded

pytestmark = pytest.mark.unit

LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("mtls")
    make_certificate(place, "server")
    for authority in ("ca", "other"):
        make_certificate(place, authority)
    make_certificate(place, "ann", names="DNS:ann.example,email:ann@example.org", issuer="ca")
    make_certificate(place, "eve", issuer="other")
    return place


@asynccontextmanager
async def asking(tmp_path: Path, made: Path, mode: str, ca: str = "ca") -> AsyncIterator[Running]:
    clients = f", clients: {{ca: {made}/{ca}.crt, mode: {mode}}}}}"
    listener = listens_with(made / "server.crt", made / "server.key").replace("}", clients)
    async with running(tmp_path, Origin(named), listener=listener) as proxy:
        yield proxy


def client(made: Path, name: str | None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = credulous(version)
    if name is not None:
        context.load_cert_chain(made / f"{name}.crt", made / f"{name}.key")
    return context


def asked(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> tuple[list[int], bool]:
    """Statuses, and whether the session went on. Raises: ssl.SSLError."""
    with Sealed(port, context, session) as sealed:
        sealed.open()
        sealed.say(LAST)
        return statuses_of(sealed.read()[0]), bool(sealed.tls.session_reused)


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@live
async def test_who_has_none_or_a_wrong_one_is_not_let_in_where_it_is_required(
    tmp_path: Path, made: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with asking(tmp_path, made, "required") as proxy:
        for version in VERSIONS:
            assert await asyncio.to_thread(asked, proxy.port, client(made, "ann", version)) == ([200], False)
            for name, alert in ((None, "required|handshake"), ("eve", "unknown.ca")):
                with pytest.raises(ssl.SSLError, match=rf"(?i){alert}"):
                    await asyncio.to_thread(asked, proxy.port, client(made, name, version))
        seal = proxy.server.proxy.seals["http"]
        assert seal.failed == {"no_client_certificate": 2, "client_certificate": 2}
        assert (seal.handshakes, seal.resumed) == (2, 0)
    told = [record.__dict__["reason"] for record in caplog.records if record.message == "TLS handshake failed"]
    assert len(told) == 4
    assert "the client shows no certificate" in told[0]
    assert "unable to get local issuer certificate" in told[1]
    assert not any(record.exc_info for record in caplog.records)


@live
async def test_who_the_client_is_stands_at_its_connection(tmp_path: Path, made: Path) -> None:
    async with asking(tmp_path, made, "optional") as proxy:

        async def known(name: str | None) -> ClientCertificate | None:
            seal = proxy.server.proxy.seals["http"]
            before = seal.handshakes
            sealed = await asyncio.to_thread(Sealed(proxy.port, client(made, name)).open)
            await proxy.until(lambda: seal.handshakes > before)
            (new,) = connections(proxy)
            sealed.socket.close()
            await proxy.until(lambda: not connections(proxy))
            return new.certificate

        ann = await known("ann")
        assert ann is not None
        assert ann.subject == "CN=ann"
        assert ann.names == ("ann.example", "ann@example.org")
        assert len(ann.fingerprint) == 64
        assert await known(None) is None
        with pytest.raises(ssl.SSLError, match=r"(?i)unknown.ca"):
            await asyncio.to_thread(asked, proxy.port, client(made, "eve"))


def connections(proxy: Running) -> set[ClientConnection]:
    return {each for front in proxy.server._listeners.fronts for each in front.clients}


@live
async def test_a_session_of_before_opens_no_door_that_needs_more_now(tmp_path: Path, made: Path) -> None:
    async with asking(tmp_path, made, "optional") as proxy:
        context = client(made, None, ssl.TLSVersion.TLSv1_2)

        def session() -> ssl.SSLSession | None:
            with Sealed(proxy.port, context) as sealed:
                sealed.open()
                sealed.say(LAST)
                sealed.read()
                return sealed.tls.session

        kept = await asyncio.to_thread(session)
        assert await asyncio.to_thread(asked, proxy.port, context, kept) == ([200], True)
        proxy.path.write_text(proxy.path.read_text().replace("mode: optional", "mode: required"))
        await reloaded(proxy)
        with pytest.raises(ssl.SSLError):
            await asyncio.to_thread(asked, proxy.port, context, kept)
        assert await asyncio.to_thread(asked, proxy.port, client(made, "ann")) == ([200], False)
