"""http and https checks against nginx."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from director.kit.checks.base import Tls
from director.kit.checks.http import HttpProbe
from director.kit.errors import ProbeError
from tests.director.kit.probes.asking import ask, said
from tests.director.kit.probes.servers import free_ports, needed, running

pytestmark = pytest.mark.unit

_CONFIG = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr warn;
events {{}}
http {{
  access_log {folder}/access;
  client_body_temp_path {folder};
  proxy_temp_path {folder};
  fastcgi_temp_path {folder};
  uwsgi_temp_path {folder};
  scgi_temp_path {folder};
  server {{
    listen 127.0.0.1:{plain};
    listen 127.0.0.1:{secured} ssl;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    root {folder}/www;
    absolute_redirect off;
    location = /old {{ return 302 /old/; }}
    location = /old/ {{ return 301 $scheme://$http_host/page.html; }}
    location = /away {{ return 302 http://other.example/; }}
    location = /echo {{ add_header X-Method $request_method always; return 200 "$http_x_word"; }}
    location = /down {{ return 503; }}
  }}
  server {{
    listen 127.0.0.1:{mutual} ssl;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_client_certificate {certificate};
    ssl_verify_client on;
    location / {{ return 200 $ssl_client_verify; }}
  }}
}}
"""
PAGE = b"<p>all is well</p>\n" * 1000


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[dict[str, int]]:
    program = needed("nginx", "nginx-light")
    folder = tmp_path_factory.mktemp("nginx")
    ports = dict(zip(("plain", "secured", "mutual"), free_ports(3), strict=True))
    (folder / "www").mkdir()
    (folder / "www" / "page.html").write_bytes(PAGE)
    for path in (folder, *folder.parents[:2], folder / "www"):
        path.chmod(0o755)
    (folder / "conf").write_text(_CONFIG.format(folder=folder, certificate=certificate[0], key=certificate[1], **ports))
    with running([program, "-p", str(folder), "-e", "stderr", "-c", str(folder / "conf")], folder, [*ports.values()]):
        yield ports


@pytest.mark.parametrize(
    ("probe", "told"),
    [
        (HttpProbe(path="/page.html"), (True, "status 200")),
        (HttpProbe(path="/page.html", method="HEAD"), (True, "status 200")),
        (HttpProbe(path="/page.html", body="(?m)^<p>all is well</p>$"), (True, "status 200, body matches")),
        (
            HttpProbe(path="/page.html", digest="sha256:" + hashlib.sha256(PAGE).hexdigest()),
            (True, "status 200, digest matches"),
        ),
        (HttpProbe(path="/page.html", method="OPTIONS"), (False, "status 405, expected 200-399")),
        (HttpProbe(path="/none"), (False, "status 404, expected 200-399")),
        (HttpProbe(path="/down"), (False, "status 503, expected 200-399")),
        (HttpProbe(path="/old"), (True, "status 302")),
        (HttpProbe(path="/old", statuses=((200, 200),), redirects=2), (True, "status 200")),
        (HttpProbe(path="/old", redirects=1), (False, "status 301, after 1 redirects, leads on to ")),
        (
            HttpProbe(path="/away", redirects=1),
            (False, "status 302, leads to 'http://other.example/': only what is on the same host is followed"),
        ),
        (
            HttpProbe(
                path="/echo",
                method="POST",
                content=b"x" * 1000,
                headers=(("X-Word", "here"),),
                body="^here$",
                expect_headers=(("x-method", "^POST$"),),
            ),
            (True, "status 200, body matches"),
        ),
    ],
)
@pytest.mark.parametrize("tls", [False, True])
def test_nginx(
    nginx: dict[str, int], probe: HttpProbe, told: tuple[bool, str], tls: bool, certificate: tuple[Path, Path]
) -> None:
    if tls:
        probe = replace_tls(probe, Tls(ca=str(certificate[0])))
    ok, reason = said(nginx["secured" if tls else "plain"], probe)
    assert (ok, reason[: len(told[1])]) == told


def replace_tls(probe: HttpProbe, tls: Tls) -> HttpProbe:
    """`probe` over TLS."""
    fields = {name: getattr(probe, name) for name in HttpProbe.__dataclass_fields__ if not name.startswith("_")}
    return HttpProbe(**{**fields, "tls": tls})


def test_client_certificate(nginx: dict[str, int], certificate: tuple[Path, Path]) -> None:
    ca, key = map(str, certificate)
    probe = HttpProbe(Tls(ca=ca, certificate=ca, key=key), body="SUCCESS")
    assert said(nginx["mutual"], probe) == (True, "status 200, body matches")
    assert said(nginx["mutual"], HttpProbe(Tls(ca=ca))) == (False, "status 400, expected 200-399")
    with pytest.raises(ProbeError, match="certificate file /none: No such file or directory"):
        ask(nginx["mutual"], HttpProbe(Tls(ca=ca, certificate="/none")))


def test_certificate_that_ends_soon_is_a_warning(nginx: dict[str, int], certificate: tuple[Path, Path]) -> None:
    ca = str(certificate[0])
    assert "ends in 1 day" in ask(nginx["secured"], HttpProbe(Tls(ca=ca, server_name="www.example.org"))).warning
    assert ask(nginx["secured"], HttpProbe(Tls(ca=ca, warn_s=3600.0))).warning == ""
    assert ask(nginx["secured"], HttpProbe(Tls(ca=ca, warn_s=0))).warning == ""
