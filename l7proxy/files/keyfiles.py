"""Files of keys that sign what clients bring back.

One rule: what cannot be used is told when the configuration is read, of the key that names it. What is used is what was
read then, whatever becomes of the files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from hashlib import sha256

from l7proxy.core.settings.stickiness import SHORTEST_KEY_BYTES

LARGEST_BYTES = 64 * 1024


def read(path: str, held: Mapping[str, str] | None = None) -> str:
    """What the file at `path` holds (as latin-1). `held` is what files held for who read them before, by path.

    Raises: ValueError with what is wrong, and what to do.
    """
    text = held[path] if held is not None and path in held else _content(path)
    keys_of(text, path)
    return text


def keys_of(text: str, path: str) -> tuple[bytes, ...]:
    """The keys in `text`: a line each; empty ones and those that begin with # are none. They have one length: 32 bytes.

    Raises: ValueError.

    >>> len(keys_of("# by hand\\n0123456789abcdef0123456789abcdef\\n", "f"))
    1
    """
    lines = [line.strip() for line in text.splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ValueError(f"{path} has no key: write one into it, `head -c 32 /dev/urandom | base64`")
    if any(len(key) < SHORTEST_KEY_BYTES for key in keys):
        raise ValueError(
            f"{path} has a key of less than {SHORTEST_KEY_BYTES} characters: make one by `head -c 32 /dev/urandom | "
            "base64`"
        )
    return tuple(sha256(key.encode("latin-1")).digest() for key in keys)


def _content(path: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ValueError(f"{path} is no file: name one that holds a key")
            data = os.read(descriptor, LARGEST_BYTES + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise ValueError(
            f"{path} is not there: write its right path, or make it, `head -c 32 /dev/urandom | base64`"
        ) from None
    except PermissionError:
        raise ValueError(f"{path} may not be read by this user: let its group read it (chgrp, chmod g+r)") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(data) > LARGEST_BYTES:
        raise ValueError(f"{path} is larger than {LARGEST_BYTES} bytes: it is no file of keys")
    return data.decode("latin-1")
