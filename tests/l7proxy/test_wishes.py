"""What the operator wants: what comes of it, and that a restart does not forget it."""

from __future__ import annotations

import json
import logging
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7proxy.core.config import load_config
from l7proxy.core.wishes import BackendName, Want, Wish, changed, effective, entries_of, wishes_of
from l7proxy.health import ToldHealth
from l7proxy.http.pool import IdleBudget
from l7proxy.runtime import Snapshot, make_snapshot
from l7proxy.wishes import Kept, take_wishes
from tests.l7proxy.test_config import problems

pytestmark = pytest.mark.unit

A, B = ("up", "a"), ("up", "b")
TEXT = """
listeners: {http: {bind: "127.0.0.1:80"}}
routes: [{name: all, upstream: up}]
upstreams:
  up:
    backends:
      a: {address: "127.0.0.1:8001", weight: 2}
      b: {address: "127.0.0.1:8002"}
"""
NAMES = st.tuples(st.text(min_size=1, max_size=5), st.text(min_size=1, max_size=5))
WISHES = st.builds(Wish, st.sampled_from(Want), st.none() | st.integers(0, 1000), st.floats(0, 4e9))


def snapshot(text: str = TEXT, before: Snapshot | None = None) -> Snapshot:
    return make_snapshot(load_config(text, "a.yaml"), ToldHealth((), ()), IdleBudget(10), before)


@pytest.mark.parametrize(
    ("wish", "weight", "why"),
    [
        (None, 2, ""),
        (Wish(Want.DRAINED, 9, 60.0), 0, "drained by the operator since 1970-01-01T00:01:00Z"),
        (Wish(Want.DISABLED), 0, "disabled by the operator since 1970-01-01T00:00:00Z"),
        (Wish(weight=7), 7, "weight 7 by the operator since 1970-01-01T00:00:00Z, 2 in the file"),
        (Wish(weight=0), 0, "weight 0 by the operator since 1970-01-01T00:00:00Z, 2 in the file"),
    ],
)
def test_a_wish_decides_the_weight_and_says_so(wish: Wish | None, weight: int, why: str) -> None:
    assert (effective(2, wish).weight, effective(2, wish).why) == (weight, why)


def test_the_same_wish_again_keeps_its_time() -> None:
    first = changed(None, "drain", 1.0)
    assert first == Wish(Want.DRAINED, None, 1.0)
    assert changed(first, "drain", 2.0) == first
    assert changed(first, "disable", 3.0) == Wish(Want.DISABLED, None, 3.0)
    assert changed(changed(first, "weight", 4.0, 5), "enable", 5.0) is None


@given(st.dictionaries(NAMES, WISHES, max_size=5))
def test_wishes_come_back_as_they_were_sent(wishes: dict[BackendName, Wish]) -> None:
    assert wishes_of(json.loads(json.dumps(entries_of(wishes)))) == wishes


@pytest.mark.parametrize(
    "entries", [None, [1], [["u", "a", "sunk", None, 1]], [["u", "a", "drained", 5000, 1]], [["u"]]]
)
def test_what_is_no_wish_is_refused(entries: object) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        wishes_of(entries)


def test_a_backend_does_as_is_wished_and_comes_back() -> None:
    found = snapshot()
    up = found.upstreams["up"]
    take_wishes(found, {A: Wish(Want.DRAINED, None, 100.0)}, 50.0, 130.0)
    assert (up.weights, up.backends["a"].drained_at) == ({"b": 1}, 20.0)
    take_wishes(found, {A: Wish(Want.DISABLED), B: Wish(weight=0)}, 50.0, 130.0)
    assert (up.weights, up.backends["a"].drained_at, up.next()) == ({}, None, None)
    assert up.why_nobody().startswith("no backend is up: a is disabled by the operator since ")
    take_wishes(found, {}, 50.0, 130.0)
    assert up.weights == {"a": 2, "b": 1}


def test_a_backend_that_moves_to_another_address_is_a_new_one_and_still_drained() -> None:
    wishes = {A: Wish(Want.DRAINED)}
    before = snapshot()
    take_wishes(before, wishes, 0.0, 0.0)
    after = snapshot(TEXT.replace("8001", "8003"), before)
    take_wishes(after, wishes, 0.0, 0.0)
    assert after.upstreams["up"].weights == {"b": 1}


def test_wishes_outlive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "below" / "state.json"
    kept = Kept(str(path), clock=lambda: 7.0)
    kept.read()
    assert kept.change(A, "drain")
    assert not kept.change(A, "drain")
    assert kept.save() == ""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = Kept(str(path))
    again.read()
    assert dict(again.wishes) == {A: Wish(Want.DRAINED, None, 7.0)}


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"version": 1}', '{"version": 2, "backends": []}', '{"version": 1, "backends": [[1]]}']
)
def test_a_file_that_cannot_be_read_is_told_and_left_alone(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state.json"
    path.write_text(content)
    kept = Kept(str(path))
    with caplog.at_level(logging.ERROR):
        kept.read()
    (record,) = caplog.records
    assert "move it away" in record.__dict__["reason"]
    kept.change(A, "drain")
    assert kept.save().startswith("this lasts only until l7proxy stops: ")
    assert path.read_text() == content
    path.unlink()
    assert kept.save() == ""
    assert "drained" in path.read_text()


def test_a_wish_that_cannot_be_saved_holds_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    kept = Kept(str(tmp_path / "file" / "state.json"))
    kept.change(A, "disable")
    assert "could not save" in kept.save()
    assert A in kept.wishes
    assert Kept().save().startswith("this lasts until l7proxy stops: name a file")


def test_wishes_move_with_the_file_that_keeps_them(tmp_path: Path) -> None:
    kept = Kept(str(tmp_path / "one"))
    kept.change(A, "drain")
    assert kept.use(str(tmp_path / "two")) == ""
    assert [each.name for each in tmp_path.iterdir()] == ["two"]


def test_the_next_program_keeps_what_it_is_left(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    kept = Kept(str(path))
    kept.take([("up", "a", "drained", None, 7.0)])
    assert "drained" in path.read_text()
    path.write_text("damaged")
    kept = Kept(str(path))
    kept.take([("up", "a", "drained", None, 7.0)])
    assert path.read_text() == "damaged"
    assert dict(kept.wishes) == {A: Wish(Want.DRAINED, None, 7.0)}


ADMIN = [
    ("admin: {}", "admin: nobody can ask: name a `socket`"),
    ("admin: {socket: admin.sock}", "admin.socket: 'admin.sock' is not an absolute path"),
    ("admin: {socket: /" + "x" * 107 + "}", "admin.socket: the path has 108 bytes, and a socket's has 107 at most"),
    ("admin: {socket: /run/}", "admin.socket: '/run/' is a directory"),
    ("admin: {socket: /run/a}\nstate: /run/a", "state: is the admin socket already"),
    ("state: a", "state: 'a' is not an absolute path"),
]


@pytest.mark.parametrize(("lines", "said"), ADMIN)
def test_what_is_wrong_about_the_admin_socket_is_found(lines: str, said: str) -> None:
    found = problems(TEXT + lines)
    assert any(said in line for line in found), found
