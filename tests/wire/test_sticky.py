"""Sessions: clients keep their backend, and nothing that a client sends leads anywhere else."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from l7proxy.core.sticky import SKEW_S, Verdict
from l7proxy.files.loading import load_file, load_text
from l7proxy.http import sticky
from l7proxy.metrics import counts_of, exposition
from tests.wire.harness import Answer, Origin, Running, fields_of, live, named, one_answer, running, status_of
from tests.wire.test_running import reloaded

pytestmark = pytest.mark.unit

INSERT = "    sticky: {cookie: SRV}"


def origins(answer: Answer = named, count: int = 3) -> list[Origin]:
    return [Origin(answer, f"b{number}") for number in range(count)]


class Client:
    """A browser, as far as one cookie goes."""

    def __init__(self, proxy: Running, name: str = "SRV", cookie: str = "") -> None:
        self.proxy = proxy
        self.name = name
        self.cookie = cookie
        self.head = b""

    @property
    def given(self) -> list[str]:
        """What the last answer has set, whole."""
        return [value.decode() for value in fields_of(self.head, b"set-cookie")]

    async def ask(self, *lines: str, target: str = "/") -> str:
        """Who answers."""
        cookies = [f"Cookie: x=1; {self.name}={self.cookie}; y=2"] if self.cookie else []
        self.head, _, body = (await self.proxy.get(target, *cookies, *lines)).partition(b"\r\n\r\n")
        assert status_of(self.head) == 200, self.head
        self.head += b"\r\n\r\n"
        for each in self.given:
            if each.startswith(f"{self.name}="):
                self.cookie = each.partition("=")[2].partition(";")[0]
        return body.decode()


def counts(proxy: Running) -> dict[str, int]:
    sessions = proxy.server.proxy.snapshot.upstreams["up"].sessions
    assert sessions is not None
    return {verdict.name.lower(): sessions.counts[verdict] for verdict in Verdict if sessions.counts[verdict]}


async def changed(proxy: Running, old: str, new: str) -> None:
    """A reload with another text."""
    text = proxy.path.read_text()
    assert old in text
    proxy.path.write_text(text.replace(old, new))
    await reloaded(proxy)


def weight(origin: Origin, value: int) -> tuple[str, str]:
    address = f"{{address: '127.0.0.1:{origin.port}'}}"
    return address, address.replace("}", f", weight: {value}}}")


# insert


@live
async def test_a_client_keeps_its_backend_and_is_told_once(tmp_path: Path) -> None:
    backends = origins()
    async with running(tmp_path, *backends, upstream=INSERT) as proxy:
        clients = [Client(proxy) for _ in range(3)]
        names = [await client.ask() for client in clients]
        assert sorted(names) == ["b0", "b1", "b2"]
        for client, name in zip(clients, names, strict=True):
            assert re.fullmatch(r"SRV=[\w-]{16}; Path=/; HttpOnly", client.given[0])
            for _ in range(4):
                assert await client.ask() == name
                assert client.given == []
        assert counts(proxy) == {"new": 3, "kept": 12}


@live
async def test_backends_see_every_cookie_but_ours(tmp_path: Path) -> None:
    backend = Origin(named)
    async with running(tmp_path, backend, upstream=INSERT) as proxy:
        await proxy.get("/", "Cookie: a=1; SRV=x; b=2", "Cookie: SRV=y", "X-A: SRV=z", "Cookie: XSRV=3")
        assert fields_of(backend.heads[-1], b"cookie") == [b"a=1; b=2", b"XSRV=3"]
        assert fields_of(backend.heads[-1], b"x-a") == [b"SRV=z"]
        await changed(proxy, "cookie: SRV", "cookie: SRV, indirect: false")
        await proxy.get("/", "Cookie: a=1; SRV=x; b=2")
        assert fields_of(backend.heads[-1], b"cookie") == [b"a=1; SRV=x; b=2"]


def sets(*lines: bytes) -> Answer:
    """200 with these lines, and the origin's name."""

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        more = b"".join(line + b"\r\n" for line in lines)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n%b\r\n%b" % (more, origin.name.encode()))

    return answer


