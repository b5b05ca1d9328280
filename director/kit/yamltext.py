"""Plain values to YAML text, laid out as people write it.

One rule: every YAML reader takes the text for the same values: what one of them might read as something else stands
in quotes (`no` and `on` are booleans in YAML 1.1, `1:30` is a number there).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

Value = str | int | bool | list["Value"] | dict[str, "Value"]
Comments = Mapping[tuple[str, ...], str]

_PLAIN = re.compile(
    r"[A-Za-z][A-Za-z0-9_.-]*"  # a name
    r"|[0-9]{1,3}(\.[0-9]{1,3}){3}"  # an IPv4 address
    r"|[0-9]+(ms|s|m|h|d)"  # a duration
    r"|[0-9]{1,5}-[0-9]{1,5}"  # a range of ports
)
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
_NO_COMMENTS: Comments = MappingProxyType({})


class Inline(dict[str, Value]):
    """A mapping that is written on one line: `{address: 10.0.0.1, weight: 3}`."""


def render(data: dict[str, Value], comments: Comments = _NO_COMMENTS, head: Iterable[str] = ()) -> str:
    """`data` as a YAML document. A comment stands behind the key at its path, the lines of `head` before all.

    >>> print(render({"web": {"port": [80, "8000-8099"], "on": "no", "a": Inline(address="fd09::1")}}), end="")
    web:
      port: [80, 8000-8099]
      "on": "no"
      a: {address: "fd09::1"}
    """
    lines = [f"# {_printable(line)}" for line in head]
    _block(data, (), comments, lines)
    return "".join(f"{line}\n" for line in (lines if data else [*lines, "{}"]))


def _block(data: dict[str, Value], path: tuple[str, ...], comments: Comments, lines: list[str]) -> None:
    indent = "  " * len(path)
    for key, value in data.items():
        here = (*path, key)
        comment = f"  # {_printable(comments[here])}" if here in comments else ""
        if isinstance(value, dict) and value and not isinstance(value, Inline):
            lines.append(f"{indent}{_scalar(key)}:{comment}")
            _block(value, here, comments, lines)
        else:
            lines.append(f"{indent}{_scalar(key)}: {_flow(value)}{comment}")


def _flow(value: Value) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _scalar(value: str | int) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return value if _PLAIN.fullmatch(value) and value.lower() not in _WORDS else _quoted(value)


def _quoted(text: str) -> str:
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text) + '"'


def _printable(comment: str) -> str:
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in comment)
