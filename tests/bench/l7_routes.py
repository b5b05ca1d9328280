"""The row `routes` of `make bench-l7`: what a thousand routes cost beside one.

One rule: both proxies are ours, alike but for their routes, and get the same requests: each is for another one of the
thousand routes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from tests.bench.l7_figures import Answered, Sample, ratio
from tests.bench.l7_load import BROWSER, Head, origin, script_of
from tests.bench.l7_measure import LOAD_CORE, PROXY_CORE, Meter, free_ports, pin, running

MANY = 1000
ONE, THOUSAND = "1", str(MANY)

KINDS: tuple[Callable[[int], tuple[str, str, str, str]], ...] = (
    lambda number: (f"exact{number}.example.org", "/", f"exact{number}.example.org", "/cart"),
    lambda number: (f"'*.below{number}.example.org'", "/", f"eu.below{number}.example.org", "/cart"),
    lambda number: ("big.example.org", f"/prefix{number}/", "big.example.org", f"/prefix{number}/a/b"),
    lambda number: ("big.example.org", f"'= /exact{number}/item'", "big.example.org", f"/exact{number}/item"),
    lambda number: ("big.example.org", f"'~ ^/regex{number}/(?P<id>[0-9]+)$'", "big.example.org", f"/regex{number}/7"),
)
"""By number: a route's host and path, and those of a request that takes it."""


def of_kind(number: int) -> tuple[str, str, str, str]:
    return KINDS[number % len(KINDS)](number)


def configuration(port: int, origins: Sequence[int], count: int) -> str:
    """With `count` routes; where that is one, it is for everything."""
    routes = [
        f"  - {{match: {{host: {host}, path: {path}}}, upstream: origin}}"
        for number in range(count if count > 1 else 0)
        for host, path, _, _ in [of_kind(number)]
    ] or ["  - {upstream: origin}"]
    backends = "\n".join(f"      o{each}: {{address: '127.0.0.1:{each}'}}" for each in origins)
    return f"""\
listeners: {{web: {{bind: '127.0.0.1:{port}'}}}}
routes:
{chr(10).join(routes)}
upstreams:
  origin:
    timeouts: {{keepalive: 60s}}
    backends:
{backends}
timeouts: {{keepalive: 1h}}
access_log: true
"""


def heads() -> list[Head]:
    """One for each of the thousand."""
    fixed = "".join(f"{name}: {value}\r\n" for name, value in BROWSER)
    return [
        Head(
            f"GET {path}?id=",
            f" HTTP/1.1\r\nHost: {host}\r\n{fixed}Referer: https://{host}{path}?id=",
            "\r\nCookie: consent=yes; session=8f14e45fceea167a5a36dedd4bea2543",
            "\r\n\r\n",
        )
        for _, _, host, path in map(of_kind, range(MANY))
    ]


@contextmanager
def both(folder: Path) -> Iterator[dict[str, tuple[int, int]]]:
    """The origin and both proxies: port and process id by name."""
    with ExitStack() as stack:
        first, second, *ports = free_ports(4)
        started = [*pin(LOAD_CORE), *origin(folder, (first, second))]
        stack.enter_context(running(started, first, folder / "origin.err"))
        up = {}
        for name, port in zip((ONE, THOUSAND), ports, strict=True):
            path = folder / f"routes-{name}.yaml"
            path.write_text(configuration(port, (first, second), int(name)))
            words = [*pin(PROXY_CORE), sys.executable, "-m", "l7proxy", "run", str(path), "--log-level", "WARNING"]
            up[name] = port, stack.enter_context(running(words, port, folder / f"routes-{name}.err"))
        yield up


def sampled(
    up: Mapping[str, tuple[int, int]],
    count: int,
    seconds: float,
    load: Callable[[int, float, str], Sample],
    tell: Callable[[str], None],
) -> dict[str, list[Sample]]:
    """After a turn that does not count, both take turns; who begins changes with each round."""
    found: dict[str, list[Sample]] = {name: [] for name in up}
    for name in up:
        load(up[name][0], 1.0, name)
    for number in range(count):
        for name in list(up) if number % 2 == 0 else list(up)[::-1]:
            sample = load(up[name][0], seconds, name)
            found[name].append(sample)
            tell(
                f"{number + 1} of {count}: {name} routes: {sample.answered.requests_s:.0f} requests/s, "
                f"{sample.cpu_us:.1f} us CPU each"
            )
    return found


def measured(up: Mapping[str, tuple[int, int]], ask: Callable[[int, float], Answered]) -> Callable[..., Sample]:
    """A load that also looks at what the proxy took."""

    def load(port: int, seconds: float, name: str) -> Sample:
        meter = Meter(up[name][1])
        answered = ask(port, seconds)
        return Sample(answered, meter.taken())

    return load


def routes_figures(found: Mapping[str, Sequence[Sample]]) -> dict[str, float]:
    """`routes_1000_vs_1` is the cost of a request in CPU time, a thousand's over one's: the median of the rounds' own.

    `routes_1000_vs_1_rate` is the same of requests/s, one's over a thousand's.
    """
    by: dict[str, float] = {}
    for name, samples in found.items():
        by[f"routes_requests_s_{name}"] = median(each.answered.requests_s for each in samples)
        by[f"routes_cpu_us_{name}"] = median(each.cpu_us for each in samples)
        by[f"routes_errors_{name}"] = sum(each.answered.errors for each in samples)
    many, one = found[THOUSAND], found[ONE]
    by["routes_1000_vs_1"] = ratio([each.cpu_us for each in many], [each.cpu_us for each in one])
    by["routes_1000_vs_1_rate"] = ratio(
        [each.answered.requests_s for each in one], [each.answered.requests_s for each in many]
    )
    return by


def routes_lines(by: Mapping[str, float]) -> list[str]:
    lines = [f"  {'routes':>10}{'requests/s':>12}{'CPU us each':>13}"]
    for name in (ONE, THOUSAND):
        errors = int(by[f"routes_errors_{name}"])
        lines.append(
            f"  {name:>10}{by[f'routes_requests_s_{name}']:12.0f}{by[f'routes_cpu_us_{name}']:13.1f}"
            + (f"  {errors} ERRORS" if errors else "")
        )
    return [*lines, f"  a thousand over one: {by['routes_1000_vs_1']:.3f} in CPU time a request"]


def script(first: int) -> str:
    return script_of(heads(), first)
