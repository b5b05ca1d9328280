"""The admin socket, for real, before a stub of the director."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

from director.api import server
from director.api.client import Client, NotRunningError
from director.api.server import LARGEST_REQUEST_BYTES, serve
from director.core.answers import Applied, Step
from director.core.model import ServerRef
from director.host.lockfile import namespace_inode
from director.kit.adminsocket import listening
from director.kit.errors import ConfigError, DirectorError, HostError, KernelError
from tests.director.fakes import Stub, until

pytestmark = pytest.mark.unit


MADE = {"sign": "+", "subject": "virtual server web", "detail": "wlc", "effect": ""}
Story = Callable[[Stub], Awaitable[None]]


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Stub]:
    stub = Stub()
    with listening(path) as listener:
        async with serve(stub, listener):
            yield stub


def run(path: Path, story: Story) -> None:
    async def main() -> None:
        async with serving(path) as stub:
            await story(stub)

    asyncio.run(main())


async def ask(path: Path, method: str, target: str, body: bytes = b"", *headers: str) -> tuple[int, object]:
    """One request on a connection of its own: the status, and the JSON of the answer."""
    reader, writer = await asyncio.open_unix_connection(path)
    lines = [f"{method} {target} HTTP/1.1", "Host: d", f"Content-Length: {len(body)}", "Connection: close", *headers]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    head, _, content = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), json.loads(content)


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "d.sock"


def test_the_socket_is_for_its_owner_and_group_and_goes_with_the_server(path: Path) -> None:
    async def story(_: Stub) -> None:
        pass

    with listening(path):
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert not path.exists()
    run(path, story)
    assert not path.exists()


def test_every_operation_reaches_the_director_from_the_client(path: Path) -> None:
    async def story(stub: Stub) -> None:
        def all_of_them() -> None:
            client = Client(path)
            assert client.is_running()
            assert client.status()["daemon"]["pid"] == 1
            assert client.plan("text: ä", "f") == stub.planned.plain()
            assert client.drift() == []
            assert client.apply("text", "f") == Applied().plain()
            client.apply("text", "f", confirm_s=60.0, drain_s=1.5)
            assert (client.confirm(), client.undo()) == (Applied().plain(), Applied().plain())
            client.drain("web", "a")
            client.enable("web", "a")
            client.weight("web", "a", 7)

        await asyncio.to_thread(all_of_them)
        ref = ServerRef("web", "a")
        assert stub.asked == [
            ("status",),
            ("plan", "text: ä", "f"),
            ("drift",),
            ("apply", "text", "f"),
            ("apply", "text", "f", 60.0, 1.5),
            ("confirm",),
            ("undo",),
            ("drain", ref),
            ("enable", ref),
            ("weight", ref, 7),
        ]

    run(path, story)


@pytest.mark.parametrize(
    ("error", "status", "said", "kind"),
    [
        (ConfigError("f:1:1: bad\nf:2:1: worse"), 400, "f:1:1: bad\nf:2:1: worse", ConfigError),
        (KernelError("no answer"), 500, "no answer", DirectorError),
        (RuntimeError("a secret"), 500, "internal error: the director's log has the details", DirectorError),
    ],
)
def test_an_error_is_json_and_the_clients_error_again(
    path: Path, error: Exception, status: int, said: str, kind: type[Exception]
) -> None:
    async def story(stub: Stub) -> None:
        stub.error = error
        assert await ask(path, "GET", "/v1/status") == (status, {"error": said})
        with pytest.raises(kind) as caught:
            await asyncio.to_thread(Client(path).status)
        assert (type(caught.value), str(caught.value)) == (kind, said)

    run(path, story)


@pytest.mark.parametrize("operation", ["apply", "confirm", "undo"])
def test_what_was_done_in_part_says_what_was_made(path: Path, operation: str) -> None:
    async def story(stub: Stub) -> None:
        step = Step("+", "virtual server web", "wlc")
        stub.applied = Applied((step,), ("one", "two"), ("three",), (step,), 2.5)
        status, answer = await ask(path, "POST", f"/v1/{operation}", b'{"text": "t", "source": "f"}')
        plain = {"steps": [MADE], "failures": ["one", "two"], "waiting": ["three"], "later": [MADE], "confirm_s": 2.5}
        assert (status, answer) == (500, {**plain, "error": "one\ntwo"})
        client = Client(path)
        asked = {"apply": lambda: client.apply("t", "f"), "confirm": client.confirm, "undo": client.undo}[operation]
        assert (await asyncio.to_thread(asked)).items() >= plain.items()

    run(path, story)


@pytest.mark.parametrize("value", [b'"60s"', b"0", b"-1", b"true", b"1e99", b"[]"])
def test_a_wrong_number_of_seconds_is_told(path: Path, value: bytes) -> None:
    async def story(stub: Stub) -> None:
        body = b'{"text": "t", "source": "f", "confirm_s": ' + value + b"}"
        status, answer = await ask(path, "POST", "/v1/apply", body)
        assert status == 400
        assert "is not a number of seconds above 0" in str(answer)
        assert stub.asked == []

    run(path, story)


def test_whoever_asks_from_another_network_namespace_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(stub: Stub) -> None:
        monkeypatch.setattr("director.api.client.namespace_inode", lambda: 7)
        for operation in (lambda: Client(path).apply("t", "f"), lambda: Client(path).status()):
            with pytest.raises(DirectorError, match=r"runs in 7: nothing was done.* --socket and --state-dir"):
                await asyncio.to_thread(operation)
        assert stub.asked == []
        here = namespace_inode()
        assert (await ask(path, "GET", "/v1/status", b"", f"Director-Namespace: {here}"))[0] == 200
        async with connected(path) as (reader, writer):
            writer.write(b"GET /v1/nothing HTTP/1.1\r\nHost: d\r\n\r\n")
            assert f"\r\nDirector-Namespace: {here}\r\n".encode() in await reader.readuntil(b"\r\n\r\n")

    run(path, story)


NOT_JSON = "the request is not JSON: send an object"
REF = '"virtual_server": "web", "real_server": "a"'
GARBAGE: list[tuple[str, bytes, int, str]] = [
    ("/v1/apply", b"", 400, NOT_JSON),
    ("/v1/apply", b"\xff\xfe\x00", 400, NOT_JSON),
    ("/v1/apply", b"{", 400, NOT_JSON),
    ("/v1/apply", b"[" * 100_000, 400, NOT_JSON),
    ("/v1/apply", b"[]", 400, "the request is not a JSON object: send one"),
    ("/v1/apply", b"{}", 400, 'the request needs "text" (the file\'s content) and "source" (its name)'),
    ("/v1/plan", b'{"text": 1, "source": "f"}', 400, 'the request needs "text" (the file\'s content) and "source"'),
    ("/v1/drain", b'{"virtual_server": "web"}', 400, 'the request needs "virtual_server" and "real_server"'),
    ("/v1/weight", f"{{{REF}}}".encode(), 400, "weight None is not one: use 0 to 65535"),
    ("/v1/weight", f'{{{REF}, "weight": true}}'.encode(), 400, "weight True is not one: use 0 to 65535"),
    ("/v1/weight", f'{{{REF}, "weight": 65536}}'.encode(), 400, "weight 65536 is not one: use 0 to 65535"),
    ("/v1/weight", b'{"weight": 1}', 400, 'the request needs "virtual_server" and "real_server"'),
    ("/v1/nothing", b"{}", 404, "POST /v1/nothing: Not Found"),
    ("/v1/status", b"{}", 405, "POST /v1/status: Method Not Allowed"),
]


@pytest.mark.parametrize(("target", "body", "status", "said"), GARBAGE)
def test_garbage_is_refused_with_a_sentence(path: Path, target: str, body: bytes, status: int, said: str) -> None:
    async def story(stub: Stub) -> None:
        found, answer = await ask(path, "POST", target, body, "Content-Type: text/plain; charset=nonsense")
        assert found == status
        assert isinstance(answer, dict)
        assert str(answer["error"]).startswith(said)
        assert stub.asked == []

    run(path, story)


def test_a_huge_body_is_refused_before_it_is_all_taken_in(path: Path) -> None:
    sent = 0

    async def send(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        with suppress(ConnectionError):
            while True:
                writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
                await writer.drain()
                sent += 0x10000

    async def story(stub: Stub) -> None:
        async with connected(path) as (reader, writer):
            writer.write(b"POST /v1/apply HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n")
            async with asyncio.TaskGroup() as group:
                sender = group.create_task(send(writer))
                assert await reader.readexactly(12) == b"HTTP/1.1 413"
                sender.cancel()
        assert sent < 2 * LARGEST_REQUEST_BYTES
        assert stub.asked == []
        assert (await ask(path, "GET", "/v1/status"))[0] == 200

    run(path, story)


APPLY = b'POST /v1/apply HTTP/1.1\r\nHost: d\r\nContent-Length: 28\r\n\r\n{"text": "t", "source": "f"}'


def test_clients_that_say_nothing_or_read_nothing_hold_up_nobody(path: Path) -> None:
    async def story(stub: Stub) -> None:
        async with AsyncExitStack() as stack:
            for number in range(100):
                _, writer = await stack.enter_async_context(connected(path))
                # Half a request and then nothing; or requests without end, and no answer is read.
                writer.write(APPLY[:-1] if number % 2 else b"GET /v1/status HTTP/1.1\r\nHost: d\r\n\r\n" * 1000)
            async with asyncio.timeout(10):
                assert (await ask(path, "GET", "/v1/status"))[0] == 200
        assert ("apply", "t", "f") not in stub.asked

    run(path, story)


def test_what_was_begun_is_carried_out_when_whoever_asked_has_gone(path: Path) -> None:
    async def story(stub: Stub) -> None:
        stub.gate.clear()
        async with connected(path) as (_, writer):
            writer.write(APPLY)
            await stub.begun.wait()
        stub.gate.set()
        await until(lambda: bool(stub.asked))
        assert stub.asked == [("apply", "t", "f")]

    run(path, story)


def test_the_end_does_not_wait_for_an_operation_that_hangs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LAST_ANSWERS_S", 0.1)

    async def main() -> None:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(asyncio.timeout(10))
            async with serving(path) as stub:
                stub.gate.clear()
                _, writer = await stack.enter_async_context(connected(path))
                writer.write(APPLY)
                await stub.begun.wait()

    asyncio.run(main())
    assert not path.exists()


def test_a_socket_that_a_dead_process_left_is_replaced(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))

    async def story(_: Stub) -> None:
        assert (await ask(path, "GET", "/v1/status"))[0] == 200

    run(path, story)


def test_a_socket_that_answers_is_left_alone(path: Path) -> None:
    async def story(_: Stub) -> None:
        with pytest.raises(HostError, match="another director answers"), listening(path):
            pass
        assert (await ask(path, "GET", "/v1/status"))[0] == 200

    run(path, story)


def test_a_socket_too_busy_to_accept_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as busy:
        busy.bind(str(path))
        busy.listen(0)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as first:
            first.connect(str(path))
            with pytest.raises(HostError, match="another director answers"), listening(path):
                pass
    assert path.exists()


def test_another_kind_of_file_is_not_deleted(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("precious")
    with pytest.raises(HostError, match="it is no socket"), listening(path):
        pass
    assert path.read_text() == "precious"
    with pytest.raises(HostError, match="it is no socket"), listening(path.parent):
        pass


@pytest.mark.parametrize("place", ["file/d.sock", "x" * 120])
def test_a_socket_that_cannot_be_had_says_so(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="could not open the admin socket"), listening(tmp_path / place):
        pass


def test_connections_wait_until_somebody_answers(path: Path) -> None:
    async def main() -> None:
        with listening(path) as listener:
            early = asyncio.get_running_loop().create_task(ask(path, "GET", "/v1/status"))
            await asyncio.sleep(0)
            assert not early.done()
            async with serve(Stub(), listener):
                assert (await early)[0] == 200

    asyncio.run(main())


def test_without_a_director_the_client_says_how_to_start_one(path: Path) -> None:
    assert not Client(path).is_running()
    with pytest.raises(NotRunningError, match="start one with `director run FILE`"):
        Client(path).status()
    path.parent.mkdir()
    path.touch()
    assert not Client(path).is_running()
    with pytest.raises(NotRunningError):
        Client(path).status()


def test_a_socket_path_that_is_too_long_is_told(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="too long"):
        Client(tmp_path / ("x" * 120)).status()


@pytest.mark.parametrize(
    "answer",
    [b"", b"220 smtp\r\n", b"HTTP/1.1 200 OK\r\n\r\nhello", b'HTTP/1.1 404 N\r\n\r\n{"message": "page"}'],
)
def test_what_is_no_director_is_told(path: Path, answer: bytes) -> None:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async def main() -> None:
        path.parent.mkdir()
        async with await asyncio.start_unix_server(reply, path):
            with pytest.raises(HostError, match=r"no director|could not ask"):
                await asyncio.to_thread(Client(path).status)

    asyncio.run(main())
