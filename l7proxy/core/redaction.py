"""What is kept from whoever looks at requests and at the configuration: secrets.

One rule: rather too much. What a name or a look gives away as a secret never leaves this process; what stands instead
says that something was there.
"""

from __future__ import annotations

import re

HIDDEN = "(hidden)"
LONGEST_KNOWN = 512
LONGEST_UNKNOWN = 64
"""Letters that are shown of a header's value that nobody here knows."""
LONGEST_TARGET = 1024
LONGEST_LINES = 100

_TELLING = re.compile(
    r"(^|[-_.])(auth|authorization|bearer|code|cred|credential|credentials|jwt|key|nonce|otp|pass|passwd|password|pin"
    r"|pw|pwd|secret|session|sessionid|sid|sig|signature|ticket|token)s?($|[-_.])"
    r"|apikey|accesskey|accesstoken|idtoken|passphrase|passcode|sessionid|csrf|xsrf",
    re.IGNORECASE,
)
"""Names of what is a secret."""
_LIKE_TOKEN = re.compile(r"(?=[^\s]*[0-9])(?=[^\s]*[A-Za-z])[A-Za-z0-9+/=_~.%-]{24,}")
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]*)*")
_HASH = re.compile(r"\$(2[abxy]?|5|6|7|y|apr1|argon2\w*)\$\S+")
_USERINFO = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_KNOWN = re.compile(
    r"(accept|content|if|sec-ch|sec-fetch|access-control|x-forwarded|upgrade)(-[a-z-]+)?|age|cache-control|connection|date"
    r"|dnt|expect|forwarded|from|host|keep-alive|last-modified|max-forwards|origin|pragma|priority|range|te|traceparent"
    r"|tracestate|transfer-encoding|user-agent|via|x-real-ip|x-request-id"
)
_CREDENTIALS = frozenset({"authorization", "proxy-authorization"})
_COOKIES = frozenset({"cookie", "set-cookie"})


def header_lines(raw: bytes) -> list[str]:
    """The header lines of a head, ready to be shown.

    >>> header_lines(b"Authorization: Basic YTpi\\r\\nCookie: a=1; b=2\\r\\nX-Api-Key: 7\\r\\nX-Tier: l7\\r\\n")
    ['Authorization: Basic (hidden)', 'Cookie: a=(hidden); b=(hidden)', 'X-Api-Key: (hidden)', 'X-Tier: l7']
    """
    lines = [line for line in raw.split(b"\r\n") if line]
    shown = []
    for line in lines[:LONGEST_LINES]:
        name, sign, value = plain(line).partition(":")
        shown.append(f"{name}: {_header(name.strip().lower(), value.strip())}" if sign else HIDDEN)
    if len(lines) > LONGEST_LINES:
        shown.append(f"({len(lines) - LONGEST_LINES} more)")
    return shown


def _header(name: str, value: str) -> str:
    if name in _CREDENTIALS:
        scheme, blank, rest = value.partition(" ")
        return f"{scheme} {HIDDEN}" if blank and rest and scheme.isalnum() else HIDDEN
    if name in _COOKIES:
        parts = [part.partition("=") for part in value.split(";")]
        return ";".join(f"{key}={HIDDEN}" if sign else HIDDEN for key, sign, _ in parts)
    if name == "referer":
        return target(value)
    if _KNOWN.fullmatch(name):
        return cut(_JWT.sub(HIDDEN, value), LONGEST_KNOWN)
    if _TELLING.search(name):
        return HIDDEN
    return cut(_JWT.sub(HIDDEN, value), LONGEST_UNKNOWN)


def target(text: str) -> str:
    """A request's target, or a URL, without the values in its query that are or look like secrets.

    >>> target("/a?page=2&token=x&k=0123456789abcdefABCDEF012345")
    '/a?page=2&token=(hidden)&k=(hidden)'
    """
    path, mark, query = text.partition("?")
    path = _JWT.sub(HIDDEN, _USERINFO.sub(HIDDEN, path))
    if not mark:
        return cut(path, LONGEST_TARGET)
    parts = []
    for part in query.split("&"):
        name, sign, value = part.partition("=")
        if (sign and _TELLING.search(name)) or _JWT.search(value or name) or _LIKE_TOKEN.fullmatch(value or name):
            parts.append(f"{name}={HIDDEN}" if sign else HIDDEN)
        else:
            parts.append(part)
    return cut(f"{path}?{'&'.join(parts)}", LONGEST_TARGET)


def value_of_key(keys: tuple[str, ...], value: str) -> str:
    """A value of the configuration, at the place that `keys` name, as it may be shown.

    >>> value_of_key(("check", "password"), "s3"), value_of_key(("basic", "users", "ann"), "$2b$x")
    ('(hidden)', '(hidden)')
    >>> value_of_key(("tls", "key"), "/etc/ssl/a.key"), value_of_key(("url",), "http://u:p@auth/x")
    ('/etc/ssl/a.key', 'http://(hidden)@auth/x')
    """
    name = keys[-1] if keys else ""
    if value.startswith("/") and "\n" not in value:
        return value  # a path, or a file's name: what is in the file is not here
    if "users" in keys[:-1] or _HASH.search(value):
        return HIDDEN
    if "headers" in keys[:-1] or "header" in keys[:-1]:
        shown = _header(name.lower(), value)
        return value if HIDDEN not in shown else shown
    if _TELLING.search(name) and name not in _NO_SECRETS:
        return HIDDEN
    return _JWT.sub(HIDDEN, _USERINFO.sub(HIDDEN, value))


_NO_SECRETS = frozenset({"key", "key_file", "auth", "code", "pass"})
"""Keys of the configuration that sound like it, and name files, headers or numbers."""


def without_secrets(value: object, keys: tuple[str, ...] = ()) -> object:
    """A configuration's values, as they may be shown.

    >>> without_secrets({"headers": {"set": {"Authorization": "Bearer x", "X-A": "b"}}, "timeouts": [1, "2s"]})
    {'headers': {'set': {'Authorization': 'Bearer (hidden)', 'X-A': 'b'}}, 'timeouts': [1, '2s']}
    """
    match value:
        case dict():
            return {key: without_secrets(each, (*keys, str(key))) for key, each in value.items()}
        case list():
            return [without_secrets(each, keys) for each in value]
        case str():
            return value_of_key(keys, value)
        case int() | float() if not isinstance(value, bool) and value_of_key(keys, str(value)) == HIDDEN:
            return HIDDEN
        case _:
            return value


def plain(raw: bytes) -> str:
    """Bytes of a head as text without anything that could move a terminal's cursor."""
    text = raw.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else "".join(each if each.isprintable() else _escaped(each) for each in text)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def cut(text: str, longest: int) -> str:
    """At most `longest` letters of `text`, and how many there were.

    >>> cut("abcdef", 4)
    'abcd... (6)'
    """
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text)})"
