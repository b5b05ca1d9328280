"""Header lines by their names, in Python and compiled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7proxy.core.lines import Named, PlainNamed

pytestmark = pytest.mark.unit

NAMES = st.sampled_from([b"a", b"x-a", b"x-", b"x-ab", b"date", b"cookie", b"d"])
WRITTEN = NAMES | NAMES.map(bytes.upper) | NAMES.map(bytes.title) | st.just(b"")
VALUES = st.sampled_from([b"", b" x-a: b", b" 1", b"\xe4:", b" A:b"])
LINES = st.lists(st.tuples(WRITTEN, VALUES).map(lambda line: line[0] + b":" + line[1] + b"\r\n"), max_size=6)


@given(LINES, st.lists(NAMES, max_size=3), st.lists(NAMES, max_size=2), st.lists(NAMES, max_size=2))
def test_both_see_the_same(lines: list[bytes], names: list[bytes], begins: list[bytes], but: list[bytes]) -> None:
    fields = b"".join(lines)
    plain, named = PlainNamed(names, begins, but), Named(names, begins, but)
    kept = [
        line
        for line in lines
        for name in [line.partition(b":")[0].lower()]
        if not (name in names or (name not in but and name and name.startswith(tuple(begins))))
    ]
    assert plain.without(fields) == named.without(fields) == b"".join(kept)
    assert plain.in_lines(fields) == named.in_lines(fields) == (kept != lines)


def test_the_end_of_a_head_stays() -> None:
    for kind in (Named, PlainNamed):
        assert kind([b"a"]).without(b"A: b\r\nVia: c\r\n\r\n") == b"Via: c\r\n\r\n"
