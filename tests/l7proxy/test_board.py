"""What workers share: caps that no race breaks, and nothing that a process takes with it when it dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from director.kit.errors import HostError
from l7proxy.board import BUCKET_SETS, BUCKET_WAYS, SLOTS, TALLY_SETS, TALLY_WAYS, Board
from l7proxy.core.capacity import ROWS
from l7proxy.core.ledger import FORGOTTEN_AFTER_S, Ledger, NoPlaceError

pytestmark = pytest.mark.unit

NAMES = ["a", "b"]


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board.make(seated=False)
    made.know(NAMES)
    yield made
    made.close()


def joined(board: Board) -> Board:
    """The same board as a new worker sees it."""
    mine = Board.join(os.dup(board.descriptor), board.seat())
    mine.know(NAMES, board.know(NAMES))
    return mine


def test_a_cap_holds_for_all_together(board: Board) -> None:
    one, other = joined(board).count("a"), joined(board).count("a")
    assert [one.take(3), other.take(3), one.take(3), other.take(3), one.take(3)] == [True, True, True, False, False]
    assert (one.own, other.own, one.total(), sorted(one.others())) == (2, 1, 3, [1])
    one.give()
    assert other.take(3)
    assert joined(board).count("b").total() == 0


def test_what_a_worker_had_is_given_back_when_it_is_gone(board: Board) -> None:
    one, other = joined(board), joined(board)
    assert [one.count("a").take(9) for _ in range(5)] == [True] * 5
    assert one.tallies.take(77 << 16, 9)
    assert other.count("a").take(9)
    board.leave(one.slot)
    assert other.count("a").total() == 1
    assert not other.tallies.take(77 << 16, 0)
    assert other.tallies.take(77 << 16, 1)
    assert joined(board).slot == one.slot


def test_cells_are_seen_by_all(board: Board) -> None:
    one, other = joined(board).cell("a"), joined(board).cell("a")
    one.value, one.number = -7, 2.5
    assert (other.value, other.number) == (-7, 2.5)
    assert other.add(9) == 2
    assert (other.swap(1, 5), other.swap(2, 6), one.value) == (False, True, 6)
    assert joined(board).cell("b").value == 0


def test_a_clients_tally_is_of_all_workers_and_ends_with_its_last(board: Board) -> None:
    one, other = joined(board).tallies, joined(board).tallies
    key = board.key("r", "192.0.2.1")
    assert [one.take(key, 2), other.take(key, 2), one.take(key, 2), other.take(key, 2)] == [True, True, False, False]
    assert other.take(board.key("r", "192.0.2.2"), 1)
    one.give(key)
    assert len(one) == 0
    assert other.take(key, 2)


def test_who_only_looks_takes_nothing_and_sees_what_all_have(board: Board) -> None:
    one, above = joined(board), board
    assert above.buckets.left(7, 1000, 10, 2) == (2, 0)
    for left in (1, 0):
        assert one.buckets.take(7, 1000, 10, 2) == 0
        assert [above.buckets.left(7, 1000, 10, 2)[0] for _ in range(3)] == [left] * 3
    for now in (1001, 1009, 1010, 1025):
        left, wait = above.buckets.left(7, now, 10, 2)
        assert (left > 0) is (wait == 0)
        if wait:
            assert one.buckets.take(7, now, 10, 2) == wait
    assert above.buckets.left(7, 1025, 10, 2) == (2, 0)
    key = 9 << 16
    assert one.tallies.take(key, 5)
    assert one.tallies.take(key, 5)
    assert [above.tallies.total(key) for _ in range(3)] == [2, 2, 2]
    assert above.tallies.total(8 << 16) == 0
    assert len(above.tallies) == 0
    keys = [(each << 32) * TALLY_SETS for each in range(1, TALLY_WAYS + 3)]
    assert all(one.tallies.take(each, 1) for each in keys)
    assert all(one.tallies.total(each) == 1 for each in keys), "also of what has no room on the board"


def test_tallies_that_have_no_room_on_the_board_are_held_by_each_worker(board: Board) -> None:
    tallies = joined(board).tallies
    keys = [(each << 32) * TALLY_SETS for each in range(1, TALLY_WAYS + 3)]  # all of one set
    assert all(tallies.take(key, 1) for key in keys)
    assert not any(tallies.take(key, 1) for key in keys)
    for key in keys:
        tallies.give(key)
    assert len(tallies) == 0
    assert all(tallies.take(key, 1) for key in keys)


def test_a_bucket_is_shared_and_refills(board: Board) -> None:
    one, other = joined(board).buckets, joined(board).buckets
    key = board.key("r", "192.0.2.1")
    assert [each.take(key, 1000, 10, 3) for each in (one, other, one, other, one)] == [0, 0, 0, 10, 10]
    assert one.take(key, 1004, 10, 3) == 6
    assert other.take(key, 1010, 10, 3) == 0
    assert one.take(board.key("r", "192.0.2.2"), 1010, 10, 3) == 0


def test_a_changed_limit_holds_at_once(board: Board) -> None:
    buckets, key = board.buckets, 5
    hour = 3600 * 10**9
    assert [buckets.take(key, 10**9, hour, 2) for _ in range(3)] == [0, 0, hour]
    assert buckets.take(key, 10**9, 10**7, 2) == 10**7  # empty under the old limit is empty, but refills by the new one
    assert buckets.take(key, 10**9 + 10**7, 10**7, 2) == 0
    assert buckets.take(key, 10**9 + 3 * 10**7, 10**7, 1) == 0


def test_full_buckets_are_forgotten_first(board: Board) -> None:
    buckets = board.buckets
    keys = [1 + each * BUCKET_SETS for each in range(BUCKET_WAYS)]  # all of one set
    for place, key in enumerate(keys):
        assert buckets.take(key, 1000 + place, 1000, 1) == 0
    assert all(buckets.take(key, 1010, 1000, 1) for key in keys)
    newcomer = 1 + BUCKET_WAYS * BUCKET_SETS
    assert buckets.take(newcomer, 2001, 1000, 1) == 0  # in place of one that is full by now
    assert [bool(buckets.take(key, 1020, 1000, 1)) for key in [newcomer, *keys[2:]]] == [True] * (BUCKET_WAYS - 1)


def test_a_board_outlives_its_program(board: Board) -> None:
    stays, goes = joined(board), joined(board)
    assert stays.count("b").take(5)
    assert goes.count("b").take(5)
    left = replace(board.left(), descriptor=os.dup(board.descriptor))
    following = Board.take_over(left, [stays.slot])
    following.know(["new", *NAMES])
    assert following.count("b").total() == 1
    assert following.seat() not in {stays.slot}
    following.close()


def test_what_is_no_board_is_refused() -> None:
    memory = os.memfd_create("other")
    with pytest.raises(HostError, match="another version"):
        Board.join(memory, 1)
    os.close(memory)


RACE = """
    import os, sys
    from l7proxy.board import Board
    board = Board.join(int(sys.argv[1]), int(sys.argv[2]))
    board.know(["a"], {"a": 0})
    count, key, taken, most = board.count("a"), 12345 << 16, 0, 0
    print("ready", flush=True)
    sys.stdin.readline()
    for turn in range(4000):
        if count.take(2):
            taken += 1
            most = max(most, count.total())
            count.give()
        if board.tallies.take(key, 1):
            assert board.cell("a").swap(0, os.getpid()), "two had what one may have"
            board.cell("a").swap(os.getpid(), 0)
            board.tallies.give(key)
    rate = sum(board.buckets.take(9, 10**9, 10**6, 1000) == 0 for _ in range(1000))
    assert (count.own, len(board.tallies)) == (0, 0)
    print(taken, rate)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("pure", ["", "1"])
