"""Conversations over real sockets with peers that do as they like."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from ipaddress import ip_address
from pathlib import Path

import pytest

from director.kit.checks.base import Timing
from director.kit.checks.check import Check
from director.kit.checks.tcp import TcpProbe
from director.kit.health import ProbeResult
from director.kit.net import Endpoint
from director.kit.probes.attempt import Outcome
from director.kit.probes.dialogue import MOST_HEARD_BYTES, Dialogue, Step
from director.kit.probes.tcp import TCP
from director.kit.probes.wire import Engine, converse
from tests.director.kit.engine.peers import Says, Talk, a_check, descriptors, free_port, full_backlog, listening, resets

pytestmark = pytest.mark.unit


def talk_with(talk: Talk, dialogue: Dialogue | None = None, timeout_s: float = 5.0) -> ProbeResult:
    with listening(talk) as port:
        return asyncio.run(converse(a_check(port, timeout_s), dialogue or Says(), None))


def answers(*parts: bytes) -> Talk:
    def talk(peer: socket.socket) -> None:
        heard = b""
        while not heard.endswith(b"hello\n"):
            heard += peer.recv(65536)
        for part in parts:
            peer.sendall(part)
            time.sleep(0.01)
        peer.recv(1)

    return talk


def waits(peer: socket.socket) -> None:
    while peer.recv(65536):
        pass


def test_answer_is_heard_in_whatever_pieces_it_comes(runner: asyncio.Runner) -> None:
    with listening(answers(b"wo", b"rl", b"d\n")) as port:
        result = runner.run(converse(a_check(port), Says(), None))
    assert (result.ok, result.reason, result.output) == (True, "said so", b"world\n")
    assert 0.02 <= result.duration_s < 5


def test_first_bytes_heard_are_kept() -> None:
    result = talk_with(answers(b"x" * 100, b"y" * 1000, b"world\n"))
    assert result.output == b"x" * 100 + b"y" * 156


def test_peer_may_speak_first() -> None:
    def greets(peer: socket.socket) -> None:
        peer.sendall(b"220 hello\n")
        waits(peer)

    assert talk_with(greets, Says(b"", b"220")).ok


@pytest.mark.parametrize("kind", ["refused", "full backlog"])
def test_no_connection_is_a_failure(runner: asyncio.Runner, kind: str) -> None:
    if kind == "refused":
        result = runner.run(converse(a_check(free_port()), Says(), None))
        assert (result.ok, result.reason, result.errno) == (False, "connection refused", errno.ECONNREFUSED)
    else:
        with full_backlog() as port:
            result = runner.run(converse(a_check(port, 0.1), Says(), None))
        assert (result.ok, result.reason, result.errno) == (False, "no answer within 100ms", errno.ETIMEDOUT)
        assert 0.09 <= result.duration_s < 1


def test_peer_that_never_answers_ends_with_the_timeout() -> None:
    result = talk_with(answers(b"wor"), timeout_s=0.1)
    assert (result.ok, result.reason, result.output) == (False, "no answer within 100ms", b"wor")
    assert result.duration_s < 1


def test_slow_drip_ends_with_the_timeout() -> None:
    def drips(peer: socket.socket) -> None:
        while True:
            peer.sendall(b"x")
            time.sleep(0.005)

    result = talk_with(drips, timeout_s=0.2)
    assert (result.ok, result.reason) == (False, "no answer within 200ms")
    assert 0.19 <= result.duration_s < 1


@pytest.mark.parametrize("size", [100_000, 1])
def test_endless_answer_is_ended(size: int) -> None:
    def endless(peer: socket.socket) -> None:
        while True:
            peer.sendall(b"x" * size)

    dialogue = Says()
    result = talk_with(endless, dialogue)
    assert not result.ok
    assert result.reason == "256 KiB were heard without an end of the answer"
    assert len(dialogue.all) == MOST_HEARD_BYTES


def test_peer_that_never_reads_blocks_nobody() -> None:
    def deaf(peer: socket.socket) -> None:
        time.sleep(0.4)

    result = talk_with(deaf, Says(b"x" * 20_000_000), timeout_s=0.2)
    assert (result.ok, result.reason) == (False, "no answer within 200ms")
    assert result.duration_s < 1


def test_peer_that_reads_slowly_gets_all() -> None:
    size = 8_000_000

    def counts(peer: socket.socket) -> None:
        left = size
        while left:
            left -= len(peer.recv(300_000))
        peer.sendall(b"world\n")
        waits(peer)

    assert talk_with(counts, Says(b"x" * size)).ok


def test_peer_that_closes_at_once_has_ended_it() -> None:
    assert talk_with(lambda peer: None).reason in {
        "it ended",
        "connection reset by peer",
    }  # hello came before, or after


def test_half_closed_connection_has_ended() -> None:
    def half(peer: socket.socket) -> None:
        peer.shutdown(socket.SHUT_WR)
        waits(peer)

    assert talk_with(half).reason == "it ended"


def test_what_was_said_before_the_end_counts() -> None:
    def last_word(peer: socket.socket) -> None:
        peer.recv(100)
        peer.sendall(b"world\n")

    assert talk_with(last_word).ok


def test_reset_is_told() -> None:
    def resetting(peer: socket.socket) -> None:
        peer.recv(100)
        resets(peer)

    result = talk_with(resetting)
    assert (result.ok, result.reason, result.errno) == (False, "connection reset by peer", errno.ECONNRESET)


def test_defect_of_a_dialogue_is_no_result() -> None:
    class Broken(Says):
        def heard(self, data: bytes) -> Step:
            raise ZeroDivisionError

    before = descriptors()
    with pytest.raises(ZeroDivisionError):
        talk_with(answers(b"world\n"), Broken())
    assert descriptors() <= before


def test_outcome_never_comes_from_within_begin(runner: asyncio.Runner) -> None:
    """Also where the kernel refuses at once: nothing connects to a broadcast address."""
    outcomes: list[Outcome] = []

    async def story() -> None:
        engine = Engine()
        check = Check(Endpoint(ip_address("255.255.255.255"), 80), TcpProbe(), Timing())
        engine.begin(check, TCP, None, lambda outcome, _: outcomes.append(outcome))
        assert outcomes == []
        await asyncio.sleep(0.01)
        engine.close()

    runner.run(story())
    [outcome] = outcomes
    assert isinstance(outcome, ProbeResult)
    assert not outcome.ok
    assert outcome.errno in {errno.ENETUNREACH, errno.EACCES}


def test_cancelled_attempt_has_no_outcome_and_leaves_nothing_open(runner: asyncio.Runner) -> None:
    outcomes: list[Outcome] = []

    async def story(port: int) -> None:
        before = descriptors()
        engine = Engine()
        attempts = [
            engine.begin(a_check(where, 0.05), Says(), None, lambda outcome, _: outcomes.append(outcome))
            for where in (port, free_port(), free_port())
        ]
        for attempt in attempts:
            attempt.cancel()
        await asyncio.sleep(0.1)
        engine.close()
        assert descriptors() <= before

    with full_backlog() as port:
        runner.run(story(port))
    assert outcomes == []


def test_outcome_that_is_not_taken_in_harms_no_other(runner: asyncio.Runner, caplog: pytest.LogCaptureFixture) -> None:
    outcomes: list[Outcome] = []

    def refuses(outcome: Outcome, now: float) -> None:
        raise ZeroDivisionError

    async def story(port: int) -> None:
        engine = Engine()
        engine.begin(a_check(port), Says(), None, refuses)
        engine.begin(a_check(port), Says(), None, lambda outcome, _: outcomes.append(outcome))
        while not outcomes:  # noqa: ASYNC110 -- no event tells of it
            await asyncio.sleep(0.001)
        engine.close()

    with listening(answers(b"world\n")) as port:
        runner.run(story(port))
    assert [record.message for record in caplog.records] == ["the outcome of a probe was not taken in"]


def time_waits(port: int) -> int:
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    return sum(f":{port:04X}" in line.split()[2] and line.split()[3] == "06" for line in lines)


def test_sockets_serve_again_and_nothing_of_one_conversation_reaches_the_next(runner: asyncio.Runner) -> None:
    """Two peers that say different things, and one that refuses, through a handful of sockets."""

    async def story(good: int, bad: int) -> None:
        engine = Engine()
        before = descriptors()
        refused = free_port()
        for _ in range(50):
            futures = []
            for port in (good, bad, refused):
                future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
                engine.begin(a_check(port), Says(), None, lambda outcome, _, to=future: to.set_result(outcome))  # type: ignore[misc]
                futures.append(future)
            results = [result for result in await asyncio.gather(*futures) if isinstance(result, ProbeResult)]
            assert [result.output for result in results] == [b"world\n", b"other\n", b""]
            assert [result.reason for result in results] == ["said so", "it ended", "connection refused"]
            async with asyncio.timeout(5):  # until the peers have closed theirs
                while descriptors() - before > 3:  # noqa: ASYNC110 -- no event tells of it
                    await asyncio.sleep(0.001)
        engine.close()

    def other(peer: socket.socket) -> None:
        peer.recv(100)
        peer.sendall(b"other\n")
        peer.shutdown(socket.SHUT_WR)
        waits(peer)

    with listening(answers(b"world\n")) as good, listening(other) as bad:
        runner.run(story(good, bad))
        assert time_waits(good) == time_waits(bad) == 0


def test_attempts_can_be_begun_from_an_outcome(runner: asyncio.Runner) -> None:
    outcomes: list[Outcome] = []

    async def story(port: int) -> None:
        engine = Engine()
        over = asyncio.Event()

        def again(outcome: Outcome, now: float) -> None:
            outcomes.append(outcome)
            if len(outcomes) == 300:
                over.set()
            elif len(outcomes) < 300:
                engine.begin(a_check(port), TCP, None, again, now)

        for _ in range(7):
            engine.begin(a_check(port), TCP, None, again)
        await asyncio.wait_for(over.wait(), 10)
        engine.close()

    with listening(waits) as port:
        runner.run(story(port))
    assert all(isinstance(outcome, ProbeResult) and outcome.ok for outcome in outcomes)


def test_one_of_many_deadlines_is_met_by_each() -> None:
    outcomes: list[Outcome] = []

    async def story(port: int) -> None:
        engine = Engine()
        for n in range(20):
            engine.begin(a_check(port, 0.05 + 0.01 * n), TCP, None, lambda outcome, _: outcomes.append(outcome))
        while len(outcomes) < 20:  # noqa: ASYNC110 -- no event tells of it
            await asyncio.sleep(0.001)
        engine.close()

    with full_backlog() as port:
        asyncio.run(story(port))
    for n, outcome in enumerate(outcomes):
        assert isinstance(outcome, ProbeResult)
        assert 0.05 + 0.01 * n <= outcome.duration_s + 0.001 < 0.3 + 0.01 * n
