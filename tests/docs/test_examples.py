"""Every example of the documentation is taken: configurations by their programs, commands by their command lines."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from tests.docs import commandlines, foreignyaml, yamlkinds
from tests.docs.pages import ROOT, Block, blocks, blocks_of, pages, without_blocks

pytestmark = pytest.mark.unit

SHELL = {"sh", "bash", "console"}
AS_IT_IS = {
    "text",
    "nginx",
    "haproxy",
    "ini",
    "systemd",
    "toml",
    "dockerfile",
    "ruby",
    "http",
    "diff",
    "csv",
    "make",
}
"""What is output, a drawing, or another program's: it has to say so."""
BLOCKS = blocks()


def _of(*languages: str) -> list[object]:
    return [pytest.param(block, id=block.where) for block in BLOCKS if block.language in languages]


def test_the_pages_have_examples() -> None:
    languages = [block.language for block in BLOCKS]
    assert languages.count("yaml") >= 25
    assert languages.count("sh") >= 15
    assert {"README.md", "docs/l7proxy.md", "docs/director.md", "docs/health.md"} <= {block.page for block in BLOCKS}


@pytest.mark.parametrize("block", _of("yaml", "yml"))
def test_every_configuration_is_taken(block: Block) -> None:
    assert yamlkinds.wrong_with(block) == "", block.where


@pytest.mark.parametrize("block", _of(*SHELL))
def test_every_command_is_one(block: Block) -> None:
    assert commandlines.wrong_with(block) == [], block.where


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_in_a_sentence_is_one(page: Path) -> None:
    assert commandlines.wrong_in_words(without_blocks(page.read_text())) == []


@pytest.mark.parametrize("block", _of("ini", "systemd"))
def test_every_command_of_a_unit_is_one(block: Block) -> None:
    assert commandlines.wrong_with_unit(block) == [], block.where


@pytest.mark.parametrize("block", _of("promql"))
def test_every_expression_looks_at_what_there_is(block: Block) -> None:
    assert foreignyaml.wrong_with_promql(block.text) == "", block.where


@pytest.mark.parametrize("block", _of("json"))
def test_every_json_is_some(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("block", _of("python"))
def test_every_python_is_some(block: Block) -> None:
    ast.parse(block.text)


def test_every_block_says_what_it_is() -> None:
    known = {"yaml", "yml", "json", "python", "promql", *SHELL, *AS_IT_IS}
    unknown = [f"{block.where}: {block.language or '(nothing)'}" for block in BLOCKS if block.language not in known]
    assert unknown == [], "output and drawings are ```text, what was typed with its output ```console"


# the checker itself


def _wrong(language: str, text: str, page: str = "docs/any.md", kind: str = "") -> object:
    block = Block(page, 1, language, kind, text)
    return yamlkinds.wrong_with(block) if language == "yaml" else commandlines.wrong_with(block)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("virtual_servers: {web: {forwards: dr}}", "forwards"),
        ("check: {type: http, path: /a}\ncheck: {type: htp}", "htp"),
        ("defaults:\n  check: {type: tcp}\n  check: {type: tcp}", "twice"),
        ("upstreams: {shop: {backends: {a: {adress: 10.0.0.1:80}}}}", "adress"),
        ("some: {thing: else}", "nobody knows what this is"),
        ("groups: [{name: a, rules: [{alert: A, expr: 'l7proxy_nonsense_total > 1'}]}]", "l7proxy_nonsense_total"),
        ("groups: [{name: a, rules: [{alert: A}]}]", "expr"),
        ("- {hosts: all, roles: [{role: geerlingguy.x}]}\n- {tasks: []}", "nobody knows"),
        ("a: b: c", "no YAML"),
    ],
)
def test_a_wrong_configuration_is_found(text: str, why: str) -> None:
    assert why in str(_wrong("yaml", text))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("director chek file.yaml", "chek"),
        ("director check --fast file.yaml", "--fast"),
        ("director drain web", "name the virtual server and its real server"),
        ("sudo -u ann director check file.yaml extra more", "extra"),
        ("FOO=1 l7proxy drain --stopp | cat", "--stopp"),
        ("if true; then\n  director\nfi", "which of its commands"),
        ("make demoo", "demoo"),
        ("make demo KEPT=1", "KEPT"),
        ("for i in 1 2; do\n  dirctor status\ndone", "dirctor"),
        ('echo "$(l7proxy staus)"', "staus"),
        ("if true; then", "bash"),
        ("curl -s http://127.0.0.1:9180/metric", "/metric"),
        ("curl -s --unix-socket /run/director/director.sock http://d/v1/stat", "/v1/stat"),
        ("curl -s --unix-socket /run/director.sock http://d/v1/status", "neither"),
        ("systemctl restart directord", "directord"),
    ],
)
def test_a_wrong_command_is_found(text: str, why: str) -> None:
    assert why in str(_wrong("sh", text + "\n"))


