"""Ejection, breaker, retry budget and slow start: what clients see of them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest

from director.kit.problem import InvalidConfigError
from l7proxy.admin.shown import status_of
from l7proxy.core.config import load_config
from tests.wire.harness import Origin, config_text, free_port, live, running
from tests.wire.harness import status_of as status

pytestmark = pytest.mark.unit


class Moody:
    """An origin whose status is what it is told to be; 0 is no answer at all."""

    def __init__(self, name: str, said: int = 200) -> None:
        self.said = said
        self.origin = Origin(self._answer, name)

    async def _answer(
        self, origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if not self.said:
            writer.transport.abort()
            return
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 1\r\n\r\n%b" % (self.said, origin.name[:1].encode()))

    @property
    def asked(self) -> int:
        return len(self.origin.heads)


@live
async def test_backend_that_fails_in_a_row_is_left_out_and_let_in_again(tmp_path: Path) -> None:
    bad, good = Moody("bad", 503), Moody("good")
    rule = "    outlier: {failures: 2, ejection: 400ms, at_most: 50%}"
    async with running(tmp_path, bad.origin, good.origin, upstream=rule, more="timeouts: {head: 200ms}") as proxy:
        seen = Counter([status(await proxy.get()) for _ in range(12)])
        assert seen == {503: 2, 200: 10}
        shown = status_of(proxy.server.proxy)["upstreams"]["up"]
        assert 0 < shown["left_out_for_s"]["b0"] <= 0.4
        guard = proxy.server.proxy.snapshot.upstreams["up"].guard
        assert guard is not None
        guard.out = frozenset()  # as where workers serve, and the process that is asked does not
        shown = status_of(proxy.server.proxy)["upstreams"]["up"]["backends"]
        assert shown["b0"]["why"].endswith("more, since it failed requests")
        assert shown["b1"]["why"] is None
        guard.look(time.monotonic())
        bad.said = 200
        before = bad.asked
        async with asyncio.timeout(5):
            while bad.asked == before:
                assert status(await proxy.get()) == 200


@live
async def test_backend_that_gives_no_answer_is_left_out_too(tmp_path: Path) -> None:
    good = Moody("good")
    rule = "    outlier: {failures: 3, ejection: 1h}"
    async with running(tmp_path, free_port(), good.origin, upstream=rule) as proxy:
        for _ in range(12):
            assert status(await proxy.get()) == 200
        meters = proxy.server.proxy.meters
        assert meters is not None
        assert proxy.server.proxy.snapshot.upstreams["up"].weights == {"b1": 1}


@live
async def test_answers_of_others_do_not_count(tmp_path: Path) -> None:
    bad, good = Moody("bad", 404), Moody("good")
    async with running(tmp_path, bad.origin, good.origin, upstream="    outlier: {failures: 2}") as proxy:
        assert Counter([status(await proxy.get()) for _ in range(8)]) == {404: 4, 200: 4}


@live
async def test_at_most_its_share_is_left_out(tmp_path: Path) -> None:
    both = Moody("a", 503), Moody("b", 503)
    async with running(
        tmp_path, *(each.origin for each in both), upstream="    outlier: {failures: 2, ejection: 1h}"
    ) as proxy:
        assert {status(await proxy.get()) for _ in range(12)} == {503}
        assert len(status_of(proxy.server.proxy)["upstreams"]["up"]["left_out_for_s"]) == 1
        assert {each.asked > 2 for each in both} == {True, False}


@live
async def test_who_is_left_out_serves_where_nobody_else_is_left(tmp_path: Path) -> None:
    bad, good = Moody("bad", 503), Moody("good")
    rule = "    outlier: {failures: 1, ejection: 1h}"
    async with running(tmp_path, bad.origin, good.origin, upstream=rule) as proxy:
        assert Counter([status(await proxy.get()) for _ in range(4)]) == {503: 1, 200: 3}
        bad.said = 200
        path = proxy.path
        path.write_text(path.read_text().replace(f"{good.origin.port}'", f"{good.origin.port}', weight: 0"))
        proxy.server.request_reload()
        await proxy.until(lambda: proxy.server.proxy.snapshot.upstreams["up"].weights == {"b0": 1})
        assert status(await proxy.get()) == 200


@live
async def test_reload_forgets_nobody_who_is_left_out(tmp_path: Path) -> None:
    bad, good = Moody("bad", 503), Moody("good")
    rule = "    outlier: {failures: 1, ejection: 1h}"
    async with running(tmp_path, bad.origin, good.origin, upstream=rule) as proxy:
        for _ in range(4):
            await proxy.get()
        before = proxy.server.proxy.snapshot
        proxy.server.request_reload()
        await proxy.until(lambda: proxy.server.proxy.snapshot is not before)
        assert {status(await proxy.get()) for _ in range(4)} == {200}


# breaker

BREAKER = "    breaker: {errors: 50%, of: 4, window: 10s, open: 300ms}"


@live
async def test_upstream_that_fails_is_spared_then_tried_and_taken_back(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one = Moody("one", 500)
    async with running(tmp_path, one.origin, upstream=BREAKER) as proxy:
        answers = [await proxy.get() for _ in range(10)]
        assert [status(answer) for answer in answers] == [500] * 4 + [503] * 6
        assert b"breaker_open" in answers[-1]
        assert one.asked == 4
        assert status_of(proxy.server.proxy)["upstreams"]["up"]["breaker"]["open"] is True
        assert "spared" in status_of(proxy.server.proxy)["upstreams"]["up"]["why"]
        await asyncio.sleep(0.31)
        assert [status(await proxy.get()) for _ in range(3)] == [500, 503, 503]
        one.said = 200
        await asyncio.sleep(0.31)
        assert [status(await proxy.get()) for _ in range(3)] == [200] * 3


@live
async def test_trial_of_a_client_that_leaves_does_not_keep_the_upstream_spared(tmp_path: Path) -> None:
    hold = asyncio.Event()
    mood = [500]

    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if mood[0] == 0:
            hold.set()
            await reader.read(1)
            return
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % mood[0])

    async with running(tmp_path, Origin(answer), upstream=BREAKER) as proxy:
        for _ in range(5):
            await proxy.get()
        mood[0] = 0
        await asyncio.sleep(0.31)
        _, writer = await proxy.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(5):
            await hold.wait()
        assert status(await proxy.get()) == 503
        writer.transport.abort()
        mood[0] = 200
        async with asyncio.timeout(5):
            while status(await proxy.get()) != 200:  # noqa: ASYNC110 -- what is waited for has no event
                await asyncio.sleep(0.01)


# retry budget


@live
async def test_attempts_stop_where_the_budget_is_spent(tmp_path: Path) -> None:
    good = Moody("good")
    rule = "    retry_budget: {share: 0%, minimum: 2}"
    async with running(tmp_path, free_port(), good.origin, upstream=rule) as proxy:
        seen = [status(await proxy.get()) for _ in range(10)]
    assert Counter(seen) == {200: 7, 502: 3}
    assert 502 not in seen[:4]


# slow start


@live
async def test_backend_that_comes_back_begins_with_little(tmp_path: Path) -> None:
    back, other = Moody("back", 503), Moody("other")
    check = "    check: {type: http, path: /, interval: 50ms, timeout: 1s, rise: 1, fall: 1}\n    slow_start: 20s"
    async with running(tmp_path, back.origin, other.origin, upstream=check) as proxy:
        state = proxy.server.proxy.snapshot.upstreams["up"]
        await proxy.until(lambda: list(state.weights) == ["b1"])
        back.said = 200
        await proxy.until(lambda: len(state.weights) == 2)
        assert state.weights["b0"] * 5 < state.weights["b1"]
        names = Counter([(await proxy.get())[-1:] for _ in range(22)])
        assert 1 <= names[b"b"] <= 4
        state.look(time.monotonic())
        state.backends["b0"].back_at -= 30
        state.look(time.monotonic())
        assert state.weights == {"b0": 1, "b1": 1}


# what is wrong


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("outlier: {at_most: 40%}", "upstreams.up.outlier.at_most: of 2 backends this leaves nobody out"),
        ("outlier: {at_most: half}", "upstreams.up.outlier.at_most: 'half' is no share"),
        ("outlier: {ejection: 0s}", "upstreams.up.outlier.ejection: '0s' is too short"),
        ("outlier: {failures: 0}", "upstreams.up.outlier.failures: 0 is too small"),
        ("breaker: {errors: 0%}", "upstreams.up.breaker.errors: 0% would spare the upstream always"),
        ("breaker: {open: 0s}", "upstreams.up.breaker.open: '0s' is too short"),
        ("breaker: {statuses: [200]}", "upstreams.up.breaker.statuses.0: 200 is too small"),
        ("retry_budget: {share: 20}", "upstreams.up.retry_budget.share: 20 is no share"),
    ],
)
def test_what_is_wrong_is_told_of_its_key(keys: str, said: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        load_config(config_text(8080, 8001, 8002, upstream=f"    {keys}"), "x")
    assert any(said in line for line in caught.value.lines()), caught.value.lines()
