"""What `make bench-health` makes of its samples."""

from __future__ import annotations

import pytest

from director.core.config import parse_config
from director.kit.checks.check import leaves
from tests.bench.health import SERVERS_ON_HOST, figures, quantile, table
from tests.bench.health_subjects import DIRECTOR, director_text, keepalived_text

pytestmark = pytest.mark.unit

ON_HOST = {"on_time_pct": 99.5, "rss_mb": 60.0, "core_pct": 28.0, "up": float(SERVERS_ON_HOST)}


def cost(cpu_s: float, probes: float) -> dict[str, float]:
    return {"cpu_s": cpu_s, "probes": probes, "rss_mb": 5.0}


FOUND = {
    "one": {"director": [1.0, 2.0, 1.5], "sentinel": [0.06, 0.05, 0.2], "keepalived": [1.6, 1.2, 1.4]},
    "crowd": {kind: [[0.5, 2.0], [2.2, 0.1]] for kind in ("director", "sentinel", "keepalived")},
    "cost": {
        "keepalived_tcp": [cost(1.0, 1000), cost(4.0, 2000)],
        "tcp": [cost(3.0, 1000), cost(2.0, 2000)],
        "keepalived_http": [cost(1.0, 1000), cost(1.0, 1000)],
        "http": [cost(0.5, 500), cost(1.0, 1000)],
        "http_kept": [cost(0.5, 1000), cost(0.5, 1000)],
    },
}


@pytest.mark.parametrize(
    ("samples", "share", "expected"),
    [
        ([5.0], 0.99, 5.0),
        ([float(n) for n in range(1, 101)], 0.99, 99.0),
        ([float(n) for n in range(1, 102)], 0.99, 100.0),
        ([float(n) for n in range(40, 0, -1)], 0.99, 40.0),
        ([3.0, 1.0], 0.0, 1.0),
    ],
)
def test_a_quantile_is_one_of_the_samples(samples: list[float], share: float, expected: float) -> None:
    assert quantile(samples, share) == expected


def test_figures_are_medians_of_what_was_measured_and_ratios_are_ours_over_keepalived_s() -> None:
    by = figures(FOUND, ON_HOST)
    assert (by["failover_p50_s"], by["failover_p99_s"], by["keepalived_failover_p50_s"]) == (1.5, 2.0, 1.4)
    assert by["sentinel_failover_p50_s"] == 0.06
    assert by["failover_last_of_100_s"] == pytest.approx(2.1)
    assert by["cpu_ratio_tcp"] == pytest.approx(1.75), "the rounds' own ratios are 3 and 0.5"
    assert (by["cpu_ratio_http"], by["cpu_ratio_http_kept"]) == (1.0, 0.5)
    assert (by["cpu_s_tcp"], by["on_time_pct"], by["rss_mb"]) == (2.0, 99.5, 60.0)


def test_what_misses_its_aim_says_so() -> None:
    lines = {str(row).split("  ")[0]: str(row) for row in table(figures(FOUND, ON_HOST), ON_HOST)}
    assert lines["from SIGKILL to weight 0, one of 10, median"].endswith("MISSED"), "1.5 s beside 1.4 s"
    assert lines["CPU time of 1,000 TCP probes"].endswith("met")
    few = table(figures(FOUND, ON_HOST), {**ON_HOST, "up": SERVERS_ON_HOST - 1})
    assert [row.met for row in few if "probed once a second" in row.what] == [False]


def test_both_are_told_the_same_intervals_timeouts_and_retries() -> None:
    config = parse_config(director_text(DIRECTOR, ["10.77.0.1", "10.77.0.2"]), "bench.yaml")
    (virtual,) = config.virtual_servers
    (check,) = leaves(virtual.real_servers[1].check)
    timing = check.timing
    assert (timing.interval_s, timing.fast_interval_s, timing.timeout_s, timing.fall) == (1.0, 1.0, 1.0, 2)
    text = keepalived_text(DIRECTOR, ["10.77.0.1", "10.77.0.2"])
    for line in (" delay_loop 1\n", " connect_timeout 1\n", " retry 1\n", " delay_before_retry 1\n"):
        assert line in text
    assert text.count("inhibit_on_failure") == len(virtual.real_servers)
    assert text.count("{") == text.count("}")
