"""What `make bench-l7` makes of its samples, and that all proxies are told the same."""

from __future__ import annotations

import json
import math
import random
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from l7proxy.core.config import load_config
from l7proxy.core.routing import RouteTable
from tests.bench.l7 import listed
from tests.bench.l7_client import Asker, closed, requests
from tests.bench.l7_figures import (
    AIMS,
    Aim,
    Answered,
    Sample,
    Taken,
    figures,
    idle_figures,
    in_json,
    quantile,
    ratio,
    row_lines,
    verdicts,
)
from tests.bench.l7_load import heads, read_wrk, script
from tests.bench.l7_peers import PEERS, RULES, Setting
from tests.bench.l7_routes import MANY, configuration, routes_figures, routes_lines
from tests.bench.l7_routes import heads as heads_of_routes
from tests.bench.l7_rows import ROWS

pytestmark = pytest.mark.unit

PROMISED = {
    *("unique_vs_haproxy", "unique_vs_nginx", "tls_vs_haproxy", "k100_vs_haproxy", "k100_vs_nginx"),
    *("m10_cpu_vs_haproxy", "p99_vs_haproxy", "p99_vs_nginx", "idle_conn_kb"),
}


def sample(requests_s: float, proxy_s: float = 1.0, p99_ms: float = 1.0, load: float = 0.5, errors: int = 0) -> Sample:
    """Of one second."""
    answered = Answered(int(requests_s), requests_s, p99_ms / 2, p99_ms, errors, requests_s * 1e6)
    return Sample(answered, Taken(1.0, proxy_s, min(1.0, proxy_s + 0.1), load))


FOUND = {
    "l7proxy": [sample(40_000), sample(90_000), sample(60_000)],
    "haproxy": [sample(80_000), sample(60_000), sample(60_000, load=1.0)],
}


@pytest.mark.parametrize(
    ("samples", "share", "expected"),
    [
        ([5.0], 0.99, 5.0),
        ([float(n) for n in range(1, 101)], 0.99, 99.0),
        ([float(n) for n in range(1, 102)], 0.99, 100.0),
        ([3.0, 1.0], 0.0, 1.0),
    ],
)
def test_a_quantile_is_one_of_the_samples(samples: list[float], share: float, expected: float) -> None:
    assert quantile(samples, share) == expected


def test_a_ratio_is_the_median_of_the_rounds_own_and_ours_over_theirs() -> None:
    by = figures("unique", FOUND)
    assert by["unique_vs_haproxy"] == 1.0, "the rounds' own are 0.5, 1.5 and 1"
    assert (by["unique_requests_s_l7proxy"], by["unique_requests_s_haproxy"]) == (60_000, 60_000)
    assert by["unique_cpu_us_haproxy"] == pytest.approx(1e6 / 60_000)
    assert by["unique_cpu_vs_haproxy"] == pytest.approx(1.0)
    assert math.isnan(ratio([1.0], [0.0]))


def test_bulk_is_compared_by_the_cpu_time_of_a_megabyte() -> None:
    by = figures("m10", {"l7proxy": [sample(100, proxy_s=0.3)], "haproxy": [sample(50, proxy_s=0.1)]})
    assert by["m10_cpu_us_mb_l7proxy"] == pytest.approx(3000.0)
    assert by["m10_cpu_vs_haproxy"] == pytest.approx(1.5)
    assert by["m10_mb_s_vs_haproxy"] == pytest.approx(2.0)


def test_latency_is_compared_by_its_99th_percentile() -> None:
    by = figures("p99", {"l7proxy": [sample(10, p99_ms=3.0)], "nginx": [sample(10, p99_ms=2.0)]})
    assert (by["p99_vs_nginx"], by["p99_p50_vs_nginx"]) == (1.5, 1.5)


def test_without_ours_there_is_nothing_to_compare() -> None:
    by = figures("tls", {"haproxy": FOUND["haproxy"]})
    assert "tls_requests_s_haproxy" in by
    assert not [name for name in by if "_vs_" in name]


