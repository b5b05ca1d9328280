"""What a configuration file's reader promises: every problem, each in its place, and none that is not there."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from textwrap import dedent
from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, model_validator

from director.core.config import parse_config
from director.kit.configfile import MOST_WRONGS, Finding, InvalidConfigError, Section, load
from l7proxy.core.config import load_config

pytestmark = pytest.mark.unit


# A schema of every kind of key.


class _Tcp(Section):
    type: Literal["tcp"]
    port: Annotated[int, Field(strict=True, ge=1, le=65535)] | None = None


class _Http(Section):
    type: Literal["http"]
    path: str = "/"
    tls: bool = Field(False, strict=True)
    name: str | None = None

    @model_validator(mode="after")
    def _name_needs_tls(self) -> _Http:
        if self.name is not None and not self.tls:
            raise ValueError("name belongs to tls")
        return self


class _Server(Section):
    address: str
    port: Annotated[int, Field(strict=True, ge=1, le=65535)]
    protocol: Literal["tcp", "udp"] = "tcp"
    check: Annotated[_Tcp | _Http, Field(discriminator="type")] | None = None


class _Route(Section):
    to: str
    path: str = "/"


class _File(Section):
    servers: dict[str, _Server]
    routes: tuple[_Route, ...] = ()
    names: tuple[Annotated[str, Field(min_length=2, max_length=4)], ...] = ()


def _findings(file: _File) -> Iterator[Finding]:
    seen: dict[object, str] = {}
    for name, server in file.servers.items():
        first = seen.setdefault((server.address, server.port, server.protocol), name)
        if first != name:
            yield ("servers", name, "address"), f"the same as server {first}: change one"
    paths: dict[str, int] = {}
    for index, route in enumerate(file.routes):
        if route.to not in file.servers:
            yield ("routes", index, "to"), f"no server {route.to!r}: use one of {', '.join(file.servers)}"
        if paths.setdefault(route.path, index) != index:
            yield ("routes", index), f"the same path as routes.{paths[route.path]}: change one"


def _problems(text: str) -> list[str]:
    try:
        load(dedent(text).lstrip("\n"), "f", _File, _findings)
    except InvalidConfigError as error:
        found = error
    else:
        return []
    assert found.problems
    assert [*found.problems] == sorted(found.problems)
    return [line.removeprefix("f:") for line in found.lines()]


GOOD = """
servers:
  a: {address: x, port: 1, check: {type: tcp}}
  b: {address: x, port: 2, check: {type: http, tls: true, name: n}}
routes:
  - {to: a, path: /a}
  - {to: b}
