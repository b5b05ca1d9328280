"""From a pydantic error to a place in the document and a sentence for an operator.

One rule: say what was found, and what would be right; name the nearest right spelling where there is one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from director.kit.annotations import annotation_at, constraints, is_model, keys_at, literals_at, members, step, tags_at
from director.kit.shown import shown
from director.kit.yamltree import Path

Detail = Mapping[str, Any]
"""One of the errors that pydantic's `ValidationError.errors()` gives."""

_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
    "dict_type": "a mapping (key: value)",
    "mapping_type": "a mapping (key: value)",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "ip_v4_address": "a valid IPv4 address: write one such as 192.0.2.10",
    "ip_v6_address": "a valid IPv6 address: write one such as 2001:db8::10",
    "ip_any_address": "an IP address: write one such as 192.0.2.10 or 2001:db8::10",
    "ip_v4_network": "a valid IPv4 network: write one such as 192.0.2.0/24, without host bits",
    "ip_v6_network": "a valid IPv6 network: write one such as 2001:db8::/64, without host bits",
    "ip_any_network": "a network: write one such as 192.0.2.0/24, without host bits",
}
"""What stands there instead, by pydantic's error type."""
MOST_KEYS = 6
_BOUNDS = frozenset({"greater_than_equal", "greater_than", "less_than_equal", "less_than"})


def locate(detail: Detail, model: type[BaseModel]) -> Path:
    """The part of pydantic's `loc` that is in the document: tags of unions and `[key]` marks are left out."""
    loc = detail["loc"][:-1] if is_about_key(detail) else detail["loc"]
    path: list[str | int] = []
    annotation: Any = model
    for part in loc:
        annotation, in_document = step(annotation, part)
        if in_document:
            path.append(part)
    if detail["type"] == "union_tag_invalid":
        path.append(_discriminator(detail))
    return tuple(path)


def is_about_key(detail: Detail) -> bool:
    """Whether a key of a mapping is wrong in itself, not what stands below it."""
    return bool(detail["loc"]) and detail["loc"][-1] == "[key]" and detail["type"] != "extra_forbidden"


def is_field(detail: Detail, model: type[BaseModel]) -> bool:
    """Whether the error is about a field of a section, and not about an entry of a mapping or a list."""
    return not is_about_key(detail) and bool(detail["loc"]) and in_section(detail["loc"], model)


def in_section(path: Sequence[str | int], model: type[BaseModel]) -> bool:
    """Whether the last part of `path` is a key of a section."""
    return any(map(is_model, members(annotation_at(model, path[:-1]))))


def allowed_keys(detail: Detail, model: type[BaseModel]) -> list[str]:
    """The keys of the section that the error's last part stands in."""
    return keys_at(model, detail["loc"][:-1])


def describe(details: Sequence[Detail], model: type[BaseModel], path: Path) -> str:
    """One sentence for what pydantic says of one value; several details are the branches of a union."""
    detail = details[0]
    found = detail["input"]
    if len(details) > 1 and all(each["type"] in _WANTED for each in details) and found is not None:
        wanted = dict.fromkeys(_WANTED[each["type"]] for each in details)
        return f"{shown(found)} cannot stand here: write {' or '.join(wanted)}"
    if len(details) > 1 and found is not None and (said := _beside_literals(details, model)):
        return said
    return _describe(detail, model, path)


def _beside_literals(details: Sequence[Detail], model: type[BaseModel]) -> str:
    """For a union of a closed set and something else: all that is allowed; empty where it is another union."""
    found, literals = details[0]["input"], [each for each in details if each["type"] == "literal_error"]
    others = [each for each in details if each["type"] != "literal_error"]
    if not literals or not others or any(each["type"] not in {*_WANTED, *_BOUNDS} for each in others):
        return ""
    allowed = [str(each) for each in literals_at(model, literals[0]["loc"])]
    if isinstance(found, str) and (near := nearest(found, allowed)) is not None:
        return f"{shown(found)} is not known: did you mean {near!r}?"
    for each in others:
        wanted = _WANTED.get(each["type"], "a whole number" if isinstance(found, int) else "a number")
        bounds = _range(annotation_at(model, each["loc"])) if wanted.endswith("number") else ""
        allowed += ["true", "false"] if wanted == "true or false" else [wanted + bounds]
    verdict = "cannot stand here" if isinstance(found, dict | list) else "is not right"
    return f"{shown(found)} {verdict}: use {', '.join(allowed[:-1])} or {allowed[-1]}"


def _describe(detail: Detail, model: type[BaseModel], path: Path) -> str:
    kind, found, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key {shown(path[-1])}{suggestion(str(path[-1]), allowed_keys(detail, model))}"
    if kind == "missing":
        return f"key {shown(path[-1])} is missing: add it"
    if kind == "union_tag_not_found":
        return _without_tag(detail, model)
    if kind == "union_tag_invalid":
        allowed = tags_at(model, detail["loc"])
        tag = found.get(_discriminator(detail)) if isinstance(found, dict) else context.get("tag")
        return f"{shown(tag)} is not known{suggestion(str(tag), allowed)}"
    if found is None:
        return "has no value: give it one" + ("" if _is_required(detail, model) else ", or remove the key")
    if kind in {"value_error", "assertion_error"}:
        # Validators name what they got by `repr`, which is Python's way to write it.
        return str(context.get("error", detail["msg"])).replace(repr(found), shown(found))
    if kind == "literal_error":
        allowed = [str(each) for each in literals_at(model, detail["loc"])]
        if isinstance(found, dict | list):
            return f"{shown(found)} cannot stand here: use one of {', '.join(allowed)}"
        return f"{shown(found)} is not known{suggestion(str(found), allowed)}"
    if kind in _WANTED:
        return _wrong_type(detail, model)
    return _out_of_bounds(detail, model)


