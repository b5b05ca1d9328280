"""The keys of redirects, fixed answers, maintenance and sorry pages: what is wrong is told where it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from director.kit.configfile import InvalidConfigError
from l7proxy.files.loading import load_text
from tests.wire.sealed import make_certificate

pytestmark = pytest.mark.unit

HEAD = 'listeners: {http: {bind: "0.0.0.0:80"}}\nupstreams: {up: {backends: {a: {address: "10.0.0.1:80"}}}}\n'


def problems(text: str) -> list[str]:
    with pytest.raises(InvalidConfigError) as caught:
        load_text(HEAD + text, "f")
    return caught.value.lines()


def only(text: str) -> str:
    said = problems(text)
    assert len(said) == 1, said
    return said[0]


@pytest.mark.parametrize(
    ("redirect", "said"),
    [
        ('{to: "shop.example.org/x"}', "is neither a URL nor a path: begin with https://, http:// or /"),
        ('{to: "//shop.example.org/x"}', "leads to another host: write its scheme"),
        ('{to: "https:///x"}', "names no host"),
        ('{to: "{uri}"}', "leads back to where the client comes from"),
        ('{to: "/{rset}"}', "did you mean 'rest'?"),
        ('{to: "/{client"}', "has a { without its }"),
        ('{to: "/a b"}', "percent-encode"),
        ("{to: /x, status: 200}", "200 is not known: use one of 301, 302, 303, 307, 308"),
    ],
)
def test_a_redirect_that_leads_nowhere_is_told(redirect: str, said: str) -> None:
    line = only(f'routes:\n  - match: {{path: "~ ^/(?P<rest>.*)$"}}\n    redirect: {redirect}\n')
    assert line.startswith("f:5:")
    assert said in line


def test_a_redirect_in_a_circle_is_told(tmp_path: Path) -> None:
    assert "leads clients of listener 'http' back" in only('routes: [{redirect: {to: "{scheme}://{host}{uri}"}}]\n')
    to_https = 'routes: [{redirect: {to: "https://{host}{path}"}}]\n'
    load_text(HEAD + to_https, "f")
    certificate, key = make_certificate(tmp_path)
    tls = f'https: {{bind: "0.0.0.0:443", tls: {{certificate: {certificate}, key: {key}}}}}, '
    with pytest.raises(InvalidConfigError, match=r"f:3:26: .*of listener 'https' back to where they are"):
        load_text(HEAD.replace("listeners: {", "listeners: {" + tls) + to_https, "f")


@pytest.mark.parametrize(
    ("respond", "said"),
    [
        ("{status: 100}", "100 is too small"),
        ("{body: a, file: /nowhere}", "routes.0.respond.file: the answer has a `body` already"),
        ("{status: 204, body: a}", "routes.0.respond.body: an answer 204 has no body"),
        ("{file: a.html}", "is not an absolute path"),
        ("{type: html}", "is not a media type"),
        ("{headers: {Content-Length: '1'}}", "routes.0.respond.headers.Content-Length: Content-Length follows from"),
        ("{headers: {content-type: a/b}}", "say it with `type`"),
        ("{headers: {'A B': a}}", "'A B' cannot name a header"),
        ('{headers: {A: "x\\r\\nB: y"}}', "has a control character"),
    ],
)
def test_a_fixed_answer_that_cannot_be_is_told(respond: str, said: str) -> None:
    lines = problems(f"routes:\n  - respond: {respond}\n")
    assert any(line.startswith("f:4:") and said in line for line in lines), lines


def test_files_that_cannot_be_read_are_told_at_their_keys(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes((1 << 20) + 1))
    lines = problems(
        f"routes:\n  - respond: {{file: {tmp_path}/none}}\n  - {{match: {{path: /x}}, upstream: up, maintenance: "
        f"{{file: {tmp_path}}}}}\n"
    )
    assert [line.partition(": ")[0] for line in lines] == ["f:4:21", "f:5:59"]
    assert "none is not there" in lines[0]
    assert "is a directory" in lines[1]
    text = HEAD.replace("up: {", f"up: {{sorry: {{file: {tmp_path}/large}}, ") + "routes: [{upstream: up}]\n"
    with pytest.raises(InvalidConfigError, match=r"upstreams\.up\.sorry\.file: .*larger than 1 MiB"):
        load_text(text, "f")


def test_a_sorry_page_without_anything_to_say_is_told() -> None:
    text = HEAD.replace("up: {", "up: {sorry: {status: 503}, ") + "routes: [{upstream: up}]\n"
    with pytest.raises(InvalidConfigError, match=r"f:2:\d+: upstreams\.up\.sorry: there is nothing to say"):
        load_text(text, "f")


def test_workers_serve_what_was_read_first(tmp_path: Path) -> None:
    page = tmp_path / "page.txt"
    page.write_bytes(b"first \xff")
    text = HEAD + f"routes: [{{respond: {{file: {page}}}}}]\n"
    loaded = load_text(text, "f")
    page.unlink()
    again = load_text(text, "f", loaded.files)
    assert again.config == loaded.config
    respond = again.config.routes[0].respond
    assert respond is not None
    assert respond.content.body == b"first \xff"
