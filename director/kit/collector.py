"""Python's collector of cyclic garbage, out of the way while thousands of values without cycles are made.

One rule: it is paused for a bounded piece of work, and goes on afterwards whatever happened.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """No look for garbage until the end of the block: it would go through all that was made, again and again."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
