"""Which host a request is for, what it asks for, and who has had it before."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.wire.corpus import Bad, bad
from tests.wire.harness import Origin, config_text, fields_of, free_port, live, running, statuses_of, takes
from tests.wire.test_process import Process
from tests.wire.verdicts import LEFT_OPEN_S, expect_none, fault_of_answer, faults_of_refusals, no_errors_logged

pytestmark = pytest.mark.unit

ONLY = "  - {match: {host: only.example}, upstream: up}"
CLOSE = b"Connection: close\r\n\r\n"

INVALID_HOSTS = [
    b"", b"a b", b"a/b", b"a,b", b"a;b:x", b"u@a", b"u:p@a", b"a:99999", b"a:65536", b"a:b", b"a:1:2",
    b"a:-1", b"a:+1", b"a: 80", b"[::1", b"::1]", b"::1", b"[::1]x", b"[::1]:x", b"[zz]", b"[]", b"[::1]]",
    b"a\tb", b"a?b", b"a#b", b"a\\b", b"a\x01b", b"\xc3\xa4.example", b"http://a", b"a\x7f", b'a"b', b"<a>",
    b"a^b", b"a|b", b"a`b", b"a{b}", b":80", b"a, b", b"/", b"*:80/",
]  # fmt: skip
VALID_HOSTS = [
    b"a", b"a:80", b"A.Example", b"a.example.", b"a.example.:8080", b"127.0.0.1", b"127.0.0.1:1", b"[::1]",
    b"[2001:DB8::1]:65535", b"my_host", b"a-b.c--d", b"xn--4ca.example", b"a:", b"0", b"a:00080",
]  # fmt: skip


@live
async def test_an_invalid_host_is_refused(tmp_path: Path) -> None:
    cases: dict[str, Bad] = {}
    for host in INVALID_HOSTS:
        for version in (b"1.1", b"1.0"):
            line = b"GET /bad HTTP/" + version + b"\r\n"
            cases[f"{host!r} in {version!r}"] = bad(line + b"Host: " + host + b"\r\n\r\n")
        cases[f"{host!r} beside an absolute form"] = bad(b"GET http://a/bad HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    del cases[f"{b''!r} in {b'1.0'!r}"]  # it need not say any
    origin = Origin(takes)
    async with running(tmp_path, origin) as proxy:
        with no_errors_logged():
            expect_none(await faults_of_refusals(proxy, origin, cases))


@live
async def test_a_valid_host_goes_on_as_it_came(tmp_path: Path) -> None:
    origin = Origin(takes)
    async with running(tmp_path, origin) as proxy:
        for host in VALID_HOSTS:
            got = await proxy.send(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n" + CLOSE)
            assert statuses_of(got) == [200], host
    assert [fields_of(head, b"host") for head in origin.heads] == [[host] for host in VALID_HOSTS]
    assert [fields_of(head, b"x-forwarded-host") for head in origin.heads] == [[host] for host in VALID_HOSTS]


@live
async def test_there_is_exactly_one_host(tmp_path: Path) -> None:
    """RFC 9112 3.2, also where an absolute form overrides it, and for 1.0 where there are two."""
    get = b"GET /bad HTTP/1.1\r\n"
    cases = {
        "none": bad(get + b"\r\n"),
        "none, among others": bad(get + b"X-Host: a\r\nHosts: a\r\nHos: t\r\n\r\n"),
        "none beside an absolute form": bad(b"GET http://a/bad HTTP/1.1\r\n\r\n"),
        "none beside *": bad(b"OPTIONS * HTTP/1.1\r\n\r\n"),
        "one with an underscore": bad(get + b"Ho_st: a\r\n\r\n"),
        "two": bad(get + b"Host: a\r\nHost: b\r\n\r\n"),
        "two that are equal": bad(get + b"Host: a\r\nHost: a\r\n\r\n"),
        "two in other case, apart": bad(get + b"Host: a\r\nX: y\r\nhOST: b\r\n\r\n"),
        "two, one empty": bad(get + b"Host: a\r\nHost:\r\n\r\n"),
        "two beside an absolute form": bad(b"GET http://a/bad HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        "two in 1.0": bad(b"GET /bad HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
        "one behind a space": bad(get + b" Host: a\r\n\r\n"),
    }
    origin = Origin(takes)
    async with running(tmp_path, origin) as proxy:
        expect_none(await faults_of_refusals(proxy, origin, cases))


@live
async def test_an_absolute_form_overrides_host(tmp_path: Path) -> None:
    origin = Origin(takes)
    async with running(tmp_path, origin, routes=ONLY) as proxy:
        other = b" HTTP/1.1\r\nHost: other.example\r\n" + CLOSE
        assert statuses_of(await proxy.send(b"GET http://only.example/p?q" + other)) == [200]
        assert statuses_of(await proxy.send(b"GET HTTP://ONLY.example:80/p" + other)) == [200]
        assert statuses_of(await proxy.send(b"GET http://only.example" + other)) == [200]
        assert statuses_of(await proxy.send(b"GET http://only.example?q" + other)) == [200]
        assert statuses_of(await proxy.send(b"OPTIONS http://only.example" + other)) == [200]
        assert statuses_of(await proxy.send(b"OPTIONS http://only.example/" + other)) == [200]
        assert statuses_of(await proxy.send(b"GET http://only.example/p HTTP/1.0\r\n\r\n")) == [200]
        only = b" HTTP/1.1\r\nHost: only.example\r\n" + CLOSE
        assert statuses_of(await proxy.send(b"GET http://other.example/" + only)) == [404]
    assert [head.split(b" HTTP/")[0] for head in origin.heads] == [
        b"GET /p?q", b"GET /p", b"GET /", b"GET /?q", b"OPTIONS *", b"OPTIONS /", b"GET /p",
    ]  # fmt: skip
    for index, head in enumerate(origin.heads):
        name = [b"only.example" if index != 1 else b"ONLY.example:80"]
        assert fields_of(head, b"host") == name
        assert fields_of(head, b"x-forwarded-host") == name


@live
async def test_other_forms_of_a_target_are_refused(tmp_path: Path) -> None:
    cases: dict[str, Bad] = {
        target.decode("latin-1"): bad(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        for target in (
            b"*", b"bad", b"?bad", b"a:80", b"a.example/bad", b"http:/bad", b"http:bad", b"http://", b"http:///bad",
            b"http://u@a/bad", b"http://u:p@a/bad", b"http://a b/bad", b"http://a:x/bad", b"http://a:99999/bad",
            b"http://[::1/bad", b"ftp://a/bad", b"://a/bad", b"//", b"http://a\\b/bad", b"http://a#bad", b"/bad#top",
        )
    }  # fmt: skip
    del cases["//"]  # a path like any other
    cases["POST *"] = bad(b"POST * HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    cases["OPTIONS **"] = bad(b"OPTIONS ** HTTP/1.1\r\nHost: a\r\n\r\n")
    origin = Origin(takes)
    async with running(tmp_path, origin) as proxy:
        expect_none(await faults_of_refusals(proxy, origin, cases))


@live
async def test_connect_is_refused_whatever_it_names(tmp_path: Path) -> None:
    """And what follows is no tunnel and no request."""
    cases = {
        "a port": bad(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 400, 403, 405, 501),
        "a path": bad(b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", 400, 403, 405, 501),
        "a URL": bad(b"CONNECT http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, 403, 405, 501),
        "in 1.0": bad(b"CONNECT a:443 HTTP/1.0\r\n\r\n", 400, 403, 405, 501),
    }
    origin = Origin(takes)
    async with running(tmp_path, origin) as proxy:
        expect_none(await faults_of_refusals(proxy, origin, cases))


@live
async def test_options_of_the_whole_server_goes_on_as_it_came(tmp_path: Path) -> None:
    origin = Origin(takes)
    async with running(tmp_path, origin) as proxy:
        assert statuses_of(await proxy.send(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n" + CLOSE)) == [200]
    assert origin.heads[0].startswith(b"OPTIONS * HTTP/1.1\r\n")


@live
async def test_max_forwards_counts_down_for_options(tmp_path: Path) -> None:
    """RFC 9110 7.6.2. At 0 the answer is ours; other methods' is not looked at."""
    origin = Origin(takes)
    async with running(tmp_path, origin) as proxy:
        for target in (b"*", b"/"):
            request = b"OPTIONS " + target + b" HTTP/1.1\r\nHost: a\r\nmax-FORWARDS: %b\r\n" + CLOSE
            got = await proxy.send(request % b"0")
            assert not fault_of_answer(got, [200, 204]) or got.startswith(b"HTTP/1.1 204 ")
            assert origin.received == b""
            for value, sent in ((b"1", b"0"), (b"10", b"9"), (b"100", b"99")):
                assert statuses_of(await proxy.send(request % value)) == [200]
                assert fields_of(origin.heads[-1], b"max-forwards") == [sent]
            origin.received.clear()
        for value in (b"0", b"7"):
            got = await proxy.send(b"GET / HTTP/1.1\r\nHost: a\r\nMax-Forwards: " + value + b"\r\n" + CLOSE)
            assert statuses_of(got) == [200]
            assert fields_of(origin.heads[-1], b"max-forwards") == [value]


