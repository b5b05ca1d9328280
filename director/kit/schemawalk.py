"""From a pydantic error to a sentence for an operator.

One rule: say what was found, and what would be right; name the nearest right spelling where there is one.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from director.kit.yamltree import Path


def locate(data: object, loc: Sequence[str | int]) -> Path:
    """The part of pydantic's `loc` that is in the document: union tags and `[key]` marks are left out."""
    path: list[str | int] = []
    for index, part in enumerate(loc):
        if isinstance(data, dict) and part in data:
            data = data[part]
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        elif part == "[key]" or index < len(loc) - 1 or not isinstance(data, dict):
            continue
        path.append(part)
    return tuple(path)


def describe(detail: Mapping[str, Any], model: type[BaseModel], path: Path) -> str:
    """One sentence for one of pydantic's error details."""
    found, context = detail["input"], detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            allowed = _keys_at(model, detail["loc"][:-1])
            return f"unknown key {_short(path[-1])}{suggestion(str(path[-1]), allowed)}"
        case "missing":
            return "is missing: add it"
        case "value_error" | "assertion_error":
            return str(context.get("error", detail["msg"]))
        case "literal_error":
            allowed = _literals(context.get("expected", ""))
            return f"{_short(found)} is not known{suggestion(str(found), allowed)}"
        case "union_tag_not_found":
            return f"needs {_tag_name(context)}: one of {', '.join(_tags_at(model, detail['loc']))}"
        case "union_tag_invalid":
            allowed = _literals(str(context.get("expected_tags", "")))
            tag = context.get("tag")
            return f"{_tag_name(context)} {_short(tag)} is not known{suggestion(str(tag), allowed)}"
        case "model_type" | "dict_type" | "model_attributes_type":
            return f"{_short(found)} cannot stand here: write a mapping (key: value)"
        case "list_type" | "tuple_type" | "set_type":
            return f"{_short(found)} cannot stand here: write a list"
        case "too_short":
            return "is empty: it needs at least one entry"
        case "int_type" | "int_parsing" | "int_from_float":
            return f"{_short(found)} is not a whole number"
        case "float_type" | "float_parsing":
            return f"{_short(found)} is not a number"
        case "string_type":
            return (
                f"{_short(found)} is not text: put it in quotes" if found is not None else "has no value: give it one"
            )
        case "bool_type" | "bool_parsing":
            return f"{_short(found)} is neither true nor false"
        case "greater_than_equal" | "greater_than":
            return f"{_short(found)} is too small: use at least {context.get('ge', context.get('gt'))}"
        case "less_than_equal" | "less_than":
            return f"{_short(found)} is too large: use at most {context.get('le', context.get('lt'))}"
        case "string_pattern_mismatch":
            return f"{_short(found)} has a character that cannot stand here: it must match {context.get('pattern')}"
        case "string_too_short":
            return "is empty: give it a value"
        case "string_too_long":
            return f"is longer than {context.get('max_length')} characters: shorten it"
        case _:
            return f"{_short(found)}: {detail['msg']}"


def suggestion(found: str, allowed: Iterable[str]) -> str:
    """`, did you mean 'x'?` where a spelling is near, and the right ones in any case.

    >>> suggestion("schedular", ["scheduler", "port"])
    ": did you mean 'scheduler'?"
    """
    names = list(allowed)
    near = difflib.get_close_matches(found.lower(), names, n=1, cutoff=0.6)
    if near:
        return f": did you mean {near[0]!r}?"
    return f": use one of {', '.join(names)}" if names else ": remove it"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _literals(expected: str) -> list[str]:
    return [part.strip().strip("'") for part in expected.replace(" or ", ", ").split(",") if part.strip()]


def _tag_name(context: Mapping[str, Any]) -> str:
    return f"`{str(context.get('discriminator', 'type')).strip(chr(39))}`"


def _keys_at(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    found = _annotation_at(model, loc)
    if isinstance(found, type) and issubclass(found, BaseModel):
        return [info.alias or name for name, info in found.model_fields.items()]
    return []


def _tags_at(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    tags: list[str] = []
    for member in _members(_annotation_at(model, loc)):
        if isinstance(member, type) and issubclass(member, BaseModel) and "type" in member.model_fields:
            tags += [str(tag) for tag in get_args(member.model_fields["type"].annotation)]
    return tags


def _annotation_at(annotation: Any, loc: Sequence[str | int]) -> Any:
    """The type that stands at `loc` below `annotation`; unions are entered by tag or by field."""
    for part in loc:
        following = None
        for member in _members(annotation):
            origin, arguments = get_origin(member), get_args(member)
            if isinstance(member, type) and issubclass(member, BaseModel):
                fields = {info.alias or name: info.annotation for name, info in member.model_fields.items()}
                if part in fields:
                    following = fields[str(part)]
                elif "type" in fields and part in get_args(fields["type"]):
                    following = member
            elif origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
                following = arguments[1]
            elif origin in {list, tuple}:
                following = arguments[0]
            if following is not None:
                break
        if following is None:
            return annotation
        annotation = following
    return annotation


def _members(annotation: Any) -> list[Any]:
    """The members of a union, or the annotation itself; `Annotated` is seen through."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin in {Union, types.UnionType}:
        return [inner for member in get_args(annotation) for inner in _members(member)]
    return [] if origin is Literal else [annotation]
