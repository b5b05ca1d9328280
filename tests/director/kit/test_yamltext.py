"""What is written as YAML is read back, by this project's reader and by others."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from director.kit.yamltext import Inline, Value, render
from director.kit.yamltree import parse

pytestmark = pytest.mark.unit

WORDS = (
    "no",
    "On",
    "null",
    "True",
    "~",
    "1:30",
    "0x10",
    "1e3",
    ".5",
    "2026-01-31",
    "5m",
    "80-81",
    "10.0.0.1",
    "a b",
    "-",
)
text = st.one_of(
    st.sampled_from(WORDS), st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=8)
)
scalars: st.SearchStrategy[Value] = st.one_of(st.booleans(), st.integers(-(2**31), 2**32), text)


def mappings(inner: st.SearchStrategy[Value]) -> st.SearchStrategy[Value]:
    found = st.dictionaries(text, inner, max_size=3)
    return st.one_of(found, found.map(Inline), st.lists(inner, max_size=3))


documents = st.dictionaries(text, st.recursive(scalars, mappings, max_leaves=8), min_size=1, max_size=4)


@given(documents)
def test_what_is_written_is_read_back(data: dict[str, Value]) -> None:
    written = render(data)
    tree = parse(written)
    assert tree.problems == []
    assert tree.data == data
    assert yaml.safe_load(written) == data, "a reader of YAML 1.1 sees the same"


def test_a_comment_stands_behind_its_key_and_long_lines_stay_whole() -> None:
    data: dict[str, Value] = {"web": {"forward": "nat", "servers": {"a": Inline(address="10.0.0.1")}, "none": {}}}
    comments = {("web",): "one", ("web", "forward"): "two", ("web", "servers", "a"): "three", ("gone",): "four"}
    assert render(data, comments, ["now", "a\nb"]) == (
        "# now\n"
        "# a\\U0000000ab\n"
        "web:  # one\n  forward: nat  # two\n  servers:\n    a: {address: 10.0.0.1}  # three\n  none: {}\n"
    )
