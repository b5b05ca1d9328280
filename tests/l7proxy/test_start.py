"""What is looked at before anything is served."""

from __future__ import annotations

import doctest

import pytest
from aiohttp import http_parser

from director.kit.errors import HostError
from l7proxy import descriptors
from l7proxy.core.config import load_config
from l7proxy.core.model import Config
from l7proxy.descriptors import share_out
from l7proxy.engine import sweep_period_s
from l7proxy.http import parser
from l7proxy.http.stack import assert_stack

pytestmark = pytest.mark.unit


def test_the_installed_aiohttp_fits() -> None:
    assert_stack()


def test_an_aiohttp_that_is_called_otherwise_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_that_argument(protocol: object, loop: object, limit: int) -> None:
        """A parser of some other release."""

    monkeypatch.setattr("aiohttp.__version__", "9.9.9")
    monkeypatch.setattr(parser, "HttpRequestParser", without_that_argument)
    with pytest.raises(HostError, match=r"^aiohttp 9\.9\.9 does not fit this l7proxy \(.*max_line_size.*\): install"):
        assert_stack()


def test_an_aiohttp_that_reads_otherwise_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser, "HttpResponseParser", http_parser.HttpRequestParser)
    with pytest.raises(HostError, match=r"does not fit this l7proxy \(it does not read what it should\): install"):
        assert_stack()


def test_the_python_parser_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_parser, "HttpRequestParser", http_parser.HttpRequestParserPy)
    with pytest.raises(HostError, match="without its C parser"):
        assert_stack()


@pytest.mark.parametrize("limit", [0, 64, 256, 1024, 4096, 20_000, 524_288, 2**30])
def test_shares_leave_room_for_everything_else(limit: int) -> None:
    shares = share_out(limit)
    assert shares.clients >= 1
    if limit >= 256:
        assert 2 * shares.clients + shares.idle_links + descriptors.KEPT + min(1024, limit // 4) <= limit
        assert shares.clients >= limit // 5


def test_the_example_holds() -> None:
    assert doctest.testmod(descriptors).failed == 0


def config(timeouts: str) -> Config:
    text = "listeners: {h: {bind: '127.0.0.1:1'}}\nroutes: [{upstream: u}]\n"
    return load_config(
        text + f"timeouts: {timeouts}\nupstreams: {{u: {{backends: {{a: {{address: '127.0.0.1:2'}}}}}}}}", "f"
    )


@pytest.mark.parametrize(
    ("timeouts", "period_s"),
    [("{}", 0.5), ("{head: 1ms}", 0.05), ("{idle: 1ms}", 0.05), ("{head: 1s}", 0.25), ("{head: 1h}", 0.5)],
)
def test_short_timeouts_do_not_make_the_sweeper_spin(timeouts: str, period_s: float) -> None:
    assert sweep_period_s(config(timeouts)) == period_s