def test_processes_that_race_never_have_more_than_the_cap(board: Board, pure: str) -> None:
    board.know(["a"])
    slots = [board.seat() for _ in range(3)]
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(RACE), str(board.descriptor), str(slot)],
            pass_fds=[board.descriptor],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "L7PROXY_PURE": pure},
        )
        for slot in slots
    ]
    rates = 0
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    for racer in racers:
        assert racer.stdout is not None
        said = racer.stdout.readline().split()
        assert int(said[0]) > 0
        rates += int(said[1])
        racer.communicate("\n")
        assert racer.returncode == 0
    # Without atoms, one that is interrupted in the middle takes back what others took meanwhile.
    assert 1000 <= rates <= (1000 if not pure else 2000)
    assert board.count("a").total() == 0


def test_one_that_was_killed_holds_nothing(board: Board) -> None:
    board.know(["a"])
    slot = board.seat()
    code = (
        "import sys, time; from l7proxy.board import Board; b = Board.join(int(sys.argv[1]), int(sys.argv[2]));"
        "b.know(['a'], {'a': 0}); assert b.count('a').take(1); print('has it', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(board.descriptor), str(slot)],
        pass_fds=[board.descriptor],
        stdout=subprocess.PIPE,
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"has it\n"
        assert board.count("a").total() == 1
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    board.leave(slot)
    assert board.count("a").total() == 0


def test_the_board_takes_memory_only_where_it_is_used() -> None:
    board = Board.make()
    names = [str(each) for each in range(100)]
    board.know(names)
    for name in names:
        assert board.count(name).take(1)
    assert os.fstat(board.descriptor).st_blocks * 512 < 64 * 1024
    board.close()


# who has which row and slot


def test_a_name_keeps_its_row() -> None:
    ledger = Ledger(4, 4)
    assert ledger.give(["a", "b"], 0.0, lambda _: True) == {"a": 0, "b": 1}
    assert ledger.give(["b", "c"], 0.0, lambda _: True) == {"b": 1, "c": 2}
    ledger.keep(["c"], 0.0)
    assert ledger.give(["a"], 9e9, lambda _: True) == {"a": 0}


def test_a_row_is_given_again_when_nobody_knows_its_former_name() -> None:
    ledger = Ledger(2, 4)
    old = ledger.seat()
    ledger.give(["a", "b"], 0.0, lambda _: True)
    ledger.keep(["b"], 0.0)
    with pytest.raises(NoPlaceError, match="room for 2 limits"):
        ledger.give(["c"], 1.0, lambda _: True)
    ledger.seat()
    ledger.leave(old)
    with pytest.raises(NoPlaceError):
        ledger.give(["c"], 1.0, lambda _: False)
    assert ledger.give(["c"], 1.0, lambda _: True) == {"c": 0}
    with pytest.raises(NoPlaceError):
        ledger.give(["a"], 9e9, lambda _: True)


def test_a_row_is_given_again_after_a_while_though_workers_stay() -> None:
    ledger = Ledger(1, 4)
    ledger.seat()
    ledger.give(["a"], 0.0, lambda _: True)
    ledger.keep([], 5.0)
    ledger.keep([], 50.0)
    with pytest.raises(NoPlaceError):
        ledger.give(["c"], 5.0 + FORGOTTEN_AFTER_S - 1, lambda _: True)
    assert ledger.give(["c"], 5.0 + FORGOTTEN_AFTER_S, lambda _: True) == {"c": 0}


def test_slots_are_bounded() -> None:
    ledger = Ledger(1, 2)
    assert (ledger.seat(), ledger.seat()) == (0, 1)
    with pytest.raises(NoPlaceError, match="2 workers are there already"):
        ledger.seat()
    ledger.leave(0)
    assert ledger.seat() == 0


def test_sizes_are_worth_their_promise() -> None:
    assert SLOTS >= 3 * 256
    assert ROWS >= 10_000


def test_a_take_costs_little(board: Board) -> None:
    count = joined(board).count("a")
    started_at = time.perf_counter()
    for _ in range(10_000):
        count.take(5)
        count.give()
    assert time.perf_counter() - started_at < 0.5
