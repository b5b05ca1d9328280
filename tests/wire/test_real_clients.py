"""Clients that people use: curl, wrk, a WebSocket and a browser, before nginx and an application on aiohttp."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
import re
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.director.kit.probes.servers import needed, running
from tests.wire.aiohttp_app import IMAGES
from tests.wire.harness import PATIENCE_S, live
from tests.wire.programs import Proxy, aiohttp_app, curl, nginx, proxy_before, told, wrk
from tests.wire.websocket import BINARY, CLOSE, PING, PONG, TEXT, WebSocket

pytestmark = pytest.mark.unit

MIB = 1024 * 1024
SMALL = b"small, but not nothing\n" * 40
LARGE = os.urandom(20 * MIB)
TEXTS = b"".join(b"line %d of what compresses well\n" % index for index in range(20_000))


@dataclass(frozen=True, slots=True)
class Site:
    """l7proxy before nginx (/nginx) and the application (/app)."""

    proxy: Proxy
    nginx_port: int
    app_port: int

    @property
    def url(self) -> str:
        return self.proxy.url

    def record(self) -> dict[str, Any]:
        """What the application has seen; asked without the proxy."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.app_port}/app/record", timeout=PATIENCE_S) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folders = {name: tmp_path_factory.mktemp(name) for name in ("nginx", "app", "l7proxy")}
    files = folders["nginx"] / "nginx"
    files.mkdir()
    (files / "small").write_bytes(SMALL)
    (files / "large").write_bytes(LARGE)
    (files / "texts").write_bytes(TEXTS)
    with (
        nginx(folders["nginx"], "gzip on; gzip_proxied any; gzip_types text/plain;") as nginx_port,
        aiohttp_app(folders["app"]) as app_port,
        proxy_before(folders["l7proxy"], {"nginx": nginx_port, "app": app_port}) as proxy,
    ):
        yield Site(proxy, nginx_port, app_port)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# curl


def test_curl_gets_what_nginx_has(site: Site) -> None:
    assert curl(f"{site.url}/nginx/small").stdout == SMALL
    assert sha256(curl(f"{site.url}/nginx/large").stdout) == sha256(LARGE)
    assert told([f"{site.url}/nginx/none"], "http_code") == [404]


def test_curl_asks_for_a_head_and_has_no_body_to_wait_for(site: Site) -> None:
    through, direct = (
        re.sub(rb"\r\nDate: [^\r]*", b"", curl("-I", f"http://127.0.0.1:{port}/nginx/large").stdout)
        for port in (site.proxy.port, site.nginx_port)
    )
    assert b"\r\nContent-Length: %d\r\n" % len(LARGE) in through
    assert {line for line in through.split(b"\r\n") if line} == {
        line for line in direct.split(b"\r\n") if line and line != b"Connection: keep-alive"
    }


def test_curl_uses_one_connection_for_many_requests(site: Site) -> None:
    paths = ["/nginx/small", "/app/start", "/nginx/none", "/app/chunked", "/nginx/texts", "/app"]
    done = curl("-w", "%{num_connects}\n", *(word for path in paths for word in ("-o", "/dev/null", site.url + path)))
    assert done.stdout.split() == [b"1"] + [b"0"] * (len(paths) - 1)


def test_curl_that_offers_http_2_goes_on_in_http_1_1(site: Site) -> None:
    done = curl("--http2", "-v", f"{site.url}/app/chunked")
    assert b"> Upgrade: h2c" in done.stderr
    assert b"< HTTP/1.1 200 OK" in done.stderr
    assert done.stdout.count(b"piece ") == 100


def test_curl_follows_a_redirect(site: Site) -> None:
    found = told(["-L", f"{site.url}/app/start"], "http_code", "num_redirects", "num_connects")
    assert found == [200, 1, 1]