def test_memory_of_a_connection_is_that_of_those_after_the_first() -> None:
    by = idle_figures({"l7proxy": [(0, 40_000), (1000, 40_000), (9000, 80_000)], "nginx": [(0, 1), (1, 2), (2, 4)]})
    assert (by["idle_conn_kb"], by["idle_few_conn_kb"], by["idle_conn_kb_nginx"]) == (5.0, 0.0, 2.0)


def test_the_json_has_every_promised_key_and_null_where_nothing_was_measured() -> None:
    assert {aim.key for aim in AIMS} >= PROMISED
    told = json.loads(json.dumps(in_json({"unique_vs_haproxy": 0.812345, "tls_vs_haproxy": math.nan})))
    assert told.keys() >= PROMISED
    assert (told["unique_vs_haproxy"], told["tls_vs_haproxy"], told["p99_vs_nginx"]) == (0.8123, None, None)
    for row, key in {"unique": "unique_vs_haproxy", "k100": "k100_vs_haproxy", "m10": "m10_cpu_vs_haproxy"}.items():
        assert key in figures(row, FOUND)


@pytest.mark.parametrize(
    ("value", "most", "expected"),
    [
        (1.0, False, "aim met"),
        (0.99, False, "required met"),
        (0.74, False, "MISSED"),
        (0.74, True, "aim met"),
        (1.1, True, "MISSED"),
    ],
)
def test_what_misses_what_is_required_says_so(value: float, most: bool, expected: str) -> None:
    assert Aim("x", "", 1.0 if most else 0.75, 0.75 if most else 1.0, most).verdict(value) == expected


def test_every_aim_has_its_line() -> None:
    lines = verdicts({"unique_vs_haproxy": 0.5})
    assert len(lines) == len(AIMS) + 1
    assert lines[1].endswith("MISSED")
    assert lines[2].endswith("not measured")


def test_a_line_says_who_was_held_back_or_failed() -> None:
    found = {"l7proxy": [sample(10_000, 1.0, errors=3)], "haproxy": [sample(60_000, 0.8, load=1.0)]}
    titles = {name: peer.title for name, peer in PEERS.items()}
    _, ours, theirs = row_lines("unique", titles, figures("unique", found))
    assert "l7proxy" in ours
    assert "3 ERRORS" in ours
    assert "held back" not in ours
    assert theirs.endswith("held back by the load")


WRK = """\
Running 2s test @ http://127.0.0.1:1/
  Latency Distribution
     50%  846.00us
     75%    0.93ms
     90%    1.01ms
     99%    1.63ms
  130001 requests in 2.00s, 160.00MB read
  Socket errors: connect 0, read 2, write 0, timeout 1
  Non-2xx or 3xx responses: 4
Requests/sec:  65000.50
Transfer/sec:     80.00MB
"""


def test_what_wrk_says_is_read_and_what_went_wrong_is_counted() -> None:
    assert read_wrk(WRK) == Answered(130_001, 65_000.5, 0.846, 1.63, 7)
    with pytest.raises(ValueError, match="something else"):
        read_wrk("unable to connect")


def test_every_request_differs_and_takes_its_rule_in_turn() -> None:
    source = requests("k1", 1_000_000)
    sent = [next(source).decode() for _ in range(3 * len(RULES))]
    assert len({request.split("\r\n")[0] for request in sent}) == len(sent)
    assert len({request.partition("\r\n")[2] for request in sent}) == len(sent)
    for request in sent:
        assert request.endswith("\r\n\r\n")
        assert request.count("\r\n") == 13, "a request line, Host, ten more, and the end"
    assert {re.findall(r"GET (/app\d)/k1/.*Host: (\S+)", request, re.DOTALL)[0] for request in sent} == {
        (app, host) for host, app in RULES
    }


def test_wrk_sends_what_our_client_sends() -> None:
    text = script("k1", 41)
    assert text.count("[==[GET /app") == len(RULES)
    assert "local number, count = 41" in text
    head = heads("k1")[42 % len(RULES)]
    assert head.of(42).startswith(f"{head.before}42 HTTP/1.1\r\nHost: ")
    assert "\r" not in text, "a line break is written as an escape in Lua"