def _is_required(detail: Detail, model: type[BaseModel]) -> bool:
    *above, last = detail["loc"] or ("",)
    sections = filter(is_model, members(annotation_at(model, above)))
    return any(last in section.model_fields and section.model_fields[last].is_required() for section in sections)


def _without_tag(detail: Detail, model: type[BaseModel]) -> str:
    name = _discriminator(detail)
    near = nearest(name, map(str, detail["input"] or ()))
    instead = f" in place of {near!r}" if near else ""
    return f"key {name!r} is missing: add it{instead}, with one of {', '.join(tags_at(model, detail['loc']))}"


def _wrong_type(detail: Detail, model: type[BaseModel]) -> str:
    kind, found, wanted = detail["type"], detail["input"], _WANTED[detail["type"]]
    if ": write " in wanted:
        return f"{shown(found)} is not {wanted}"
    if isinstance(found, dict | list):
        return f"{shown(found)} cannot stand here: write {wanted}"
    if kind == "string_type":
        return f"{shown(found)} is not text: put it in quotes"
    if wanted == "a whole number":
        if isinstance(found, str) and found.isascii() and found.isdigit():
            return f"{shown(found)} is text: write it without quotes"
        return f"{shown(found)} is not a whole number: write one{_range(annotation_at(model, detail['loc']))}"
    tags = tags_at(model, detail["loc"])
    if isinstance(found, str) and found in tags:
        return f"{shown(found)} cannot stand here alone: write {{type: {found}}}"
    if wanted.startswith("a mapping") or wanted == "a list":
        keys = keys_at(model, detail["loc"]) if detail["loc"] and wanted != "a list" else []
        return f"{shown(found)} cannot stand here: write {wanted}{f'; its keys are {_some(keys)}' if keys else ''}"
    return f"{shown(found)} is not {wanted}" if " or " not in wanted else f"{shown(found)} is not right: use {wanted}"


def _some(keys: Sequence[str]) -> str:
    """The first of them: a section has up to thirty."""
    return ", ".join(keys[:MOST_KEYS]) + (", ..." if len(keys) > MOST_KEYS else "")


def _out_of_bounds(detail: Detail, model: type[BaseModel]) -> str:
    kind, found, context = detail["type"], shown(detail["input"]), detail.get("ctx", {})
    match kind:
        case "greater_than_equal" | "greater_than" | "less_than_equal" | "less_than":
            size = "small" if kind.startswith("greater") else "large"
            return f"{found} is too {size}: use a number{_range(annotation_at(model, detail['loc']))}"
        case "too_short":
            least = context.get("min_length", 1)
            return f"has too few entries: it needs at least {'one' if least == 1 else least}"
        case "too_long":
            return f"has too many entries: use at most {context.get('max_length')}"
        case "string_pattern_mismatch":
            return f"{found} cannot be used here: it must match {context.get('pattern')}"
        case "string_too_short":
            return f"{found} is too short: use at least {_characters(context.get('min_length'))}"
        case "string_too_long":
            return f"{found} is too long: use at most {_characters(context.get('max_length'))}"
        case _:
            return f"{found} cannot be used here: look up what this key takes"


def suggestion(found: str, allowed: Iterable[str]) -> str:
    """What to write instead of `found`: the nearest of `allowed`, or all of them where none is near.

    >>> suggestion("schedular", ["scheduler", "port"])
    ": did you mean 'scheduler'?"
    >>> suggestion("sctp", ["tcp", "udp"])
    ': use one of tcp, udp'
    """
    names = list(allowed)
    if (near := nearest(found, names)) is not None:
        return f": did you mean {near!r}?"
    return f": use one of {', '.join(names)}" if names else ": remove it"


def nearest(found: str, allowed: Iterable[str]) -> str | None:
    """The one of `allowed` that `found` looks like."""
    return next(iter(difflib.get_close_matches(found.lower()[:60], allowed, n=1, cutoff=0.6)), None)


def _characters(count: object) -> str:
    return "one character" if count == 1 else f"{count} characters"


def _range(annotation: Any) -> str:
    """` from 1 to 100`, ` of at least 1`, or nothing, from the constraints of a field."""
    low, high = None, None
    for item in constraints(annotation):
        low = getattr(item, "ge", low)
        high = getattr(item, "le", high)
    if low is not None and high is not None:
        return f" from {low} to {high}"
    if low is not None or high is not None:
        return f" of at least {low}" if low is not None else f" of at most {high}"
    return ""


def _discriminator(detail: Detail) -> str:
    return str(detail.get("ctx", {}).get("discriminator", "type")).strip("'")