@live
async def test_a_backends_cookie_of_that_name_never_reaches_the_client(tmp_path: Path) -> None:
    async with running(tmp_path, *origins(sets(b"Set-Cookie: SRV=evil", b"Set-Cookie: a=1")), upstream=INSERT) as proxy:
        client = Client(proxy)
        await client.ask()
        assert len(client.given) == 2
        assert client.cookie != "evil"
        await client.ask()
        assert client.given == ["a=1"]


@live
async def test_sessions_hold_over_reload_restart_and_on_every_proxy(tmp_path: Path) -> None:
    backends = origins()
    (tmp_path / "other").mkdir()
    async with running(tmp_path, *backends, upstream=INSERT) as proxy:
        client = Client(proxy)
        name = await client.ask()
        await changed(proxy, "routes:", "via: false\nroutes:")
        assert [await client.ask() for _ in range(4)] == [name] * 4
        assert counts(proxy) == {"new": 1, "kept": 4}, "counts survive a reload"
        ports = [backend.port for backend in backends]
        async with running(tmp_path / "other", *ports, upstream=INSERT) as other:
            client.proxy = other
            assert [await client.ask() for _ in range(4)] == [name] * 4
            assert client.given == []


@live
async def test_a_dead_backend_loses_its_sessions_in_the_same_answer(tmp_path: Path) -> None:
    backends = origins()
    async with running(tmp_path, *backends, upstream=INSERT) as proxy:
        client = Client(proxy)
        first = await client.ask()
        dead = next(each for each in backends if each.name == first)
        seen = len(dead.heads)
        before = client.cookie
        await dead.stop()
        name = await client.ask()
        assert name != dead.name
        assert client.cookie != before
        assert [await client.ask() for _ in range(4)] == [name] * 4
        assert len(dead.heads) == seen