@live
async def test_max_forwards_that_is_no_number_does_no_harm(tmp_path: Path) -> None:
    origin = Origin(takes)
    async with running(tmp_path, origin) as proxy:
        with no_errors_logged():
            for value in (b"", b"x", b"-1", b"1_0", b"\xb2", b"9" * 5000, b"1, 2"):
                got = await proxy.send(b"OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: " + value + b"\r\n" + CLOSE)
                assert statuses_of(got) in ([200], [400]), value


@pytest.mark.parametrize(
    ("lines", "version", "before"),
    [
        (b"", b"1.1", []),
        (b"", b"1.0", []),
        (b"Via: 1.1 edge\r\n", b"1.1", [b"1.1 edge"]),
        (b"Via: 1.0 a, 1.1 b (c)\r\nX: y\r\nvia: HTTP/2 d:80\r\n", b"1.1", [b"1.0 a", b"1.1 b (c)", b"HTTP/2 d:80"]),
        (b"Via: 1.1 mine2, 1.1 notmine, 1.1 mine.a\r\n", b"1.1", [b"1.1 mine2", b"1.1 notmine", b"1.1 mine.a"]),
        (b"Via: 1.1 other (mine)\r\n", b"1.1", [b"1.1 other (mine)"]),
    ],
)
@live
async def test_via_is_appended_with_this_instances_name(
    tmp_path: Path, lines: bytes, version: bytes, before: list[bytes]
) -> None:
    origin = Origin(takes)
    async with running(tmp_path, origin, more="name: mine") as proxy:
        got = await proxy.send(b"GET / HTTP/" + version + b"\r\nHost: a\r\n" + lines + CLOSE)
    assert statuses_of(got) == [200]
    found = [part.strip() for value in fields_of(origin.heads[0], b"via") for part in value.split(b",")]
    assert found == [*before, version + b" mine"]


