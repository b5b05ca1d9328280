"""Values in messages, as the operator wrote them and not as Python would."""

from __future__ import annotations


def shown(value: object) -> str:
    """A value as YAML has it, in at most 60 characters."""
    if isinstance(value, dict | list | tuple):
        return "a mapping" if isinstance(value, dict) else "a list"
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