@live
async def test_a_backend_that_is_known_to_be_down_is_not_tried(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backends = origins()
    check = INSERT + "\n    check: {type: tcp, interval: 50ms, rise: 1, fall: 1}"
    async with running(tmp_path, *backends, upstream=check) as proxy:
        client = Client(proxy)
        name = await client.ask()
        await next(each for each in backends if each.name == name).stop()
        upstream = proxy.server.proxy.snapshot.upstreams["up"]
        await proxy.until(lambda: len(upstream.weights) == 2)
        assert await client.ask() != name
        assert counts(proxy)["moved"] == 1
        assert "trying another backend" not in caplog.messages


@live
async def test_a_drained_backend_keeps_its_sessions_until_the_deadline(tmp_path: Path) -> None:
    backends = origins()
    async with running(tmp_path, *backends, upstream="    sticky: {cookie: SRV, drain_sessions: 1h}") as proxy:
        client = Client(proxy)
        name = await client.ask()
        drained = next(each for each in backends if each.name == name)
        await changed(proxy, *weight(drained, 0))
        assert [await client.ask() for _ in range(4)] == [name] * 4
        assert client.given == []
        assert name not in [await Client(proxy).ask() for _ in range(8)]
        await changed(proxy, "drain_sessions: 1h", "drain_sessions: 1ms")
        assert await client.ask() != name
        assert client.given


@live
async def test_a_drained_backend_that_is_dead_is_left_at_once(tmp_path: Path) -> None:
    backends = origins()
    async with running(tmp_path, *backends, upstream=INSERT) as proxy:
        client = Client(proxy)
        name = await client.ask()
        drained = next(each for each in backends if each.name == name)
        await changed(proxy, *weight(drained, 0))
        await drained.stop()
        other = await client.ask()
        assert other != name
        assert await client.ask() == other


@live
async def test_with_all_drained_sessions_go_on_and_nobody_is_let_in(tmp_path: Path) -> None:
    (backend,) = origins(count=1)
    async with running(tmp_path, backend, upstream=INSERT) as proxy:
        client = Client(proxy)
        await client.ask()
        await changed(proxy, *weight(backend, 0))
        assert await client.ask() == "b0"
        assert status_of(await proxy.get()) == 503


BAD = ["", "x", "b0", "=", '"', "a" * 300, "::::", "x:1:2:3", "%00", "\x7f", "é"]


@live
async def test_what_is_not_our_cookie_is_none_and_counted(tmp_path: Path) -> None:
    async with running(tmp_path, *origins(), upstream=INSERT) as proxy:
        for number, bad in enumerate(BAD, 1):
            client = Client(proxy, cookie=bad)
            answer = await proxy.get("/", f"Cookie: SRV={bad}")
            if status_of(answer) == 400:
                assert not bad.isprintable()
                continue
            assert status_of(answer) == 200
            assert fields_of(answer, b"set-cookie"), bad
            assert "kept" not in counts(proxy), (number, client.cookie)
        assert counts(proxy)["refused"] >= len(BAD) - 1


@live
async def test_of_two_cookies_the_first_that_holds_counts(tmp_path: Path) -> None:
    async with running(tmp_path, *origins(), upstream=INSERT) as proxy:
        one, other = Client(proxy), Client(proxy)
        name, _ = await one.ask(), await other.ask()
        for lines in (
            [f"Cookie: SRV=nonsense; SRV={one.cookie}; SRV={other.cookie}"],
            ["Cookie: SRV=nonsense", f"Cookie: a=1; SRV={one.cookie}", f"Cookie: SRV={other.cookie}"],
        ):
            client = Client(proxy)
            assert await client.ask(*lines) == name
            assert client.given == []


@live
async def test_clients_that_share_a_connection_keep_apart(tmp_path: Path) -> None:
    """As behind another proxy: each request has a cookie of its own, and they come one behind the other."""
    async with running(tmp_path, *origins(), upstream=INSERT) as proxy:
        clients = [Client(proxy) for _ in range(3)]
        names = [await client.ask() for client in clients]
        reader, writer = await proxy.connect()
        order = [0, 1, 2, 2, 0, None, 1, 0, None, 2]
        for which in order:
            cookie = f"Cookie: SRV={clients[which].cookie}\r\n" if which is not None else ""
            writer.write(f"GET / HTTP/1.1\r\nHost: a\r\n{cookie}\r\n".encode())
        for which in order:
            head, body = await one_answer(reader)
            assert bool(fields_of(head, b"set-cookie")) == (which is None)
            if which is not None:
                assert body.decode() == names[which]
        writer.close()


# times


@live
async def test_sessions_end_by_time_and_are_told_of_when_it_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_790_000_000.0
    monkeypatch.setattr(sticky, "_wall", lambda: now)
    async with running(tmp_path, *origins(), upstream="    sticky: {cookie: SRV, maxidle: 30m, maxlife: 2h}") as proxy:
        client = Client(proxy)
        name = await client.ask()
        began = now
        told = []
        while now - began <= 7000:
            now += 200
            assert await client.ask() == name
            told.append(bool(client.given))
        assert 2 < told.index(True) + told.count(True) < len(told) // 2, "seldom, and in time"
        now = began + 7300
        await client.ask()
        assert client.given, "older than maxlife"
        assert counts(proxy)["expired"] == 1
        now += 1801
        await client.ask()
        assert counts(proxy)["expired"] == 2, "not used for maxidle"
        now -= 2 * SKEW_S
        await client.ask()
        assert counts(proxy)["refused"] == 1, "made in the future"


# signed


@live
async def test_a_signed_cookie_needs_the_key(tmp_path: Path) -> None:
    key_file = tmp_path / "keys"
    key_file.write_text("0123456789abcdef0123456789abcdef\n")
    signed = f"    sticky: {{cookie: SRV, signed: true, key_file: {key_file}, maxidle: 1h}}"
    backends = origins()
    async with running(tmp_path, *backends, upstream=signed) as proxy:
        client = Client(proxy)
        name = await client.ask()
        first = client.cookie
        of, _, seen, mac = first.split(":")
        for forged in (of, f"{of}:0:{seen}:{mac}", f"{of}:{seen}:{seen}:{mac[:-1]}A", f"{of}:{seen}:{seen}"):
            if forged != first:
                await Client(proxy, cookie=forged).ask()
        assert counts(proxy).get("kept", 0) == 0
        assert await client.ask() == name
        # A new key is put before the old one; then the old one goes.
        for keys, is_kept in (("f" * 32 + "\n" + key_file.read_text(), True), ("f" * 32, False)):
            key_file.write_text(keys)
            await reloaded(proxy)
            before = counts(proxy).get("kept", 0)
            assert await Client(proxy, cookie=first).ask() == name or not is_kept
            assert counts(proxy).get("kept", 0) == before + is_kept


def test_workers_have_the_keys_that_were_read_first(tmp_path: Path) -> None:
    key_file, file = tmp_path / "keys", tmp_path / "l7proxy.yaml"
    key_file.write_text("0123456789abcdef\n# a comment\n\nfedcba9876543210\n")
    file.write_text(
        "listeners: {http: {bind: '127.0.0.1:80'}}\nroutes: [{upstream: up}]\nupstreams:\n  up:\n"
        f"    sticky: {{cookie: S, key_file: {key_file}}}\n    backends: {{a: {{address: '127.0.0.1:1'}}}}\n"
    )
    loaded = load_file(str(file))
    key_file.unlink()
    again = load_text(loaded.text, loaded.source, loaded.files)
    assert again.config == loaded.config
    made = loaded.config.upstreams["up"].sticky
    assert made is not None
    assert len(made.keys) == 2
    assert "0123456789abcdef" not in repr(loaded)


# rewrite, prefix, passive


@live
async def test_rewrite_puts_its_value_into_the_backends_cookie(tmp_path: Path) -> None:
    backends = origins(sets(b"Set-Cookie: SRV=application; Path=/a; Secure", b"Set-Cookie: b=2"))
    async with running(tmp_path, *backends, upstream="    sticky: {cookie: SRV, mode: rewrite}") as proxy:
        client = Client(proxy)
        name = await client.ask()
        assert re.fullmatch(r"SRV=[\w-]{16}; Path=/a; Secure", client.given[0])
        assert client.given[1] == "b=2"
        assert [await client.ask() for _ in range(4)] == [name] * 4
        (backend,) = [each for each in backends if each.name == name]
        assert fields_of(backend.heads[-1], b"cookie") == [f"x=1; SRV={client.cookie}; y=2".encode()]


@live
async def test_rewrite_gives_nothing_where_the_backend_gives_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, *origins(), upstream="    sticky: {cookie: SRV, mode: rewrite}") as proxy:
        client = Client(proxy)
        await client.ask()
        assert client.given == []


