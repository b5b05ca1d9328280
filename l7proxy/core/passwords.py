"""Hashes of passwords: what a file may hold, and whether a password is the one.

One rule: a hash that is weak, or takes more time than a login may, is refused when the configuration is read. No
message shows any of it: what stands there may be the password itself.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator

BCRYPT = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")
SHA512 = re.compile(r"\$6\$(?:rounds=([0-9]{1,9})\$)?[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{86}")
HIGHEST_COST = 14
"""Of bcrypt: most of a second."""
MOST_ROUNDS = 500_000
"""Of sha512-crypt: a quarter of a second."""
LONGEST_PASSWORD_BYTES = 512
LONGEST_USER = 255
_BCRYPT_BYTES = 72
"""What bcrypt looks at; Apache and nginx forget the rest too."""
_MAKE = "make a hash with `htpasswd -nBC 10 NAME` or `mkpasswd -m bcrypt`"
_WEAK = {
    "$1$": "an MD5 hash",
    "$apr1$": "Apache's MD5 hash",
    "{SHA}": "a SHA-1 hash without salt",
    "{SSHA}": "a SHA-1 hash",
    "$5$": "a SHA-256 hash",
    "$y$": "a yescrypt hash",
    "$7$": "a scrypt hash",
    "$argon2": "an argon2 hash",
}


def problem(text: str) -> str:
    """What is wrong with a hash; empty where nothing is.

    >>> problem("secret")
    'is no hash, and passwords do not stand in files: make a hash with `htpasswd -nBC 10 NAME` or `mkpasswd -m bcrypt`'
    """
    if found := BCRYPT.fullmatch(text):
        cost = int(found[1])
        if not 4 <= cost <= 31:
            return f"is a bcrypt hash with a cost of {cost}, which there is not: {_MAKE}"
        if cost > HIGHEST_COST:
            return f"is a bcrypt hash with a cost of {cost}, seconds for each login: use 10 to {HIGHEST_COST}"
        return ""
    if found := SHA512.fullmatch(text):
        rounds = int(found[1] or 5000)
        if not 1000 <= rounds <= MOST_ROUNDS:
            return f"is a sha512-crypt hash of {rounds} rounds: use 5000 to {MOST_ROUNDS}"
        return ""
    for start, what in _WEAK.items():
        if text.startswith(start):
            return f"is {what}, and bcrypt and sha512-crypt are taken: {_MAKE}"
    if text.startswith(("$2", "$6$")):
        return f"is no whole hash: in YAML it stands in quotes; {_MAKE}"
    return f"is no hash, and passwords do not stand in files: {_MAKE}"


def read_htpasswd(content: bytes) -> Iterator[tuple[int, str, str]]:
    """Each line's number, its user, and its hash; without a `:` the hash is empty.

    >>> list(read_htpasswd(b"# staff\\nann:$2b$\\n\\nbob\\n"))
    [(2, 'ann', '$2b$'), (4, 'bob', '')]
    """
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        text = line.strip()
        if text and not text.startswith("#"):
            user, _, rest = text.partition(":")
            yield number, user, rest.partition(":")[0]


def read_login(value: bytes) -> tuple[str, bytes] | None:
    """The user and the password in a value of Authorization (RFC 7617), or None.

    >>> read_login(b"basic YW5uOnM6Yw=="), read_login(b"Bearer x"), read_login(b"Basic !")
    (('ann', b's:c'), None, None)
    """
    scheme, _, rest = value.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        user, colon, password = base64.b64decode(rest.strip(b" "), validate=True).partition(b":")
        name = user.decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    if not colon or not name.isprintable() or len(name) > LONGEST_USER or len(password) > LONGEST_PASSWORD_BYTES:
        return None
    return name, password


def get_ready(texts: Iterable[str]) -> None:
    """Load what these hashes need, so that the first login does not wait for it."""
    for start in {text[:2] for text in texts}:
        if start == "$2":
            import bcrypt  # noqa: F401
        else:
            import passlib.handlers.sha2_crypt  # noqa: F401


def is_right(password: bytes, text: str) -> bool:
    """Whether `text`, in which nothing is wrong, is a hash of `password`. It takes its time."""
    if b"\0" in password:
        return False
    if text.startswith("$2"):
        import bcrypt

        return bcrypt.checkpw(password[:_BCRYPT_BYTES], text.encode("ascii"))
    from passlib.hash import sha512_crypt

    return bool(sha512_crypt.verify(password, text))
