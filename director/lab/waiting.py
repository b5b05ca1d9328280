"""Waiting for a state of the lab, instead of sleeping for a time.

One rule: it ends at its limit, and says whether the state was reached.
"""

import time
from collections.abc import Callable


def wait_until(fact: Callable[[], bool], limit_s: float = 10.0, every_s: float = 0.05) -> bool:
    """Ask `fact` again and again until it holds, at least once; whether it did within `limit_s`."""
    until = time.monotonic() + limit_s
    while not fact():
        if time.monotonic() >= until:
            return False
        time.sleep(every_s)
    return True