@pytest.mark.parametrize("name", PEERS)
def test_each_is_told_all_rules_and_both_origins(name: str, tmp_path: Path) -> None:
    for certificate in (None, Path("/certificate.pem")):
        command = PEERS[name].set_up("/program", Setting(tmp_path, 8080, (9001, 9002), certificate, 200_000))
        assert command.words[0] == "/program"
        text = "".join(path.read_text() for path in tmp_path.iterdir())
        for part in ("8080", "9001", "9002", *{host for host, _ in RULES}, *{app for _, app in RULES}):
            assert part in text, part
        assert ("/certificate.pem" in text) == (certificate is not None)


def test_l7proxy_s_configuration_is_good(tmp_path: Path) -> None:
    PEERS["l7proxy"].set_up("/program", Setting(tmp_path, 8080, (9001, 9002)))
    config = load_config((tmp_path / "l7proxy.yaml").read_text(), "l7proxy.yaml")
    assert len(config.routes) == len(RULES)


def test_a_name_that_is_not_known_is_refused() -> None:
    assert listed("tls,idle", list(ROWS), "row") == ["tls", "idle"]
    with pytest.raises(SystemExit, match="'tsl' is no row: choose from unique,sticky,tls,k100,m10,p99,routes,idle"):
        listed("tsl", list(ROWS), "row")


def test_every_request_of_the_row_routes_takes_a_route_of_its_own() -> None:
    config = load_config(configuration(8080, (9001,), MANY), "routes.yaml")
    assert len(config.routes) == MANY
    table = RouteTable(config.routes)
    taken = {
        found.place
        for head in heads_of_routes()
        for asked in [re.findall(r"GET (/[^?]*).*Host: (\S+)", head.of(1), re.DOTALL)[0]]
        if (found := table.find(asked[1], asked[0])) is not None
    }
    assert len(taken) == MANY
    assert load_config(configuration(8080, (9001,), 1), "routes.yaml").routes[0].path.text == "/"


def test_a_thousand_routes_are_compared_round_by_round() -> None:
    by = routes_figures({"1": [sample(100), sample(50)], "1000": [sample(50), sample(40)]})
    assert by["routes_1000_vs_1"] == pytest.approx(1.625), "the rounds' own are 2 and 1.25"
    assert by["routes_1000_vs_1_rate"] == pytest.approx(1.625)
    assert len(routes_lines(by)) == 4


@pytest.fixture
def server() -> Iterator[int]:
    """Answers each request in pieces of random sizes: a body of as many bytes as the request's kind says."""
    listener = socket.create_server(("127.0.0.1", 0))
    chance = random.Random(1)  # noqa: S311 - nothing here is secret

    def serve(peer: socket.socket) -> None:
        with peer, suppress(OSError):
            while request := peer.recv(65536):
                size = 150_000 if b"/k100/" in request else 10
                answer = b"HTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: %d\r\n\r\n" % size + b"y" * size
                while answer:
                    count = chance.randint(1, 60_000)
                    peer.sendall(answer[:count])
                    answer = answer[count:]

    def accept() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(peer,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


def test_our_client_counts_every_byte_of_whole_answers(server: int) -> None:
    told = json.loads(closed(server, "k100", 2, 0.3, 0))
    assert told["errors"] == 0
    assert told["requests"] > 0
    assert 150_000 <= told["bytes_s"] / told["requests_s"] < 3 * 151_000, "what has begun at the end counts as bytes"


def test_an_answer_that_breaks_off_or_is_no_200_is_an_error() -> None:
    for answer, problem in (
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nxy", ConnectionError),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", ValueError),
    ):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            asker = Asker(listener.getsockname()[1])
            peer, _ = listener.accept()
            asker.ask(b"GET / HTTP/1.1\r\n\r\n")
            peer.sendall(answer)
            peer.recv(100)
            peer.close()
            with pytest.raises(problem):
                any(asker.hear()[1] for _ in range(3))
            asker.socket.close()
