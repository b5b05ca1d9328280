"""The files that the how-tos move over from are whole ones: the programs that they are for take them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks_of
from tests.wire.sealed import make_certificate

pytestmark = pytest.mark.unit


def _old(page: str, language: str, begins: str) -> str:
    """The block in `language` that begins so; there is one."""
    text = (ROOT / "docs" / "howto" / page).read_text()
    (found,) = [
        each.text for each in blocks_of(text, page) if each.language == language and each.text.startswith(begins)
    ]
    return found


def _takes(words: list[str], program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed: its file is not tried")
    said = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 0, said.stdout + said.stderr


def test_haproxy_takes_the_file_that_is_moved_over(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs" / "shop.pem").write_text(certificate.read_text() + key.read_text())
    file = tmp_path / "haproxy.cfg"
    text = _old("migrate-haproxy.md", "haproxy", "global")
    assert "/etc/haproxy/certs/" in text
    file.write_text(text.replace("/etc/haproxy/certs/", f"{tmp_path}/certs/"))
    _takes(["haproxy", "-c", "-f", str(file)], "haproxy")


def test_nginx_takes_the_file_that_is_moved_over(tmp_path: Path) -> None:
    make_certificate(tmp_path, "shop")
    (tmp_path / "shop.crt").rename(tmp_path / "shop.pem")
    file = tmp_path / "nginx.conf"
    text = _old("migrate-nginx.md", "nginx", "events")
    assert "/etc/nginx/certs/" in text
    text = text.replace("/etc/nginx/certs/", f"{tmp_path}/").replace("/var/log/nginx/", f"{tmp_path}/")
    temporary = "".join(
        f"    {what}_temp_path {tmp_path}/{what};\n" for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file.write_text(f"pid {tmp_path}/pid;\n" + text.replace("http {\n", "http {\n" + temporary))
    _takes(["nginx", "-t", "-q", "-e", f"{tmp_path}/error.log", "-c", str(file)], "nginx")


def test_keepalived_takes_the_file_that_is_moved_over(tmp_path: Path) -> None:
    file = tmp_path / "keepalived.conf"
    file.write_text(_old("migrate-keepalived.md", "text", "global_defs"))
    # What is wrong with a file it says in its exit code; a script that is not there is no matter here.
    _takes(["keepalived", "-t", "-f", str(file)], "keepalived")
