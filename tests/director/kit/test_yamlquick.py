"""The quick way to a good document's values: it gives what the thorough one gives, or nothing."""

from __future__ import annotations

import gc

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from director.kit import configfile, yamlnodes
from director.kit.configfile import InvalidConfigError, Section, load
from director.kit.yamlquick import DEEPEST, values
from director.kit.yamltree import MOST_VALUES, parse
from tests.director.kit.test_yamltree import PIECES, YAMLISH

pytestmark = [
    pytest.mark.unit,
    pytest.mark.skipif(not yamlnodes.FAST, reason="yaml was built without libyaml"),
]

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**6), 10**9),
    st.floats(allow_nan=False, allow_infinity=False, width=16),
    st.sampled_from(["yes", "1:30", "0o7", "010", "~", "<<", "null", "0x1f", "1e3", "a b", "é", "80", "tcp", ""]),
    st.text(st.characters(codec="ascii"), max_size=6),
)
DOCUMENTS = st.dictionaries(
    st.text(max_size=5),
    st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner)),
)


def agrees(text: str) -> bool:
    """Whether the quick way gave something; what it gives is what the thorough way gives, type by type."""
    found = values(text)
    if found is None:
        return False
    tree = parse(text)
    assert tree.problems == []
    assert repr(tree.data) == repr(found)
    return True


@settings(max_examples=600)
@given(YAMLISH | st.lists(st.sampled_from(PIECES)).map("".join))
def test_any_text_gives_the_same_or_nothing(text: str) -> None:
    agrees(text)
    agrees("a: " + text)


@given(DOCUMENTS, st.sampled_from((True, False, None)), st.sampled_from((None, '"', "'")))
def test_any_document_gives_the_same_or_nothing(
    document: dict[str, object], flow: bool | None, style: str | None
) -> None:
    agrees(yaml.safe_dump(document, default_flow_style=flow, default_style=style, allow_unicode=True))


@pytest.mark.parametrize(
    "text",
    [
        "a: b",
        "a: {b: [1, -2, 0x1f, 1.5, true, Null, ~, x y]}\n80: 'é'\nc: \"a\\tb\"\n",
        "a:\n- 1\n- b: 2\n  c:\nd: |\n  text\n  more\ne: >-\n  folded\n  text\n",
        "# a comment\n{}\n",
        "{a, b: }",
        "'<<': 1",
        "a: '<<'",
        "a: <<",
    ],
)
def test_good_documents_are_read_the_quick_way(text: str) -> None:
    assert agrees(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "- a",
        "a: 1\na: 2",
        "a: &x 1\nb: 2",
        "a: *x",
        "<<: {a: 1}",
        "? [a]\n: b",
        "a: !!str 1",
        "a: b\n---\nc: d",
        "a: '\\x07'\nb: \"\\x07\"",
        '"a\\tb": 1',
        "a: " + "9" * 40,
        "a: [",
        "a:\n\t- b",
        "a: " + "[" * (DEEPEST + 2) + "]" * (DEEPEST + 2),
        "a: [" + "x," * MOST_VALUES + "]",
    ],
)
def test_what_is_wrong_or_unusual_is_left_to_the_thorough_way(text: str) -> None:
    assert values(text) is None
    assert gc.isenabled()


class File(Section):
    a: int


def test_good_file_needs_no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configfile, "parse", None)
    assert load("a: 1", "f", File).a == 1


@pytest.mark.parametrize("text", ["a: x", "b: 1", "a: 1\na: 2", "a: 1\nb: 2"])
def test_problems_come_with_their_places(text: str) -> None:
    with pytest.raises(InvalidConfigError) as quick:
        load(text, "f", File)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(configfile, "values", lambda text: None)
        with pytest.raises(InvalidConfigError) as thorough:
            load(text, "f", File)
    assert str(quick.value) == str(thorough.value)
    assert "f:" in str(quick.value)


def test_findings_come_with_their_places() -> None:
    with pytest.raises(InvalidConfigError, match=r"f:2:4: a: too small"):
        load("# c\na: 1", "f", File, lambda file: [(("a",), "too small")] if file.a < 2 else [])