def test_curl_uploads_once_the_origin_says_continue(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(LARGE)
    done = curl("-v", "-H", "Expect: 100-continue", "--data-binary", f"@{path}", f"{site.url}/app/digest")
    assert b"< HTTP/1.1 100 Continue" in done.stderr
    assert json.loads(done.stdout) == {"method": "POST", "size": len(LARGE), "sha256": sha256(LARGE), "coding": ""}


def test_curl_uploads_nothing_that_the_origin_refuses(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(LARGE)
    words = ["-H", "Expect: 100-continue", "--expect100-timeout", "10", "--data-binary", f"@{path}"]
    assert told([*words, f"{site.url}/app/full"], "http_code", "size_upload") == [413, 0]


def test_curl_uploads_what_it_knows_no_length_of(site: Site) -> None:
    done = curl("-T", "-", f"{site.url}/app/digest", stdin=LARGE)
    assert json.loads(done.stdout) == {
        "method": "PUT",
        "size": len(LARGE),
        "sha256": sha256(LARGE),
        "coding": "chunked",
    }


def test_curl_gets_a_chunked_answer_as_http_1_0_has_it(site: Site) -> None:
    head, _, body = curl("-i", "--http1.0", f"{site.url}/app/chunked").stdout.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert body == b"".join(b"piece %d\n" % index for index in range(100))
    assert curl("--http1.0", f"{site.url}/nginx/texts").stdout == TEXTS


def test_a_compressed_answer_is_not_touched(site: Site) -> None:
    through, direct = (
        curl("-H", "Accept-Encoding: gzip", f"http://127.0.0.1:{port}/nginx/texts").stdout
        for port in (site.proxy.port, site.nginx_port)
    )
    assert through == direct
    assert gzip.decompress(through) == TEXTS
    assert curl("--compressed", f"{site.url}/nginx/texts").stdout == TEXTS


def test_curl_gets_parts(site: Site) -> None:
    url = f"{site.url}/nginx/large"
    head, _, body = curl("-i", "-r", "1000000-2999999", url).stdout.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 206 ")
    assert b"\r\nContent-Range: bytes 1000000-2999999/%d" % len(LARGE) in head
    assert body == LARGE[1_000_000:3_000_000]
    assert curl("-r", "-100", url).stdout == LARGE[-100:]
    head, _, body = curl("-i", "-r", "0-9,100-109", url).stdout.partition(b"\r\n\r\n")
    assert b"\r\nContent-Type: multipart/byteranges" in head
    assert LARGE[:10] in body
    assert LARGE[100:110] in body
    assert told(["-r", f"{len(LARGE)}-", url], "http_code") == [416]
    etag = re.search(rb"ETag: (\S+)", curl("-I", url).stdout)
    assert etag is not None
    assert told(["-H", f"If-None-Match: {etag[1].decode()}", url], "http_code", "size_download") == [304, 0]


def test_curl_gets_many_at_a_time(site: Site) -> None:
    words = ["-Z", "--parallel-max", "20", "-w", "%{http_code} %{size_download}\n"]
    for _ in range(40):
        words += ["-o", "/dev/null", f"{site.url}/nginx/texts"]
    assert Counter(curl(*words).stdout.splitlines()) == {b"200 %d" % len(TEXTS): 40}


def test_a_download_goes_on_while_another_is_broken_off(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "part"
    words = [needed("curl", "curl"), "-sS", "--limit-rate", "1M", "-o", str(path), f"{site.url}/nginx/large?broken"]
    with subprocess.Popen(words) as slow:
        try:
            while not path.exists() or not path.stat().st_size:
                assert slow.poll() is None
                time.sleep(0.01)  # a file has no event
            words = [needed("curl", "curl"), "-sS", "--limit-rate", "25M", f"{site.url}/nginx/large?whole"]
            with subprocess.Popen(words, stdout=subprocess.PIPE) as whole:
                assert whole.stdout is not None
                first = whole.stdout.read(MIB)
                slow.kill()
                rest = whole.stdout.read()
        finally:
            slow.kill()
    assert whole.returncode == 0
    assert sha256(first + rest) == sha256(LARGE)
    (record,) = site.proxy.until(1, "/nginx/large?broken")
    assert (record["status"], record["cause"]) == (499, "client_left")
    assert record["bytes_out"] < len(LARGE)
    (record,) = site.proxy.until(1, "/nginx/large?whole")
    assert (record["status"], record["bytes_out"]) == (200, len(LARGE))


def test_events_arrive_one_by_one(site: Site) -> None:
    words = [needed("curl", "curl"), "-sSN", "--max-time", "15", f"{site.url}/app/events"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as listening:
        assert listening.stdout is not None
        for index in range(20):  # the application sends the next one only when this one has been read
            assert listening.stdout.readline() == b"data: event %d\n" % index
            assert listening.stdout.readline() == b"\n"
            assert told(["-X", "POST", f"{site.url}/app/acknowledge"], "http_code") == [204]
        assert listening.stdout.read() == b""
    assert listening.returncode == 0


# a WebSocket


@live
async def test_a_websocket_carries_a_thousand_messages_both_ways(site: Site) -> None:
    socket = await WebSocket.open(site.proxy.port, "/app/socket?echo")
    messages = [os.urandom(size) for size in (0, 1, 125, 126, 65_535, 65_536, 300_000)]
    messages += [b"%d" % index * (index % 50) for index in range(1000)]

    async def send() -> None:
        for message in messages:
            socket.send(BINARY, message)
            await socket.drain()

    async with asyncio.TaskGroup() as group:
        group.create_task(send())
        for message in messages:
            assert await socket.receive() == (BINARY, message)
    for index in range(100):  # and one at a time
        socket.send(TEXT, b"message %d" % index)
        assert await socket.receive() == (TEXT, b"message %d" % index)
    socket.close()


@live
async def test_pings_pongs_and_close_codes_pass(site: Site) -> None:
    socket = await WebSocket.open(site.proxy.port, "/app/socket?ping")
    socket.send(PING, b"to the application")
    assert await socket.receive() == (PONG, b"to the application")
    socket.send(TEXT, b"ping")
    assert await socket.receive() == (PING, b"are you there")
    socket.send(PONG, b"are you there")
    socket.send(TEXT, b"close 4001")
    assert await socket.receive() == (CLOSE, (4001).to_bytes(2, "big") + b"as asked")
    socket.send(CLOSE, (4001).to_bytes(2, "big"))
    assert await socket.ended()
    socket.close()
    socket = await WebSocket.open(site.proxy.port, "/app/socket?leave")
    socket.send(CLOSE, (1001).to_bytes(2, "big"))
    assert await socket.receive() == (CLOSE, (1000).to_bytes(2, "big"))  # so aiohttp answers any code
    assert await socket.ended()
    socket.close()
    assert 1001 in (await asyncio.to_thread(site.record))["closes"]
    records = await asyncio.to_thread(site.proxy.until, 2, "/app/socket?")
    assert {record["status"] for record in records} == {101}


# wrk


@pytest.mark.parametrize(("target", "duration_s"), [("/nginx/small?wrk", 3), ("/app?wrk", 2)])
def test_wrk_sees_no_error(site: Site, target: str, duration_s: int) -> None:
    seen = wrk(site.url + target, duration_s)
    assert seen.errors == []
    assert seen.requests > 1000
    records = site.proxy.until(seen.requests, target)
    statuses = Counter(record["status"] for record in records)
    assert statuses[200] >= seen.requests
    assert statuses[200] + statuses[499] == len(records)
    assert statuses[499] <= 64  # when its time is up it leaves, whatever it has asked


# a browser


def test_a_browser_shows_a_page_and_all_that_is_on_it(site: Site, tmp_path: Path) -> None:
    browser = needed("chromium-headless-shell", "chromium-headless-shell")
    words = ["--no-sandbox", "--disable-gpu", "--no-proxy-server", f"--user-data-dir={tmp_path}/profile"]
    words += ["--remote-debugging-port=0", f"{site.url}/app/start?browser"]  # without a port it would leave at once
    run = tmp_path / "run"
    run.mkdir()
    with running([browser, *words], run, []) as log:
        ends_at = time.monotonic() + 2 * PATIENCE_S
        while not (reports := site.record()["reports"]):
            assert time.monotonic() < ends_at, log.read_text(errors="replace")[-3000:]
            time.sleep(0.05)  # what it has seen, it tells the application
    report = json.loads(reports[0])
    assert report == {
        "widths": list(range(1, IMAGES + 1)),
        "color": "rgb(1, 2, 3)",
        "echoed": [f"message {index}" for index in range(100)],
        "closed": [4001, True],
        "events": [f"event {index}" for index in range(5)],
        "upload": 300_000,
    }
    site.proxy.until(1, "/app/report")
    asked = Counter(
        (record["target"], record["status"]) for record in site.proxy.records() if "Chrome" in str(record["user_agent"])
    )
    pages = {"/app/page": 200, "/app/style.css": 200, "/app/script.js": 200, "/app/counted": 200, "/app/digest": 200}
    pages |= {f"/app/image/{width}.png": 200 for width in range(1, IMAGES + 1)}
    pages |= {"/app/start?browser": 302, "/app/socket": 101, "/app/report": 204}
    assert asked == Counter(dict.fromkeys(pages.items(), 1))