def test_a_wrong_expression_is_found() -> None:
    assert "no PromQL" in foreignyaml.wrong_with_promql("rate(l7proxy_requests_total[5m]")
    assert "l7proxy_requests" in foreignyaml.wrong_with_promql("rate(l7proxy_requests[5m])")
    assert "director_real_server_ups" in foreignyaml.wrong_with_promql("director_real_server_ups == 0")
    assert foreignyaml.wrong_with_promql("director_real_server_up * director_failures") == ""


def test_a_wrong_command_of_a_unit_is_found() -> None:
    unit = "[Service]\nExecStart=/opt/lvs-director/current/bin/director realserver aply\nExecStop=-/bin/kil 1\nUser=a\n"
    assert len(commandlines.wrong_with_unit(Block("p", 1, "ini", "", unit))) == 2


def test_a_wrong_command_in_a_sentence_is_found() -> None:
    right = (
        "`director drain`, `director apply --confirm`, `l7proxy weight UPSTREAM/BACKEND N`, `director lab scene NAME`"
    )
    assert commandlines.wrong_in_words(right) == []
    wrong = commandlines.wrong_in_words(
        "`director\ndrian web a` and `l7proxy status --jsn`; `director weight web a much`"
    )
    assert [problem.split(":")[0] for problem in wrong] == ["director", "l7proxy status", "director weight"]


def test_what_was_typed_is_looked_at_and_output_is_not() -> None:
    typed = "$ director check a.yaml\na.yaml: ok\nvirt: x\n# director dran web a\nroot@lb1:~# l7proxy status\n"
    assert [problem.split()[0] for problem in commandlines.wrong_with(Block("p", 1, "console", "", typed))] == [
        "director:"
    ]
    assert commandlines.wrong_with(Block("p", 1, "console", "", "only output\n")) != []


def test_every_page_is_walked() -> None:
    walked = {str(path.relative_to(ROOT)) for path in pages()}
    assert {"README.md", "docs/index.md"} <= walked
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")} <= walked


def test_blocks_are_found_however_they_are_fenced() -> None:
    page = 'a\n```sh\nx\n```\n- b\n\n  <!-- example: director -->\n  ````yaml title="f"\n  k: |\n    ```\n  ````\n'
    assert [(block.language, block.kind, block.text, block.line) for block in blocks_of(page, "p")] == [
        ("sh", "", "x\n", 3),
        ("yaml", "director", "k: |\n  ```\n", 9),
    ]
    with pytest.raises(ValueError, match="p:1: this block has no end"):
        list(blocks_of("```sh\nx\n", "p"))


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    text = without_blocks(page.read_text())
    for target, anchor in re.findall(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([\w-]+))?\)", text):
        file = page.parent / target if target else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor and file.suffix == ".md":
            heads = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-") for head in heads}
            assert anchor in anchors, f"{page.name} links to {target}#{anchor}"