"""


def test_file_without_problems_is_its_values() -> None:
    file = load(GOOD, "f", _File, _findings)
    assert file.servers["a"].check == _Tcp(type="tcp")
    assert [route.path for route in file.routes] == ["/a", "/"]
    assert load(GOOD, "g", _File) == file


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "~"])
def test_empty_file_says_what_it_needs(text: str) -> None:
    assert _problems(text) == ["1:1: the file is empty: it needs at least `servers:`"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[]", "1:1: a list cannot stand here: write a mapping (key: value)"),
        ("x", "1:1: 'x' cannot stand here: write a mapping (key: value)"),
        ("{}", "1:1: key 'servers' is missing: add it"),
        ("servers:", "1:9: servers: has no value: give it one"),
        ("servers: {}\nroutes:", "2:8: routes: has no value: give it one, or remove the key"),
        ("servers: {a}", "1:12: servers.a: has no value: give it one, or remove the key"),
        ("servers: {a: {address: x}}", "1:11: servers.a: key 'port' is missing: add it"),
        ("servers: {}\nrouts: []", "2:1: routs: unknown key 'routs': did you mean 'routes'?"),
        ("servers: {}\nqqq: 1", "2:1: qqq: unknown key 'qqq': use one of servers, routes, names"),
        ("servers: {}\nnames: x", "2:8: names: 'x' cannot stand here: write a list"),
        ("servers: {}\nnames: [x]", "2:9: names.0: 'x' is too short: use at least 2 characters"),
        ("servers: {}\nnames: [xxxxx]", "2:9: names.0: 'xxxxx' is too long: use at most 4 characters"),
        ("servers: {}\nnames: [xx, 80]", "2:13: names.1: 80 is not text: put it in quotes"),
        ("servers: {}\nnames: [[x]]", "2:9: names.0: a list cannot stand here: write text"),
        # One mistake, one line.
        (
            "servers: {a: {adress: x, port: 1}}",
            "1:15: servers.a.adress: unknown key 'adress': did you mean 'address'?",
        ),
        (
            "servers: {a: {address: !x y, port: 1}}",
            "1:24: tag !x is not supported: write a plain value",
        ),
        ("servers: !x {}", "1:10: tag !x is not supported: remove it"),
        (
            "servers: {a: {address: x, port: 1}, a: {port: 2}}",
            "1:37: servers.a: duplicate key 'a', first in line 1: remove one of them",
        ),
        (
            "servers: {a: {address: x, port: 1}, b: {address: x, port: 1, protcol: udp}}",
            "1:62: servers.b.protcol: unknown key 'protcol': did you mean 'protocol'?",
        ),
        (
            "servers: {a: {address: x, port: 1}, b: {address: x, port: 1, protocol: upd}}",
            "1:72: servers.b.protocol: 'upd' is not known: did you mean 'udp'?",
        ),
        (
            "servers: {a: {address: x, port: 0}}\nroutes: [{to: a}]",
            "1:33: servers.a.port: 0 is too small: use a number from 1 to 65535",
        ),
        (
            "servers: {c: &x {address: x, port: 0}, a: *x, b: *x}",
            "1:36: servers.c.port: 0 is too small: use a number from 1 to 65535",
        ),
        ('"a\\u2028b": 1\nservers: {}', "1:1: a\\u2028b: unknown key 'a\\u2028b': use one of servers, routes, names"),
    ],
)
def test_mistake_is_one_line(text: str, problem: str) -> None:
    assert _problems(text) == [problem]


def test_all_problems_come_at_once_in_the_files_order() -> None:
    assert _problems("""
        servers:
          a: {address: x, port: 80}
          b: {address: x, port: 80}
          c: {adress: y, port: 70000}
          c: {}
          d: {address: y, port: "80", check: {type: htp}}
          e: {address: y, port: 81, check: {type: http, tls: yes}}
        routes:
          - {to: a}
          - {path: /b}
          - {to: nobody, path: /c}
          - {to: a, path: /c}
          - {to: c, path: 5}
          - {to: d, path: /d}
        names: !x []
        other: 1
    """) == [
        "3:16: servers.b.address: the same as server a: change one",
        "4:7: servers.c.adress: unknown key 'adress': did you mean 'address'?",
        "4:24: servers.c.port: 70000 is too large: use a number from 1 to 65535",
        "5:3: servers.c: duplicate key 'c', first in line 4: remove one of them",
        "6:25: servers.d.port: '80' is text: write it without quotes",
        "6:45: servers.d.check.type: 'htp' is not known: did you mean 'http'?",
        "7:54: servers.e.check.tls: 'yes' is not right: use true or false",
        "10:5: routes.1: key 'to' is missing: add it",
        "11:10: routes.2.to: no server 'nobody': use one of a, b, e",
        "12:5: routes.3: the same path as routes.2: change one",
        "13:19: routes.4.path: 5 is not text: put it in quotes",
        "15:8: tag !x is not supported: remove it",
        "16:1: other: unknown key 'other': use one of servers, routes, names",
    ]


def test_check_of_two_keys_runs_beside_another_mistake_of_its_section() -> None:
    assert _problems("servers: {a: {address: x, port: 1, check: {type: http, name: n, path: 5, qq: 1}}}") == [
        "1:43: servers.a.check: name belongs to tls",
        "1:71: servers.a.check.path: 5 is not text: put it in quotes",
        "1:74: servers.a.check.qq: unknown key 'qq': use one of type, path, tls, name",
    ]


def test_finding_below_a_misspelt_key_has_its_place() -> None:
    assert _problems("servers: {}\nrouts: [{to: b}]") == [
        "2:1: routs: unknown key 'routs': did you mean 'routes'?",
        "2:14: routs.0.to: no server 'b': use one of ",
    ]


def test_too_many_problems_end_soon() -> None:
    text = "servers: {}\nnames: [" + "x," * 20_000 + "]"
    assert len(_problems(text)) == MOST_WRONGS


def test_every_problem_is_one_printable_line() -> None:
    error = InvalidConfigError("a\nb", [])
    assert str(error) == ""
    for line in _problems('servers: {}\nnames: ["\\x9b31m\\u202e xxxxxxx", "a\\nb\\nc\\nd"]\n"\\u2028": 1'):
        assert line.isprintable()


# Whatever text comes.

KEYS = ["virtual_servers", "real_servers", "defaults", "check", "address", "port", "forward", "scheduler", "type"]
KEYS += ["interval", "listeners", "routes", "upstreams", "bind", "backends", "match", "upstream", "web", "a", "<<"]
SCALARS = st.sampled_from(["10.0.0.1", "10.0.0.1:80", "nat", "dr", "tcp", "http", "2s", "web", "", "[::1]:80"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 100_000) | st.floats(0, 9) | SCALARS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner),
    max_leaves=25,
)
SERVER = st.fixed_dictionaries(
    {"address": SCALARS | VALUES, "port": st.integers(0, 3) | VALUES, "forward": SCALARS},
    optional={"real_servers": VALUES, "check": VALUES, "scheduler": VALUES, "portt": VALUES},
)
FILES = VALUES | st.fixed_dictionaries(
    {"virtual_servers": st.dictionaries(st.sampled_from("abc"), SERVER)}, optional={"defaults": VALUES}
)


@pytest.mark.parametrize("parse", [parse_config, load_config])
@settings(max_examples=250, deadline=3000)
@given(
    text=st.text()
    | st.builds(json.dumps, FILES)
    | st.builds(lambda a, b: a + b, st.builds(json.dumps, FILES), st.text())
)
def test_any_text_is_a_configuration_or_its_problems(parse: object, text: str) -> None:
    assert callable(parse)
    try:
        parse(text, "f")
    except InvalidConfigError as error:
        found = error
    else:
        return
    assert found.problems
    for problem, line in zip(found.problems, found.lines(), strict=True):
        assert 1 <= problem.mark.line <= len(text.splitlines()) + 1
        assert 1 <= problem.mark.column <= len(text) + 2
        assert line.isprintable()
        assert not any(word in line for word in ("Input should", "union", "pydantic", "Traceback"))


def test_large_file_is_read_in_bounded_time() -> None:
    servers = "".join(
        f"  v{n}: {{address: 10.0.{n // 200}.{n % 200 + 1}, port: 80, forward: nat, prt: 5, real_servers: {{}}}}\n"
        for n in range(1000)
    )
    started = time.process_time()
    with pytest.raises(InvalidConfigError):
        parse_config("virtual_servers:\n" + servers, "f")
    assert time.process_time() - started < 10
