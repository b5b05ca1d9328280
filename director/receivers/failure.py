"""Why a notification did not arrive, and the files and certificates that it needs."""

from __future__ import annotations

import ssl
from pathlib import Path

from director.core.event import printable
from director.core.notifying import Trust
from director.kit.errors import DirectorError

MOST_SECRET_BYTES = 16 * 1024
MOST_REASON = 300


class NotDeliveredError(DirectorError):
    """It did not arrive this time."""


class RefusedError(NotDeliveredError):
    """The receiver does not want these events, however often they come."""


def reason(error: BaseException) -> str:
    """What went wrong, in one bounded line."""
    return one_line(str(getattr(error, "strerror", None) or str(error) or type(error).__name__))


def one_line(said: str) -> str:
    """What a peer said, bounded, so that it cannot steer a terminal."""
    return printable(" ".join(said[: 2 * MOST_REASON].split()), MOST_REASON)


def read_secret(path: str) -> str:
    """The first line of a file. Blocks. Raises: NotDeliveredError, without the content."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(MOST_SECRET_BYTES + 1)
        text = content.decode().strip("\r\n")
    except OSError as error:
        raise NotDeliveredError(f"could not read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise NotDeliveredError(f"{path} holds no text") from error
    if not text or len(content) > MOST_SECRET_BYTES or not text.isascii() or not text.isprintable():
        raise NotDeliveredError(f"{path} does not hold one line of printable ASCII")
    return text


def tls_context(trust: Trust) -> ssl.SSLContext:
    """How certificates are looked at. Blocks. Raises: NotDeliveredError."""
    try:
        context = ssl.create_default_context(cafile=trust.ca_file)
    except OSError as error:  # SSLError is one
        raise NotDeliveredError(
            f"could not use {trust.ca_file or 'the certificates of this host'}: {reason(error)}"
        ) from error
    if not trust.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
