"""What `director check` says of how long a failure and a recovery take to be seen."""

from __future__ import annotations

import pytest

from director.core.config import parse_config
from director.core.detection import detection

pytestmark = pytest.mark.unit

CHECK = "type: http, interval: 2s, timeout: 1s, fast_interval: 500ms, jitter: 0%, rise: 2, fall: 3"
TAKES = "a failure takes at most {} to be seen, a recovery 4.5s"


def said(check: str = CHECK, **keys: str) -> list[str]:
    chosen = {"address": "192.0.2.10", "port": "80", "forward": "dr", "check": f"{{{check}}}", **keys}
    body = "".join(f"    {key}: {value}\n" for key, value in chosen.items())
    reals = "    real_servers: {a: {address: 10.0.0.1}, b: {address: 10.0.0.2}}\n"
    return list(detection(parse_config(f"virtual_servers:\n  web:\n{body}{reals}", "f").virtual_servers[0]))


@pytest.mark.parametrize(
    ("check", "keys", "line"),
    [
        (CHECK, {}, f"http GET / (2 real servers): {TAKES.format('6s')}"),
        (
            CHECK,
            {"slow_start": "30s"},
            f"http GET / (2 real servers): {TAKES.format('6s')}, then 30s to its whole weight",
        ),
        (CHECK, {"slow_start": "30s", "scheduler": "mh"}, f"http GET / (2 real servers): {TAKES.format('6s')}"),
        (
            CHECK + ", flap: {}",
            {},
            f"http GET / (2 real servers): {TAKES.format('6s')}, and 5m more after 5 changes in 10m",
        ),
        # What fails through the VIP is followed by a look at the server itself: three timeouts more.
        (CHECK + ", via: vip", {}, f"http GET / through the VIP (2 real servers): {TAKES.format('9s')}"),
    ],
)
def test_how_long_a_change_takes_to_be_seen(check: str, keys: dict[str, str], line: str) -> None:
    assert said(check, **keys) == [line]


def test_each_part_of_a_combination_is_told() -> None:
    parts = "type: all, interval: 1s, of: [{type: tcp}, {type: http, interval: 4s}]"
    assert [line.partition(":")[0] for line in said(parts)] == ["tcp (2 real servers)", "http GET / (2 real servers)"]
