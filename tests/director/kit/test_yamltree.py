"""What the YAML reader promises: nothing guessed, every place known, and an end to everything."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from director.kit import yamlnodes
from director.kit.problem import Mark, Problem
from director.kit.yamlnodes import DEEPEST
from director.kit.yamltree import MOST_VALUES, Tree, parse

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module", autouse=True, params=["libyaml", "python"])
def parser(request: pytest.FixtureRequest) -> Iterator[str]:
    """Both parsers give the same."""
    if request.param == "libyaml" and not yamlnodes.FAST:
        pytest.skip("yaml was built without libyaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yamlnodes, "FAST", request.param == "libyaml")
        yield str(request.param)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1:30", "1:30"),
        ("2026-01-31", "2026-01-31"),
        ("yes", "yes"),
        ("No", "No"),
        ("on", "on"),
        ("off", "off"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("null", None),
        ("80", 80),
        ("-3", -3),
        ("+3", 3),
        ("0x1f", 31),
        ("010", "010"),
        ("0o10", "0o10"),
        ("0b1", "0b1"),
        ("1_000", "1_000"),
        ("1.5", 1.5),
        ("1.0e3", 1000.0),
        ("1e3", "1e3"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("=", "="),
        ("<<", "<<"),
        ("12345678901234567890123456789012", 12345678901234567890123456789012),
        ("!!str 80", "80"),
        ("!!int '80'", 80),
        ("'80'", "80"),
        ('"a\\tb\\nc"', "a\tb\nc"),
        ("|\n  a\n  b\n", "a\nb\n"),
        ("[1, a]", [1, "a"]),
        ("{}", {}),
    ],
)
def test_value_is_what_is_written(text: str, value: object) -> None:
    tree = parse(f"a: {text}")
    assert tree.problems == []
    assert tree.data == {"a": value}
    assert type(tree.data["a"]) is type(value)


@pytest.mark.parametrize(
    ("text", "key"),
    [("80: x", "80"), ("~: x", "~"), ("true: x", "true"), ("1.0: x", "1.0"), ("'<<': x", "<<"), ("? a\n: x", "a")],
)
def test_key_is_text(text: str, key: str) -> None:
    assert parse(text).data == {key: "x"}


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "\ufeff", "\ufeff# comment\r\n", "~"])
def test_empty_document_is_nothing(text: str) -> None:
    tree = parse(text)
    assert (tree.data, tree.problems) == (None, [])


@pytest.mark.parametrize("text", ["a: 1\r\nb:\r\n  c: x\r\n", "\ufeffa: 1\nb:\n  c: x\n", "a: 1\rb:\r  c: x"])
def test_line_ends_and_byte_order_mark_do_not_shift_marks(text: str) -> None:
    tree = parse(text)
    assert tree.data == {"a": 1, "b": {"c": "x"}}
    assert tree.keys == {("a",): Mark(1, 1), ("b",): Mark(2, 1), ("b", "c"): Mark(3, 3)}
    assert tree.values[("b", "c")] == Mark(3, 6)


CONTROL = "has a control character"
COMPLEX = "a list or a mapping cannot be a key: use a name, and put text with braces in quotes"


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        # What is no YAML.
        ("a:\n\tb: 1", 2, 1, "a tab where spaces must stand: YAML indents with spaces"),
        ("\ta: 1", 1, 1, "a tab where spaces must stand: YAML indents with spaces"),
        ("a:\tb", 1, 3, "a tab where spaces must stand: YAML indents with spaces"),
        ("a: 1\nb: [1, 2\n", 2, 4, "this bracket is never closed: add ]"),
        ("a: {b: 1\n", 1, 4, "this bracket is never closed: add }"),
        ("a: [", 1, 5, "the file ends inside of a bracket: close it with ] or }"),
        ("a: [1\nb: 2", 2, 2, "in a list (begun in line 1): a comma or ] is missing before this"),
        ("a: {b: 1\nc: 2}", 2, 2, "in a mapping (begun in line 1): a comma or } is missing before this"),
        ("a: 'x\n", 1, 4, "this quote is never closed: add the second one"),
        ('a: "x', 1, 4, "this quote is never closed: add the second one"),
        (
            "a: b: c",
            1,
            5,
            "a colon that makes no key here: check the indentation, and put text that contains ': ' in quotes",
        ),
        ("a: *x", 1, 4, "undefined alias 'x': define it above with &, or put text that begins with * in quotes"),
        ("a: &x 1\nb: &x 2", 2, 4, "duplicate anchor 'x' (begun in line 1): rename one of them"),
        ("a: @x", 1, 4, "a value cannot begin with @: put it in quotes"),
        ("a: `x", 1, 4, "a value cannot begin with `: put it in quotes"),
        ("a: %x", 1, 4, "a value cannot begin with %: put it in quotes"),
        ("- a\nb: 1", 2, 1, "this does not line up with the lines above (begun in line 1): check the indentation"),
        (" a: 1\nb: 2", 2, 1, "this does not line up with the lines above: check the indentation"),
        ("a: 1\nb\nc: 1", 2, 1, "a line without a colon: write `key: value`, and check the indentation"),
        ("a: 1\n---\nb: 2", 2, 1, "a second document begins here: keep one in a file, and remove this `---`"),
        ("---\n---\n", 2, 1, "a second document begins here: keep one in a file, and remove this `---`"),
        ('a: "\\U00110000"', 1, 7, "an escape that names no character: \\U ends at 0010FFFF"),
        ('a: "\\UFFFFFFFF"', 1, 7, "an escape that names no character: \\U ends at 0010FFFF"),
        ("a: b\nc: \x1b[31m", 2, 4, "control character U+001B: this is not a text file"),
        ("a\x00", 1, 2, "control character U+0000: this is not a text file"),
        ("a: \ud800", 1, 4, "control character U+D800: this is not a text file"),
        # What is YAML, and not for us.
        ("a: 1\nb: 2\na: 3", 3, 1, "a: duplicate key 'a', first in line 1: remove one of them"),
        ("1: x\n'1': y", 2, 1, "1: duplicate key '1', first in line 1: remove one of them"),
        ("a: {b: 1, c: {d: 1, d: 2}}", 1, 21, "a.c.d: duplicate key 'd', first in line 1: remove one of them"),
        ("- {a: 1}\n- {a: 1, a: 2}", 2, 10, "1.a: duplicate key 'a', first in line 2: remove one of them"),
        ("<<: {a: 1, a: 2}\na: 3", 1, 12, "a: duplicate key 'a', first in line 1: remove one of them"),
        ("<<: {a: 1}\n<<: {b: 1}", 2, 1, "duplicate key '<<': write one, with a list: `<<: [*a, *b]`"),
        ("<<: 5", 1, 5, "<< merges mappings only: give it an *alias of one"),
        ("<<: [1]", 1, 5, "<< merges mappings only: give it an *alias of one"),
        ("? [a]\n: 1", 1, 3, COMPLEX),
        ("a: {{ template }}", 1, 5, COMPLEX),
        ("a: !!binary aGk=", 1, 4, "tag !!binary is not supported: write a plain value"),
        ("a: !!timestamp 2026-01-31", 1, 4, "tag !!timestamp is not supported: write a plain value"),
        ("a: !vault |\n  x", 1, 4, "tag !vault is not supported: write a plain value"),
        ("a: !!set {x}", 1, 4, "tag !!set is not supported: remove it"),
        ("a: !!python/object:os.system {}", 1, 4, "tag !!python/object:os.system is not supported: remove it"),
        ("a: !!bool yes", 1, 4, "'yes' is no bool: remove the tag, or change the value"),
        ("a: !!int 1_0", 1, 4, "'1_0' is no int: remove the tag, or change the value"),
        ("a: !!null x", 1, 4, "'x' is no null: remove the tag, or change the value"),
        (f"a: {'9' * 33}", 1, 4, f"'{'9' * 32}' is not a number that can be used here: it is too large"),
        ("a: 1.0e400", 1, 4, "'1.0e400' is not a number that can be used here: it is too large"),
        ('a: "\\0"', 1, 4, f"'\\x00' {CONTROL}: remove it"),
        ('a: "\\ud800"', 1, 4, f"'\\ud800' {CONTROL}: remove it"),
        ('"a\\nb": 1', 1, 1, f"'a\\nb' {CONTROL}: use a name"),
        # What has no end.
        ("a: &a [*a]", 1, 4, "this anchor contains an alias of itself: write the value out"),
        ("&a {b: {c: *a}}", 1, 1, "this anchor contains an alias of itself: write the value out"),
        ("a: &a {<<: *a}", 1, 4, "this anchor contains an alias of itself: write the value out"),
        ("[" * 10_000, 1, DEEPEST + 2, "nested deeper than 64 levels: this is no configuration"),
        ("- " * 10_000, 1, 2 * DEEPEST + 3, "nested deeper than 64 levels: this is no configuration"),
        ("{a: " * 10_000, 1, 258, "nested deeper than 64 levels: this is no configuration"),
        (
            "\n".join(" " * depth + "a:" for depth in range(500)),
            DEEPEST + 1,
            DEEPEST + 1,
            "nested deeper than 64 levels: this is no configuration",
        ),
    ],
)
def test_bad_text_is_named_with_its_place(text: str, line: int, column: int, message: str) -> None:
    assert parse(text).problems == [Problem(Mark(line, column), message)]


def test_alias_means_the_value_again() -> None:
    tree = parse("a: &x {p: 1}\nb: *x\nc: [*x, *x]")
    assert tree.problems == []
    assert tree.data == {"a": {"p": 1}, "b": {"p": 1}, "c": [{"p": 1}, {"p": 1}]}
    assert tree.values[("b", "p")] == tree.values[("c", 1, "p")] == Mark(1, 11)


def test_merged_keys_give_way_to_own_and_to_earlier_ones() -> None:
    tree = parse("a: &a {p: 1, q: 1}\nb: &b {q: 2, r: 2}\nc: {r: 3, <<: [*a, *b], s: 3}\nd: {<<: *a}")
    assert tree.problems == []
    assert tree.data == {
        "a": {"p": 1, "q": 1},
        "b": {"q": 2, "r": 2},
        "c": {"p": 1, "q": 1, "r": 3, "s": 3},
        "d": {"p": 1, "q": 1},
    }
    assert tree.keys[("c", "q")] == Mark(1, 14)
    assert tree.keys[("c", "r")] == Mark(3, 5)


def test_problem_below_an_anchor_is_told_once() -> None:
    tree = parse("a: &x {p: 1, p: 2, q: !!binary x}\nb: *x\nc: {<<: *x}\nd: {<<: *x, p: 5}")
    assert [problem.mark.column for problem in tree.problems] == [14, 23]
    assert tree.data == {"a": {"p": 1}, "b": {"p": 1}, "c": {"p": 1}, "d": {"p": 5}}


def test_what_could_not_be_read_is_remembered_as_broken() -> None:
    tree = parse("a: !!binary x\nb: {c: 1, c: 2}\nd: [1, !x 2]\ne: {[]: 1}\nf: {<<: 1}")
    assert tree.broken == {("a",), ("b", "c"), ("d",), ("e",), ("f",)}
    assert tree.data == {"b": {"c": 1}, "e": {}, "f": {}}


def _laughs() -> dict[str, str]:
    values = "x0: &x0 [" + "x," * 10 + "]\n"
    values += "".join(f"x{n}: &x{n} [{f'*x{n - 1},' * 10}]\n" for n in range(1, 12))
    keys = "x0: &x0 {" + ",".join(f"k{n}: 1" for n in range(1000)) + "}\n"
    merges = keys + "".join(f"x{n}: &x{n} {{<<: [{f'*x{n - 1},' * 10}]}}\n" for n in range(1, 40))
    mixed = "x0: &x0 {a: 1}\n"
    mixed += "".join(f"x{n}: &x{n} {{<<: *x{n - 1}, l{n}: *x{n - 1}, r{n}: *x{n - 1}}}\n" for n in range(1, 40))
    return {"values": values, "merges": merges, "mixed": mixed}


@pytest.mark.parametrize("kind", ["values", "merges", "mixed"])
def test_laughs_end(kind: str) -> None:
    text = _laughs()[kind]
    started = time.process_time()
    tree = parse(text)
    assert time.process_time() - started < 10
    assert len(tree.keys) + len(tree.values) <= 2 * MOST_VALUES
    if kind != "merges":
        assert [problem.message for problem in tree.problems] == [
            f"more than {MOST_VALUES} keys and values: this is no configuration; what an alias names counts again"
        ]
    else:
        assert tree.problems == []


YAMLISH = (
    st.text(alphabet=st.sampled_from(list("abx01:-?,[]{}&*!|>'\"%@`#~<\n\n  \t\\\r.eU\x00\x85\u2028\ufeff\ud800é")))
    | st.text()
)


@settings(max_examples=400, deadline=2000)
@given(YAMLISH)
def test_any_text_is_read_or_refused_at_a_place_inside_of_it(text: str) -> None:
    tree = parse(text)
    lines = len(text.splitlines()) + 1
    for problem in tree.problems:
        assert 1 <= problem.mark.line <= lines
        assert 1 <= problem.mark.column <= len(text) + 2
        assert problem.message
    assert tree.problems or text.strip() == "" or tree.values or tree.data is None


def _with(fast: bool, text: str) -> Tree:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yamlnodes, "FAST", fast)
        return parse(text)


PIECES = [
    "a: ",
    "- ",
    "\n  ",
    "\n- ",
    "\nb: ",
    "? ",
    "&a ",
    "*a ",
    "|\n ",
    ">-\n  ",
    "!!str ",
    "# c\n",
    "{a: }",
    "---\n",
]
PIECES += "abx01:-,[]{}&*|>'\"#~< \n\\é"


@pytest.mark.skipif(not yamlnodes.FAST, reason="yaml was built without libyaml")
@settings(max_examples=400)
@given(YAMLISH | st.lists(st.sampled_from(PIECES)).map("".join))
def test_both_parsers_see_the_same(text: str) -> None:
    assert _with(True, text) == _with(False, text)


@pytest.mark.skipif(not yamlnodes.FAST, reason="yaml was built without libyaml")
@pytest.mark.parametrize(
    "text",
    [
        "!",
        "a: ! x",
        "?",
        "? a",
        ">#",
        "a: |-# c\n  x",
        "{a: \n\n}",
        "{a: # c\n}",
        "[b: ]",
        "{a}",
        "[e?-]",
        "{U\ne?x}",
        "a:\tb",
        "a: \x85b",
        "a: b\u2028c",
        "%YAML 1.1\n---\na: b",
        "--- a",
        "a: b\n...\nc",
        "a: \ufeff",
        "a: b\r\nc: d",
        "a: é\nb: [é, 1]",
    ],
)
def test_where_the_parsers_differ_python_decides(text: str) -> None:
    assert _with(True, text) == _with(False, text)


def test_good_text_is_read_once(parser: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if parser == "libyaml":
        monkeypatch.setattr(yamlnodes, "_compose_slowly", None)
    text = "# c\na:  # c\n  b: {c: [1, 'é', \"x\"], d: &x y}\n  e: *x\n  f:\n  g: 'it''s'\n  h: |\n    x\n"
    assert parse(text).data == {
        "a": {"b": {"c": [1, "é", "x"], "d": "y"}, "e": "y", "f": None, "g": "it's", "h": "x\n"}
    }


def test_collector_runs_again_afterwards() -> None:
    for text in ("a: b", "a: [", "[" * 100):
        parse(text)
        assert gc.isenabled()
