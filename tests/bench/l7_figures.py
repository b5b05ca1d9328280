"""What `make bench-l7` makes of its samples: medians, ratios, and whether they are good enough.

One rule: a ratio is ours over theirs, and the median of the rounds' own ratios.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

OURS = "l7proxy"


@dataclass(frozen=True, slots=True)
class Answered:
    """What a load has seen. Times go from a request to the end of its answer."""

    requests: int
    requests_s: float
    p50_ms: float
    p99_ms: float
    errors: int
    bytes_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Taken:
    """What a stretch of time took. `proxy_s` is CPU time; `busy`, the share of a core in use."""

    seconds: float
    proxy_s: float
    proxy_core_busy: float
    load_core_busy: float

    @property
    def proxy(self) -> float:
        """The share of its core that the proxy had."""
        return self.proxy_s / self.seconds

    @property
    def others(self) -> float:
        """The share that others had: what else this machine does."""
        return max(0.0, self.proxy_core_busy - self.proxy)


@dataclass(frozen=True, slots=True)
class Sample:
    """One proxy in one round."""

    answered: Answered
    taken: Taken

    @property
    def cpu_us(self) -> float:
        """CPU time of the proxy a request."""
        return self.taken.proxy_s / max(1, self.answered.requests) * 1e6

    @property
    def cpu_us_mb(self) -> float:
        """CPU time of the proxy for 1,000,000 bytes."""
        return self.taken.proxy_s / max(1.0, self.answered.bytes_s * self.taken.seconds / 1e6) * 1e6


Found = Mapping[str, Sequence[Sample]]
"""A row's samples by proxy, as many of each as there were rounds."""
MEASURES: dict[str, Callable[[Sample], float]] = {
    "requests_s": lambda sample: sample.answered.requests_s,
    "cpu_us": lambda sample: sample.cpu_us,
    "p50_ms": lambda sample: sample.answered.p50_ms,
    "p99_ms": lambda sample: sample.answered.p99_ms,
    "mb_s": lambda sample: sample.answered.bytes_s / 1e6,
    "cpu_us_mb": lambda sample: sample.cpu_us_mb,
    "own": lambda sample: sample.taken.proxy,
    "others": lambda sample: sample.taken.others,
    "load": lambda sample: sample.taken.load_core_busy,
}
COMPARED = {
    "unique": {"": "requests_s", "cpu_": "cpu_us"},
    "sticky": {"": "requests_s", "cpu_": "cpu_us"},
    "tls": {"": "requests_s", "cpu_": "cpu_us"},
    "k100": {"": "requests_s", "cpu_": "cpu_us"},
    "m10": {"mb_s_": "mb_s", "cpu_": "cpu_us_mb"},
    "p99": {"": "p99_ms", "p50_": "p50_ms"},
    "p99_busy": {"": "p99_ms", "p50_": "p50_ms"},
}
"""By row: the measures whose ratio is told, by what stands before `vs_` in its name."""


@dataclass(frozen=True, slots=True)
class Aim:
    """A figure, and what it must and should be: at least so much, or (`most`) at most."""

    key: str
    what: str
    required: float
    aim: float
    most: bool = False

    def verdict(self, value: float) -> str:
        """
        >>> Aim("x_vs_y", "", 0.75, 1.0).verdict(0.8), Aim("x_vs_y", "", 1.5, 1.0, most=True).verdict(1.6)
        ('required met', 'MISSED')
        """
        sign = -1 if self.most else 1
        if sign * value >= sign * self.aim:
            return "aim met"
        return "required met" if sign * value >= sign * self.required else "MISSED"


AIMS = [
    Aim("unique_vs_haproxy", "1 KB, all heads different: requests/s, ours over HAProxy's", 0.75, 1.0),
    Aim("unique_vs_nginx", "  over nginx's", 0.75, 1.0),
    Aim("unique_vs_envoy", "  over Envoy's", 1.0, 2.0),
    Aim("unique_vs_traefik", "  over Traefik's", 1.0, 2.0),
    Aim("unique_vs_caddy", "  over Caddy's", 1.0, 2.0),
    Aim("sticky_vs_haproxy", "the same with sessions by cookie: requests/s, over HAProxy's", 0.75, 1.0),
    Aim("sticky_vs_nginx", "  over nginx's, which hashes a cookie", 0.75, 1.0),
    Aim("tls_vs_haproxy", "1 KB over TLS 1.3: requests/s, over HAProxy's", 0.5, 0.9),
    Aim("k100_vs_haproxy", "100 KB: requests/s, over HAProxy's with tuned buffers", 1.0, 1.1),
    Aim("k100_vs_nginx", "  over nginx's with tuned buffers", 1.0, 1.1),
    Aim("m10_cpu_vs_haproxy", "10 MB: CPU a MB, over HAProxy's with tuned buffers", 1.1, 0.9, most=True),
    Aim("p99_vs_haproxy", "open loop, half of the slowest's capacity: p99, over HAProxy's", 1.5, 1.0, most=True),
    Aim("p99_vs_nginx", "  over nginx's", 1.5, 1.0, most=True),
    Aim("routes_1000_vs_1", "1,000 routes over one, ours: CPU a request", 1.5, 1.1, most=True),
    Aim("idle_conn_kb", "memory of an idle connection, KB", 12.0, 6.0, most=True),
]