@live
async def test_prefix_goes_before_the_backends_value_and_is_gone_for_it(tmp_path: Path) -> None:
    backends = origins(sets(b"Set-Cookie: JSESSIONID=A~1; Path=/"))
    async with running(tmp_path, *backends, upstream="    sticky: {cookie: JSESSIONID, mode: prefix}") as proxy:
        client = Client(proxy, "JSESSIONID")
        name = await client.ask()
        assert re.fullmatch(r"JSESSIONID=[\w-]{16}~A~1; Path=/", client.given[0])
        assert [await client.ask() for _ in range(4)] == [name] * 4
        (backend,) = [each for each in backends if each.name == name]
        assert fields_of(backend.heads[-1], b"cookie") == [b"x=1; JSESSIONID=A~1; y=2"]
        gone = Client(proxy, "JSESSIONID", "AAAAAAAAAAAAAAAA~session")
        name = await gone.ask()
        (backend,) = [each for each in backends if each.name == name]
        assert fields_of(backend.heads[-1], b"cookie") == [b"x=1; JSESSIONID=session; y=2"]
        own = Client(proxy, "JSESSIONID", "from-before")
        name = await own.ask()
        (backend,) = [each for each in backends if each.name == name]
        assert fields_of(backend.heads[-1], b"cookie") == [b"x=1; JSESSIONID=from-before; y=2"]
        assert counts(proxy) == {"new": 2, "kept": 4, "refused": 1}


@live
async def test_prefix_is_taken_off_for_whoever_comes_after_a_dead_one(tmp_path: Path) -> None:
    backends = origins(sets(b"Set-Cookie: S=v"), 2)
    async with running(tmp_path, *backends, upstream="    sticky: {cookie: S, mode: prefix}") as proxy:
        client = Client(proxy, "S")
        name = await client.ask()
        dead, alive = sorted(backends, key=lambda each: each.name != name)
        await dead.stop()
        assert await client.ask() == alive.name
        assert fields_of(alive.heads[-1], b"cookie") == [b"x=1; S=v; y=2"]
        assert await client.ask() == alive.name


@live
async def test_passive_reads_the_names_that_the_application_writes(tmp_path: Path) -> None:
    async with running(tmp_path, *origins(), upstream="    sticky: {cookie: SRV, mode: passive}") as proxy:
        client = Client(proxy, cookie="b2")
        assert [await client.ask() for _ in range(4)] == ["b2"] * 4
        assert client.given == []
        assert counts(proxy) == {"kept": 4}


