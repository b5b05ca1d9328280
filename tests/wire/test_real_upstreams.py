"""Origins that close connections as they please: nginx, an application on aiohttp, and a server on Node.

The keep-alive race (RFC 9112 9.3.1): an origin ends an idle connection in the moment in which a request is on its way.
A GET is sent again and the client sees nothing of it. What is not idempotent is never sent twice: it may fail, once.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import re
import signal
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

import pytest

from tests.wire.harness import PATIENCE_S, live, one_answer, status_of
from tests.wire.programs import aiohttp_app, curl, nginx, node_server, proxy_before, wrk

pytestmark = pytest.mark.unit

IDLE_MS = 50
"""After this the origins end an idle connection."""
WIDTH = 64
"""Requests at a time."""
ROUNDS = 28
_ids = itertools.count()


def record(port: int, path: str) -> dict[str, Any]:
    """What an origin has seen; asked without the proxy."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE_S) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


class Clients:
    """Clients on kept connections, that ask all at once; each request has an X-Id of its own."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._pairs: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.gets: Counter[int] = Counter()
        self.posts: dict[str, int] = {}
        """The status of each."""

    async def __aenter__(self) -> Self:
        for _ in range(WIDTH):
            self._pairs.append(await asyncio.open_connection("127.0.0.1", self._port))
        return self

    async def __aexit__(self, *_: object) -> None:
        for pair in self._pairs:
            pair[1].close()

    async def burst(self, target: str, posts: int, apart_ms: int = 0) -> None:
        """One request of each client; `posts` of them are POST, the others GET.

        Each is answered `apart_ms` later than the one before it, the first after ten times that.
        """
        methods = ["POST"] * posts + ["GET"] * (WIDTH - posts)
        random.shuffle(methods)
        async with asyncio.TaskGroup() as group:
            for index, ((reader, writer), method) in enumerate(zip(self._pairs, methods, strict=True)):
                group.create_task(self._ask(reader, writer, method, f"{target}?ms={(index + 10) * apart_ms}"))

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str, target: str) -> None:
        name = f"{method}-{next(_ids)}"
        body = b"Content-Length: 4\r\n\r\nbody" if method == "POST" else b"\r\n"
        writer.write(f"{method} {target} HTTP/1.1\r\nHost: a\r\nX-Id: {name}\r\n".encode() + body)
        head, _ = await one_answer(reader)
        if method == "GET":
            self.gets[status_of(head)] += 1
        else:
            self.posts[name] = status_of(head)


async def in_the_race(clients: Clients, target: str, posts: int) -> None:
    """Bursts that come when what was used for the last one has been idle for about as long as the origin lets it."""
    for _ in range(ROUNDS):
        await clients.burst(target, posts)
        await asyncio.sleep((IDLE_MS + random.uniform(-15, 5)) / 1000)  # noqa: S311 -- no secret


Origin = Callable[[Path], AbstractContextManager[int]]
ORIGINS: dict[str, Origin] = {
    "nginx": lambda folder: nginx(folder, f"keepalive_timeout {IDLE_MS}ms;"),
    "app": lambda folder: aiohttp_app(folder, IDLE_MS / 1000),
    "node": lambda folder: node_server(folder, IDLE_MS),
}


@pytest.mark.parametrize(("name", "posts"), [("nginx", 0), ("app", WIDTH // 4), ("node", WIDTH // 4)])
@live
async def test_the_keepalive_race_fails_no_get_and_repeats_no_post(name: str, posts: int, tmp_path: Path) -> None:
    place = tmp_path / "origin"
    place.mkdir()
    (place / name).write_text("ok")
    with ORIGINS[name](place) as port, proxy_before(tmp_path, {name: port}) as proxy:
        async with Clients(proxy.port) as clients:
            await in_the_race(clients, f"/{name}", posts)
        seen = await asyncio.to_thread(record, port, f"/{name}/record") if posts else {"seen": [], "twice": []}
        records = await asyncio.to_thread(proxy.until, ROUNDS * WIDTH, f"/{name}")
    assert clients.gets == {200: ROUNDS * (WIDTH - posts)}
    assert {record["retries"] for record in records if record["method"] == "POST"} <= {0}
    assert seen["twice"] == []
    answered = {post for post, status in clients.posts.items() if status == 200}
    assert len(clients.posts) == ROUNDS * posts
    assert answered <= set(seen["seen"])
    failed = [record for record in records if record["status"] != 200]
    assert len(failed) == len(clients.posts) - len(answered) <= len(clients.posts) // 4
    assert {(record["method"], record["status"], record["cause"]) for record in failed} <= {
        ("POST", 502, "connection_terminated")
    }


@live
async def test_connections_to_node_are_let_go_before_node_does(tmp_path: Path) -> None:
    with node_server(tmp_path, 5000) as port:
        place = tmp_path / "l7proxy"
        place.mkdir()
        with proxy_before(place, {"node": port}) as proxy:
            async with Clients(proxy.port) as clients:
                await clients.burst("/node", WIDTH, apart_ms=5)
                await asyncio.sleep(4.9)  # what is measured: connections have been idle for 4.9 to 5.2 s
                await clients.burst("/node", WIDTH, apart_ms=5)
            seen = await asyncio.to_thread(record, port, "/node/record")
    assert set(clients.posts.values()) == {200}
    assert sorted(seen["seen"]) == sorted(clients.posts)
    assert seen["twice"] == []
    assert seen["timed_out"] == 0
    assert seen["connections"] > WIDTH * 3 // 2  # those of the first burst were gone


def test_nginx_may_close_every_tenth_request(tmp_path: Path) -> None:
    (tmp_path / "nginx").write_text("ok")
    with nginx(tmp_path, "keepalive_requests 10;") as port, proxy_before(tmp_path, {"nginx": port}) as proxy:
        seen = wrk(f"{proxy.url}/nginx", duration_s=2)
        proxy.until(seen.requests, "/nginx")
    assert seen.errors == []
    assert seen.requests > 1000
    used = Counter(line.split()[0] for line in (tmp_path / "uses.log").read_text().splitlines())
    assert max(used.values()) == 10
    assert Counter(used.values())[10] > len(used) // 2  # and they are used as often as nginx lets them


def test_nginx_may_be_reloaded_under_load(tmp_path: Path) -> None:
    (tmp_path / "nginx").write_text("ok")
    with (
        nginx(tmp_path, processes="user root; worker_processes 1;") as port,
        proxy_before(tmp_path, {"nginx": port}) as proxy,
        ThreadPoolExecutor() as aside,
    ):
        load = aside.submit(wrk, f"{proxy.url}/nginx", 2)
        master = int((tmp_path / "nginx.pid").read_text())
        children = Path(f"/proc/{master}/task/{master}/children")
        reloads, at_reload = 0, 0
        while not load.done():
            if proxy.count("/nginx") > at_reload + 500:
                before = children.read_text().split()
                os.kill(master, signal.SIGHUP)
                while set(before) & set(children.read_text().split()) and not load.done():  # until the old one has left
                    time.sleep(0.01)  # a process has no event
                reloads += not load.done()
                at_reload = proxy.count("/nginx")
            time.sleep(0.02)  # nor has a file
        seen = load.result()
    assert reloads > 1
    assert seen.errors == []


def test_early_hints_and_trailers_of_node_pass(tmp_path: Path) -> None:
    with node_server(tmp_path, 5000) as port:
        place = tmp_path / "l7proxy"
        place.mkdir()
        with proxy_before(place, {"node": port}) as proxy:
            done = curl("-v", f"{proxy.url}/node/hints")
            assert done.stdout == b"hinted"
            assert re.findall(rb"^< HTTP/1.1 (\d+)", done.stderr, re.MULTILINE) == [b"103", b"200"]
            assert b"< link: </style.css>; rel=preload; as=style" in done.stderr.lower()
            done = curl("-v", f"{proxy.url}/node/trailers", f"{proxy.url}/node/trailers")
            assert done.stdout == b"trailed" * 2
            assert b"Re-using existing connection" in done.stderr
