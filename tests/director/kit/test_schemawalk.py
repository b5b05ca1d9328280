"""Every wrong value at every key gives a sentence for an operator, and never a library's words."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from director.core.config import parse_config
from director.kit.configfile import InvalidConfigError, Section, load
from director.kit.schemawalk import nearest, suggestion
from director.kit.yamltree import Path
from l7proxy.core.config import load_config

pytestmark = pytest.mark.unit

TYPES = (
    "tcp, http, https, udp, dns, icmp, script, file, smtp, imap, pop3, redis, postgresql, mysql, agent, all, any, none"
)

CHECK = {
    "type": "http",
    "path": "/",
    "host": "h",
    "interval": "2s",
    "rise": 1,
    "expect": {"status": [200], "body": "x"},
}
HTTPS = {"type": "https", "server_name": "n", "verify": False, "expect": {"status": "200-299"}}
DIRECTOR: dict[str, Any] = {
    "defaults": {"check": {"type": "tcp", "timeout": "1s", "port": 1, "fall": 2}, "interface": "eth0"},
    "drift_interval": "5s",
    "virtual_servers": {
        "web": {
            "address": "192.0.2.1",
            "port": 80,
            "protocol": "tcp",
            "forward": "nat",
            "scheduler": "mh",
            "scheduler_flags": ["mh-port"],
            "persistence": {"timeout": "5m", "prefix": 24},
            "interface": "eth0",
            "check": CHECK,
            "real_servers": {"a": {"address": "10.0.0.1", "port": 81, "weight": 5, "check": HTTPS}},
        },
        "mark": {
            "fwmark": 7,
            "family": "ipv4",
            "traffic": [{"address": ["192.0.2.2"], "port": [80, "90-99"], "protocol": "udp"}],
            "forward": "tun",
            "tunnel": {"type": "gue", "port": 6080, "checksum": "full"},
            "one_packet": True,
            "on_drift": "report",
            "real_servers": {"a": {"address": "10.0.0.1", "state": "drained", "upper_threshold": 9}},
        },
    },
    "exclusive": True,
    "timeouts": {"tcp": "5m"},
    "sync": {"backup": {"interface": "eth0", "group": "224.0.0.81", "id": 3}},
}
PROXY: dict[str, Any] = {
    "listeners": {"http": {"bind": ["0.0.0.0:80"], "trusted_proxies": ["10.0.0.0/8"]}},
    "routes": [{"name": "n", "match": {"host": ["a.example"], "path": "/x"}, "upstream": "u"}],
    "upstreams": {
        "u": {
            "balance": "round_robin",
            "check": CHECK,
            "timeouts": {"connect": "1s"},
            "backends": {"a": {"address": "10.0.0.1:80", "weight": 1}},
        }
    },
    "defaults": {"check": {"type": "tcp"}},
    "timeouts": {"head": "1s"},
    "limits": {"connections": 5, "head_bytes": 2048},
    "admin": {"bind": "127.0.0.1:9"},
    "access_log": True,
}

WRONG: list[object] = [
    None,
    True,
    0,
    -1,
    70_000,
    10**30,
    1.5,
    "",
    "x",
    "qq qq",
    "\u2028",
    "é",
    "5",
    "y" * 300,
    [],
    [1],
    [None],
    {},
]
WRONG += [{"qq": 1}, {"type": "qq"}, {"type": None}, {"type": []}, {"type": "tcp", "tcp": 1, "interval": 1}, [[]], [{}]]

LIBRARY = re.compile(
    r"Input|should be|[Uu]nion|Field required|Extra inputs|Value error|Assertion|not permitted|pydantic"
    r"|\bNone\b|\bTrue\b|\bFalse\b|function|\bdict|\bstr\b|look up what this key takes"
)


def _paths(data: object, path: Path = ()) -> Iterator[Path]:
    yield path
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _paths(value, (*path, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _paths(value, (*path, index))


def _replaced(data: dict[str, Any], path: Path, value: object) -> object:
    if not path:
        return value
    result: Any = copy.deepcopy(data)
    part = result
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return result


def _told(parse: Callable[[str, str], object], data: object) -> list[str]:
    try:
        parse(json.dumps(data), "f")
    except InvalidConfigError as error:
        return [problem.message for problem in error.problems]
    return []


@pytest.mark.parametrize(("parse", "good"), [(parse_config, DIRECTOR), (load_config, PROXY)])
def test_the_files_to_be_spoilt_are_good(parse: Callable[[str, str], object], good: dict[str, Any]) -> None:
    assert _told(parse, good) == []


CASES: list[tuple[Callable[[str, str], object], dict[str, Any], Path]]
CASES = [(parse_config, DIRECTOR, path) for path in _paths(DIRECTOR)]
CASES += [(load_config, PROXY, path) for path in _paths(PROXY)]


@pytest.mark.parametrize(("parse", "good", "path"), CASES, ids=range(len(CASES)))
def test_wrong_value_is_told_in_the_operators_words(
    parse: Callable[[str, str], object], good: dict[str, Any], path: Path
) -> None:
    refused = 0
    for value in WRONG:
        told = _told(parse, _replaced(good, path, value))
        refused += bool(told)
        for message in told:
            assert not LIBRARY.search(message), (value, message)
            assert message.endswith(("?", "'")) or ": " in message, (value, message)
            assert len(message) < 500
    assert refused >= 10


@pytest.mark.parametrize(("parse", "good"), [(parse_config, DIRECTOR), (load_config, PROXY)])
def test_key_that_goes_missing_or_comes_in_addition_is_named(
    parse: Callable[[str, str], object], good: dict[str, Any]
) -> None:
    for path in _paths(good):
        spoilt: Any = copy.deepcopy(good)
        part = spoilt
        for key in path:
            part = part[key]
        if isinstance(part, dict):
            part["qqq qqq"] = 5
            told = _told(parse, spoilt)
            assert any("'qqq qqq'" in message for message in told), path
            assert not any(LIBRARY.search(message) for message in told), told
            for key in set(part) - {"qqq qqq"}:
                without: Any = copy.deepcopy(good)
                inner = without
                for step in path:
                    inner = inner[step]
                del inner[key]
                for message in _told(parse, without):
                    assert not LIBRARY.search(message), message


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("virtual_servers", "web", "check", "port"), 70_000, "70000 is too large: use a number from 1 to 65535"),
        (("virtual_servers", "web", "check", "port"), 0, "0 is too small: use a number from 1 to 65535"),
        (("virtual_servers", "web", "port"), "80", "'80' is text: write it without quotes"),
        (
            ("virtual_servers", "web", "check", "port"),
            "http",
            "'http' is not a whole number: write one from 1 to 65535",
        ),
        (("virtual_servers", "web", "check", "port"), [80], "a list cannot stand here: write a whole number"),
        (("virtual_servers", "web", "forward"), None, "has no value: give it one"),
        (("defaults", "interface"), 5, "5 is not text: put it in quotes"),
        (("virtual_servers", "web", "scheduler"), "wcl", "'wcl' is not known: did you mean 'wlc'?"),
        (("virtual_servers", "web", "protocol"), "quic", "'quic' is not known: use one of tcp, udp, sctp"),
        (("virtual_servers", "web", "persistence"), "5m", "'5m' cannot stand here: write a mapping (key: value)"),
        (("virtual_servers", "web", "scheduler_flags"), "mh-port", "'mh-port' cannot stand here: write a list"),
        (("defaults", "check"), "tcp", "'tcp' cannot stand here alone: write {type: tcp}"),
        (
            ("defaults", "check"),
            {},
            f"key 'type' is missing: add it, with one of {TYPES}",
        ),
        (
            ("defaults", "check"),
            {"tpye": "tcp"},
            f"key 'type' is missing: add it in place of 'tpye', with one of {TYPES}",
        ),
        (("defaults", "check", "type"), "htps", "'htps' is not known: did you mean 'https'?"),
        (("defaults", "check", "fall"), 101, "101 is too large: use a number from 1 to 100"),
        (("defaults", "check", "timeout"), True, "true is not a duration: write a number and ms, s, m, h or d"),
        (("virtual_servers", "web", "check", "expect", "status"), [], "has too few entries: it needs at least one"),
        (("virtual_servers", "web", "check", "expect", "status"), 99, "99 is not a status: write one such as 200"),
        (("virtual_servers", "web", "check", "tls"), 1, "unknown key 'tls': use one of interval, timeout"),
    ],
)
def test_sentence(path: Path, value: object, message: str) -> None:
    told = _told(parse_config, _replaced(DIRECTOR, path, value))
    assert len(told) == 1
    assert told[0].startswith(f"{'.'.join(map(str, path))}: {message}"), told


class _Bounds(Section):
    a: Annotated[int, Field(ge=1)] = 1
    b: Annotated[int, Field(le=9)] | None = None
    c: Annotated[str, Field(min_length=1)] = "x"
    d: Annotated[tuple[int, ...], Field(max_length=1)] = ()
    e: float = 1.0
    f: int | str = 1
    g: Annotated[str, Field(pattern="^x$")] = "x"
    h: dict[Annotated[str, Field(pattern="^x$")], int] = Field(default_factory=dict)
    i: int | tuple[str, ...] = 1
    j: Annotated[bool, Field(strict=True)] | Literal["none", "combined"] = True
    k: Literal["auto"] | Annotated[int, Field(strict=True, ge=1, le=9)] = 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 0", "a: 0 is too small: use a number of at least 1"),
        ("b: 10", "b: 10 is too large: use a number of at most 9"),
        ("c: ''", "c: '' is too short: use at least one character"),
        ("d: [1, 2]", "d: has too many entries: use at most 1"),
        ("e: x", "e: 'x' is not a number"),
        ("e: [x]", "e: a list cannot stand here: write a number"),
        ("f: []", "f: a list cannot stand here: write a whole number or text"),
        ("g: y", "g: 'y' cannot be used here: it must match ^x$"),
        ("h: {y: 1}", "h.y: 'y' cannot be used here: it must match ^x$"),
        ("h: {x: z}", "h.x: 'z' is not a whole number: write one"),
        ("j: apache", "j: 'apache' is not right: use none, combined, true or false"),
        ("j: []", "j: a list cannot stand here: use none, combined, true or false"),
        ("j: combind", "j: 'combind' is not known: did you mean 'combined'?"),
        ("k: 0", "k: 0 is not right: use auto or a whole number from 1 to 9"),
        ("k: 10", "k: 10 is not right: use auto or a whole number from 1 to 9"),
        ("k: many", "k: 'many' is not right: use auto or a whole number from 1 to 9"),
        ("k: '2'", "k: '2' is not right: use auto or a whole number from 1 to 9"),
        ("i: {}", "i: a mapping cannot stand here: write a whole number or a list"),
    ],
)
def test_bound_or_branch_is_named(text: str, message: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        load(text, "f", _Bounds)
    assert [problem.message for problem in caught.value.problems] == [message]


def test_nearest_spelling_is_suggested_and_else_all() -> None:
    assert suggestion("PORT", ["port", "address"]) == ": did you mean 'port'?"
    assert suggestion("qq", ["port", "address"]) == ": use one of port, address"
    assert suggestion("qq", []) == ": remove it"
    assert nearest("x" * 1_000_000, ["x" * 50]) == "x" * 50
