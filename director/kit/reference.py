"""A configuration's reference in Markdown, from its JSON Schema.

One rule: nothing is said here that the schema does not say, so that the two cannot part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from director.kit.duration import format_duration

Schema = Mapping[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def for_editors(schema: Schema, title: str) -> dict[str, Any]:
    """The schema as a file of its own: it says which dialect of JSON Schema it is in, and has the file's name."""
    return {"$schema": DIALECT, **schema, "title": title}


def markdown(schema: Schema, title: str) -> str:
    """The whole reference: the file itself, then every section that it reaches, each once, in order of first use."""
    sections: Mapping[str, Schema] = schema.get("$defs", {})
    order: list[str] = []
    _reach(schema, sections, order)
    parts = [f"# {title}", _section("the file", schema)]
    parts += [_section(_name(name), sections[name]) for name in order]
    return "\n\n".join(parts) + "\n"


def _reach(schema: Schema, sections: Mapping[str, Schema], order: list[str]) -> None:
    for value in schema.get("properties", {}).values():
        for name in _references(value):
            if name not in order:
                order.append(name)
                _reach(sections[name], sections, order)


def _references(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        if "$ref" in value:
            yield str(value["$ref"]).rpartition("/")[2]
        for key, inner in value.items():
            if key != "discriminator":
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def _section(name: str, schema: Schema) -> str:
    lines = [f"## {name}", ""]
    if text := str(schema.get("description", "")).strip():
        lines += [re.sub(r"\s*\n\s*", " ", text), ""]
    required = schema.get("required", [])
    lines += ["| key | value | default | |", "|---|---|---|---|"]
    for key, value in schema.get("properties", {}).items():
        default = "required" if key in required else _default(value)
        lines.append(f"| `{key}` | {_type(value)} | {default} | {_cell(value.get('description', ''))} |")
    return "\n".join(lines)


def _name(section: str) -> str:
    """`VirtualServerSection` as words: `virtual server`."""
    words = re.findall(r"[A-Z][a-z]*", section.removesuffix("Section"))
    return " ".join(words).lower()


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _default(value: Schema) -> str:
    default = value.get("default")
    if default is None or default in ([], {}) or isinstance(default, Mapping):
        return ""
    if isinstance(default, float) and _is_duration(value):
        return f"`{format_duration(default)}`" if default else ""
    if isinstance(default, list):
        return " ".join(f"`{item}`" for item in default)
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _is_duration(value: Schema) -> bool:
    """A duration is the text that has examples beside its pattern (`kit/duration.py`); a name has a pattern only."""
    return any({"pattern", "examples"} <= branch.keys() for branch in (value, *value.get("anyOf", ())))


def _type(value: Schema) -> str:
    if "$ref" in value:
        name = _name(str(value["$ref"]).rpartition("/")[2])
        return f"[{name}](#{name.replace(' ', '-')})"
    if "enum" in value:
        return " \\| ".join(dict.fromkeys(f"`{item}`" for item in value["enum"]))
    if "const" in value:
        return f"`{value['const']}`"
    for kind in ("anyOf", "oneOf"):
        if kind in value:
            branches = [branch for branch in value[kind] if branch.get("type") != "null"]
            return " or ".join(dict.fromkeys(_type(branch) for branch in branches))
    match value.get("type"):
        case "integer" | "number":
            return _range(value)
        case "array":
            return f"list of {_type(value.get('items', {}))}"
        case "object":
            inner = [value["additionalProperties"]] if "additionalProperties" in value else []
            inner += value.get("patternProperties", {}).values()
            return f"names, each with {_article(_type(inner[0]))}"
        case "boolean":
            return "`true` \\| `false`"
        case "string" if _is_duration(value):
            return "duration, such as " + " or ".join(f"`{item}`" for item in value["examples"])
        case "string" if value.get("format", "").startswith("ip"):
            return "IP address"
        case "string" if value.get("format") == "hostname":
            return "host name"
        case _:
            return "text"


def _range(value: Schema) -> str:
    if "maximum" in value:
        return f"{value['minimum']} to {value['maximum']}"
    return f"{value['minimum']} or more" if "minimum" in value else "number"


def _article(words: str) -> str:
    return ("an " if words.lstrip("[")[:1] in set("aeiou") else "a ") + words
