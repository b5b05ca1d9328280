"""When a request may be sent again."""

from __future__ import annotations

import pytest

from l7proxy.core.retry import IDEMPOTENT, Failure, Retry, retry

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("failure", "repeatable", "expected"),
    [
        (Failure.NOT_CONNECTED, True, Retry.OTHER_BACKEND),
        (Failure.NOT_CONNECTED, False, Retry.OTHER_BACKEND),
        (Failure.STALE_UNSENT, True, Retry.SAME_BACKEND),
        (Failure.STALE_UNSENT, False, Retry.SAME_BACKEND),
        (Failure.STALE, True, Retry.SAME_BACKEND),
        (Failure.STALE, False, Retry.NO),
        (Failure.BROKEN, True, Retry.OTHER_BACKEND),
        (Failure.BROKEN, False, Retry.NO),
        (Failure.FINAL, True, Retry.NO),
        (Failure.FINAL, False, Retry.NO),
    ],
)
def test_what_comes_after_a_failure(failure: Failure, repeatable: bool, expected: Retry) -> None:
    assert retry(failure, repeatable) is expected


@pytest.mark.parametrize("failure", Failure)
def test_what_may_not_be_repeated_is_sent_again_only_if_nothing_was_sent(failure: Failure) -> None:
    unsent = failure in {Failure.NOT_CONNECTED, Failure.STALE_UNSENT}
    assert (retry(failure, False) is not Retry.NO) == unsent


@pytest.mark.parametrize("method", [b"POST", b"PATCH", b"CONNECT", b"FOO", b"get"])
def test_methods_that_may_change_something_twice_are_not_repeated(method: bytes) -> None:
    assert method not in IDEMPOTENT