@pytest.mark.parametrize(
    "via",
    [b"1.1 mine", b"1.0 mine", b"HTTP/1.1 mine", b"1.1 MINE", b"1.1 mine (l7proxy)", b"1.1 a, 1.1 mine, 1.1 b",
     b"1.1 a,1.1\tmine", b"1.1 a\r\nVia: 1.1 mine"],
)  # fmt: skip
@live
async def test_a_request_that_was_here_before_is_508(tmp_path: Path, via: bytes) -> None:
    origin = Origin(takes)
    async with running(tmp_path, origin, more="name: mine") as proxy:
        got = await proxy.send(b"GET / HTTP/1.1\r\nHost: a\r\nVia: " + via + b"\r\n" + CLOSE, patience_s=LEFT_OPEN_S)
    assert not fault_of_answer(got, [508])
    assert origin.received == b""


@live
async def test_a_proxy_that_is_its_own_backend_says_508(tmp_path: Path) -> None:
    port = free_port()
    async with running(tmp_path, port, port=port) as proxy:
        got = await proxy.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + CLOSE)
        assert statuses_of(got) == [508]
        assert proxy.server.proxy.counters.requests <= 2


@live
async def test_two_proxies_in_a_row_are_no_loop(tmp_path: Path) -> None:
    origin = Origin(takes)
    paths = [tmp_path / "1", tmp_path / "2"]
    for path in paths:
        path.mkdir()
    async with (
        running(paths[0], origin, more="name: inner") as inner,
        running(paths[1], inner.port, more="name: outer") as outer,
    ):
        assert statuses_of(await outer.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + CLOSE)) == [200]
    via = b", ".join(fields_of(origin.heads[0], b"via"))
    assert via == b"1.1 outer, 1.1 inner"


@live
async def test_no_via_where_none_is_wanted(tmp_path: Path) -> None:
    origin = Origin(takes)
    async with running(tmp_path, origin, more="via: false") as proxy:
        await proxy.send(b"GET / HTTP/1.1\r\nHost: a\r\nVia: 1.1 edge\r\n" + CLOSE)
    assert fields_of(origin.heads[0], b"via") == [b"1.1 edge"]


@live
async def test_instances_have_names_of_their_own(tmp_path: Path) -> None:
    """Two on one machine, with nothing said: neither takes the other for itself."""
    origin = await Origin(takes).start()
    ports = [free_port(), free_port()]
    paths = [tmp_path / "outer.yaml", tmp_path / "inner.yaml"]
    paths[0].write_text(config_text(ports[0], ports[1]))
    paths[1].write_text(config_text(ports[1], origin))
    async with Process(paths[1], ports[1]), Process(paths[0], ports[0]):
        reader, writer = await asyncio.open_connection("127.0.0.1", ports[0])
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n" + CLOSE)
        got = await reader.read()
        writer.close()
    await origin.stop()
    assert statuses_of(got) == [200]
    via = [part.strip() for value in fields_of(origin.heads[0], b"via") for part in value.split(b",")]
    assert len(set(via)) == 2
