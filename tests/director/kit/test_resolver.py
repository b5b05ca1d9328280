"""Names that are asked for in threads: several at once, none waited for too long, nothing left over."""

from __future__ import annotations

import threading
import time

import pytest

from director.kit.net import Answer, parse_unicast
from director.kit.resolver import NO_ANSWER, THREADS, Resolver, ask_host

pytestmark = pytest.mark.unit

HERE = (parse_unicast("10.0.0.1"),)
LONG_S = 20.0


class Server:
    """Answers when `open` is set, and counts who asks at once."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.asked: list[str] = []
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()

    def ask(self, host: str) -> Answer:
        with self._lock:
            self.asked.append(host)
            self._now += 1
            self.most = max(self.most, self._now)
        assert self.open.wait(LONG_S)
        with self._lock:
            self._now -= 1
        return HERE


def threads() -> int:
    return sum(thread.name == "resolver" for thread in threading.enumerate())


def settle(is_so: object) -> None:
    until_at = time.monotonic() + LONG_S
    while not (is_so() if callable(is_so) else is_so):
        assert time.monotonic() < until_at
        time.sleep(0.001)


def test_the_hosts_own_file_of_names_is_asked() -> None:
    assert parse_unicast("127.0.0.1") in ask_host("localhost")
    assert ask_host("10.0.0.7") == (parse_unicast("10.0.0.7"),)


@pytest.mark.parametrize("host", ["x" * 70 + ".invalid", "a..b", "ü" * 300, ""])
def test_what_cannot_be_a_name_has_a_reason(host: str) -> None:
    found = ask_host(host)
    assert isinstance(found, str) or host == ""
    assert found


def test_an_address_that_no_server_can_have_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    places = [(0, 0, 0, "", ("fe80::1", 0, 0, 2)), (0, 0, 0, "", ("224.0.0.1", 0))]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: places)
    assert ask_host("h") == "it has no address that a real server can have (fe80::1, 224.0.0.1)"


def test_many_names_are_asked_for_at_once_in_few_threads() -> None:
    server = Server()
    server.open.set()
    together = threading.Barrier(4)  # nobody goes on alone

    def ask(host: str) -> Answer:
        together.wait(LONG_S)
        return server.ask(host)

    hosts = [f"h{number}" for number in range(100)]
    assert Resolver(ask).look_up(dict.fromkeys(hosts, LONG_S)) == dict.fromkeys(hosts, HERE)
    assert sorted(server.asked) == sorted(hosts)
    assert server.most <= THREADS
    settle(lambda: threads() == 0)


def test_nobody_waits_longer_than_they_said_and_nothing_is_asked_twice_meanwhile() -> None:
    server = Server()
    resolver = Resolver(server.ask)
    hosts = dict.fromkeys((f"h{number}" for number in range(100)), 0.02)
    for _ in range(3):
        began = time.monotonic()
        assert resolver.look_up(hosts) == dict.fromkeys(hosts, NO_ANSWER)
        assert time.monotonic() - began < 5
        assert threads() <= THREADS
    assert len(server.asked) == THREADS, "those that hang are waited for, the others have left the queue"
    server.open.set()
    settle(lambda: threads() == 0)
    assert resolver.look_up({"h1": LONG_S}) == {"h1": HERE}


def test_each_name_has_its_own_patience() -> None:
    server = Server()
    resolver = Resolver(lambda host: server.ask(host) if host == "slow" else HERE)
    began = time.monotonic()
    assert resolver.look_up({"slow": 0.02, "quick": LONG_S}) == {"slow": NO_ANSWER, "quick": HERE}
    assert time.monotonic() - began < LONG_S / 2
    server.open.set()


def test_two_that_ask_for_one_name_share_the_answer() -> None:
    server = Server()
    resolver = Resolver(server.ask)
    found: list[dict[str, Answer]] = []
    asking = [threading.Thread(target=lambda: found.append(resolver.look_up({"h": LONG_S}))) for _ in range(5)]
    for thread in asking:
        thread.start()
    settle(lambda: server.asked == ["h"] and sum(resolver._waiting.values()) == 5)
    server.open.set()
    for thread in asking:
        thread.join(LONG_S)
    assert found == [{"h": HERE}] * 5
    assert server.asked == ["h"]
    assert not resolver._answers
    assert not resolver._waiting


def test_a_look_up_that_breaks_is_an_answer() -> None:
    def broken(host: str) -> Answer:
        raise RuntimeError(host)

    assert Resolver(broken).look_up({"h": LONG_S}) == {"h": "it cannot be looked up: RuntimeError('h')"}


def test_who_waits_goes_on_at_the_end() -> None:
    server = Server()
    resolver = Resolver(server.ask)
    threading.Timer(0.02, resolver.close).start()
    began = time.monotonic()
    assert resolver.look_up({"h": LONG_S}) == {"h": NO_ANSWER}
    assert resolver.look_up({"g": LONG_S}) == {"g": NO_ANSWER}
    assert time.monotonic() - began < LONG_S / 2
    assert server.asked == ["h"]
    server.open.set()