# what goes with the cookie


@live
async def test_an_answer_with_our_cookie_is_for_nobody_else(tmp_path: Path) -> None:
    public = sets(b"Cache-Control: public, max-age=60")
    async with running(tmp_path, *origins(public), upstream=INSERT) as proxy:
        client = Client(proxy)
        await client.ask()
        assert fields_of(client.head, b"cache-control") == [b"max-age=60, private"]
        await client.ask()
        assert fields_of(client.head, b"cache-control") == [b"public, max-age=60"]
        answer = await proxy.talk(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        assert fields_of(answer, b"set-cookie")
        assert fields_of(answer, b"cache-control") == [b"public, max-age=60"]


@live
async def test_a_cookie_of_who_came_by_https_is_secure(tmp_path: Path) -> None:
    attributes = "    sticky: {cookie: SRV, domain: example.org, path: /shop, http_only: false, same_site: lax}"
    trusting = ", trusted_proxies: 127.0.0.1"
    async with running(tmp_path, *origins(), upstream=attributes, listener=trusting) as proxy:
        client = Client(proxy)
        await client.ask("X-Forwarded-Proto: https")
        assert client.given[0].endswith("; Path=/shop; Domain=example.org; Secure; SameSite=Lax")
        client = Client(proxy)
        await client.ask("X-Forwarded-Proto: http")
        assert client.given[0].endswith("; Path=/shop; Domain=example.org; SameSite=Lax")
    async with running(tmp_path, *origins(), upstream=INSERT) as proxy:
        client = Client(proxy)
        await client.ask("X-Forwarded-Proto: https")
        assert "Secure" not in client.given[0], "nobody is trusted who says so"


@live
async def test_our_own_answers_give_no_session(tmp_path: Path) -> None:
    backends = origins()
    async with running(tmp_path, *backends, upstream=INSERT) as proxy:
        for backend in backends:
            await backend.stop()
        answer = await proxy.get()
        assert status_of(answer) == 502
        assert fields_of(answer, b"set-cookie") == []


# without cookies


@pytest.mark.parametrize(
    ("key", "line"), [("header: X-Session", "X-Session: {}"), ("source: true", "X-Forwarded-For: 10.0.0.{}")]
)
@live
async def test_sessions_by_hash_hold_on_every_proxy(tmp_path: Path, key: str, line: str) -> None:
    backends = origins()
    (tmp_path / "other").mkdir()
    sticky_by, trusting = f"    sticky: {{{key}}}", ", trusted_proxies: 127.0.0.1"
    ports = [each.port for each in backends]
    async with (
        running(tmp_path, *backends, upstream=sticky_by, listener=trusting) as one,
        running(tmp_path / "other", *ports, upstream=sticky_by, listener=trusting) as other,
    ):
        names = [await Client(one).ask(line.format(number)) for number in range(12)]
        assert len(set(names)) == 3
        assert [await Client(other).ask(line.format(number)) for number in range(12)] == names
        dead = backends[0]
        await dead.stop()
        after = [await Client(one).ask(line.format(number)) for number in range(12)]
        assert all(new == old for new, old in zip(after, names, strict=True) if old != dead.name)
        assert dead.name not in after
        assert fields_of((await one.get("/", line.format(1))), b"set-cookie") == []


@live
async def test_who_has_no_key_takes_turns(tmp_path: Path) -> None:
    async with running(tmp_path, *origins(), upstream="    sticky: {header: X-Session}") as proxy:
        assert sorted([await Client(proxy).ask() for _ in range(6)]) == ["b0", "b0", "b1", "b1", "b2", "b2"]


@live
async def test_sessions_are_counted_where_metrics_are(tmp_path: Path) -> None:
    async with running(tmp_path, *origins(), upstream=INSERT) as proxy:
        client = Client(proxy)
        await client.ask()
        await client.ask()
        text = exposition(counts_of(proxy.server.proxy)).decode()
        found = dict(
            re.findall(r'^l7proxy_sessions_total\{session="(\w+)",upstream="up"\} ([\d.]+)', text, re.MULTILINE)
        )
        assert found == {**dict.fromkeys((each.name.lower() for each in Verdict), "0.0"), "new": "1.0", "kept": "1.0"}
