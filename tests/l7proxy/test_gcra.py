"""Token buckets: as a model that counts tokens has them, and both codes alike."""

from __future__ import annotations

import random

import pytest

from l7proxy.core.atoms import PlainWords, Words
from l7proxy.core.gcra import decide

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("seed", range(20))
def test_a_bucket_gives_what_a_count_of_tokens_would(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 -- reproducible, not secret
    interval, burst = rng.randint(1, 50), rng.randint(1, 10)
    full_at, now, tokens, at = 0, 1000, burst * interval, 1000  # tokens in parts of an interval
    for _ in range(500):
        now += rng.choice([0, 0, 1, rng.randint(0, 3 * interval)])
        tokens, at = min(burst * interval, tokens + now - at), now
        full_at, wait = decide(full_at, now, interval, burst)
        if tokens >= interval:
            assert wait == 0
            tokens -= interval
        else:
            assert wait == interval - tokens


def test_who_waits_as_told_gets_one() -> None:
    full_at, wait = decide(0, 100, 7, 1)
    assert wait == 0
    full_at, wait = decide(full_at, 103, 7, 1)
    assert wait == 4
    assert decide(full_at, 103 + wait - 1, 7, 1)[1] == 1
    assert decide(full_at, 103 + wait, 7, 1)[1] == 0


@pytest.mark.skipif(Words is PlainWords, reason="nothing is compiled")
@pytest.mark.parametrize("seed", range(10))
def test_both_codes_do_the_same(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 -- reproducible, not secret
    plain, compiled = PlainWords(bytearray(8 * 64)), Words(bytearray(8 * 64))
    now = 1000
    for _ in range(2000):
        now += rng.randint(0, 20)
        what: tuple[str | int, ...]
        match rng.randint(0, 3):
            case 0:
                what = ("fill", 0, 4, rng.randint(1, 6), now, rng.choice([5, 50]), rng.randint(1, 4))
            case 1:
                what = ("take", 20 + 4 * rng.randint(0, 2), 20, 4, 19, rng.randint(0, 6))
            case 2:
                what = ("tally", 40, 4, 3, 4, rng.randint(0, 3))
            case _:
                what = ("add", rng.choice([20, 24, 28, *range(40, 52)]), rng.choice([-1, 1, 1 << 16]))
        plain.put(19, 3)
        compiled.put(19, 3)
        name, *words = what
        assert getattr(plain, str(name))(*words) == getattr(compiled, str(name))(*words), what
    assert [plain.get(at) for at in range(64)] == [compiled.get(at) for at in range(64)]


@pytest.mark.parametrize("words", [PlainWords(bytearray(64)), Words(bytearray(64))])
def test_no_place_beyond_is_touched(words: PlainWords) -> None:
    for at in (8, 2**40):
        with pytest.raises((IndexError, OverflowError)):
            words.get(at)
        with pytest.raises((IndexError, OverflowError)):
            words.put(at, 1)
        with pytest.raises((IndexError, OverflowError)):
            words.add(at, 1)