def quantile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least `share` of them do not exceed: what was measured, nothing in between.

    >>> quantile([3.0, 1.0, 2.0], 0.5), quantile([1.0, 2.0], 0.99)
    (2.0, 2.0)
    """
    if not samples:
        raise ValueError("there are no samples")
    return sorted(samples)[max(0, math.ceil(share * len(samples)) - 1)]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the rounds' own ratios.

    >>> ratio([2.0, 9.0, 8.0], [1.0, 3.0, 2.0])
    3.0
    """
    return median(our / their if their else math.nan for our, their in zip(ours, theirs, strict=True))


def figures(row: str, found: Found) -> dict[str, float]:
    """A row's figures, by the names that they have in the JSON: `ROW_MEASURE_PROXY` and `ROW_[MEASURE_]vs_PROXY`."""
    by: dict[str, float] = {}
    for name, samples in found.items():
        for measure, value in MEASURES.items():
            by[f"{row}_{measure}_{key(name)}"] = median(map(value, samples))
        by[f"{row}_errors_{key(name)}"] = sum(sample.answered.errors for sample in samples)
        if name == OURS or OURS not in found:
            continue
        for prefix, measure in COMPARED[row].items():
            value = MEASURES[measure]
            by[f"{row}_{prefix}vs_{key(name)}"] = ratio([*map(value, found[OURS])], [*map(value, samples)])
    return by


def key(name: str) -> str:
    return name.replace("-", "_")


def idle_figures(kb: Mapping[str, Sequence[tuple[int, int]]]) -> dict[str, float]:
    """Of (connections, memory in KB) of each proxy, with none, with few, with most: what one takes.

    The first may find room in what the proxy has of old, so `idle_conn_kb` is what those take that come after the few.

    >>> idle_figures({"l7proxy": [(0, 20000), (1000, 22000), (10000, 67000)]})
    {'idle_conn_kb': 5.0, 'idle_few_conn_kb': 2.0, 'idle_base_mb': 20.0, 'idle_connections': 10000}
    """
    by: dict[str, float] = {}
    for name, ((_, base), (few, with_few), (most, with_most)) in kb.items():
        end = "" if name == OURS else f"_{key(name)}"
        by[f"idle_conn_kb{end}"] = (with_most - with_few) / (most - few)
        by[f"idle_few_conn_kb{end}"] = (with_few - base) / few
        by[f"idle_base_mb{end}"] = base / 1000
        by[f"idle_connections{end}"] = most
    return by


def is_held_back(row: str, name: str, by: Mapping[str, float]) -> bool:
    """In a closed loop a proxy has its core to itself and fills it; where it did not, and the load's core was full,
    that one set the pace: then requests/s flatter the slower, and CPU a request says more."""
    own, load = by[f"{row}_own_{key(name)}"], by[f"{row}_load_{key(name)}"]
    return not row.startswith("p99") and own < 0.95 and load > 0.95


def row_lines(row: str, titles: Mapping[str, str], by: Mapping[str, float]) -> list[str]:
    """One row of the benchmark: a line for each proxy that was measured."""
    is_bulk = row == "m10"
    rate, cost = ("mb_s", "cpu_us_mb") if is_bulk else ("requests_s", "cpu_us")
    words = ("MB/s", "CPU us/MB") if is_bulk else ("requests/s", "CPU us each")
    first, second = (prefix for prefix in COMPARED[row])
    named = ("p99: ours/its", "p50: ours/its") if row.startswith("p99") else (f"{words[0]}: ours/its", "CPU: ours/its")
    lines = [
        f"  {'':17}{words[0]:>11}{words[1]:>13}{'p50 ms':>8}{'p99 ms':>8}{named[0]:>22}{named[1]:>15}  its core, load's"
    ]
    for name, title in titles.items():
        of = {measure: by.get(f"{row}_{measure}_{key(name)}", math.nan) for measure in MEASURES}
        if math.isnan(of["requests_s"]):
            continue
        compared = [by.get(f"{row}_{prefix}vs_{key(name)}") for prefix in (first, second)]
        told = [f"{value:.2f}" if value is not None else "" for value in compared]
        errors = int(by[f"{row}_errors_{key(name)}"])
        lines.append(
            f"  {title:17}{of[rate]:11.0f}{of[cost]:13.1f}{of['p50_ms']:8.2f}{of['p99_ms']:8.2f}"
            f"{told[0]:>22}{told[1]:>15}  {of['own']:8.0%}{of['load']:8.0%}"
            + (f"  {of['others']:.0%} of its core had others" if of["others"] > 0.05 else "")
            + ("  held back by the load" if is_held_back(row, name, by) else "")
            + (f"  {errors} ERRORS" if errors else "")
        )
    return lines


def verdicts(by: Mapping[str, float]) -> list[str]:
    """What was aimed for and what was found, one line each."""
    lines = [f"{'':66}{'found':>8}{'required':>10}{'aim':>6}"]
    for aim in AIMS:
        if aim.key in by:
            value = by[aim.key]
            lines.append(f"{aim.what:66}{value:8.2f}{aim.required:10.2f}{aim.aim:6.2f}  {aim.verdict(value)}")
        else:
            lines.append(f"{aim.what:66}{'':8}{aim.required:10.2f}{aim.aim:6.2f}  not measured")
    return lines


def in_json(by: Mapping[str, float]) -> dict[str, float | None]:
    """Every aim has its key there, null if it was not measured."""
    found = {name: (None if math.isnan(value) else round(value, 4)) for name, value in by.items()}
    return {**{aim.key: None for aim in AIMS}, **found}
