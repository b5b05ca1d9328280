"""Finds its way in the types of a pydantic model, by the `loc` of an error.

One rule: unions, `Annotated` and optional values are seen through; what is not known is None or empty, never an error.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel


def keys_at(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """The keys of the section that stands at `loc`; none where it is no section, or one of several."""
    found = members(annotation_at(model, loc))
    if len(found) == 1 and is_model(found[0]):
        return list(_fields(found[0]))
    return []


def tags_at(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """What `type:` may be at `loc`."""
    return [tag for member in members(annotation_at(model, loc)) for tag in _tags(member)]


def literals_at(model: type[BaseModel], loc: Sequence[str | int]) -> list[object]:
    """The values that a closed set at `loc` has."""
    return [value for member in members(annotation_at(model, loc), literals=True) for value in get_args(member)]


def annotation_at(model: type[BaseModel], loc: Sequence[str | int]) -> Any:
    """The type that stands at `loc` below `model`, with its constraints."""
    annotation: Any = model
    for part in loc:
        annotation, _ = step(annotation, part)
    return annotation


def step(annotation: Any, part: str | int) -> tuple[Any, bool]:
    """The type one part of a `loc` further, and whether that part is in the document or names a union's branch."""
    branches = members(annotation)
    if sum(map(is_model, branches)) > 1:
        for member in branches:
            if part in _tags(member):
                return member, False
    for member in branches:
        origin, arguments = get_origin(member), get_args(member)
        if is_model(member) and part in _fields(member):
            return _fields(member)[str(part)], True
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return arguments[1], True
        if origin in {list, tuple} and isinstance(part, int):
            return arguments[0], True
    return (None, True) if any(map(is_model, branches)) else (annotation, False)


def is_model(annotation: Any) -> bool:
    """Whether `annotation` is a section."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    """Each key's type, with the constraints that pydantic keeps apart from it."""
    return {
        info.alias or name: Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
        for name, info in model.model_fields.items()
    }


def _tags(member: Any) -> list[str]:
    if not is_model(member) or "type" not in member.model_fields:
        return []
    return [str(tag) for tag in get_args(member.model_fields["type"].annotation)]


def members(annotation: Any, literals: bool = False) -> list[Any]:
    """The members of a union, or the annotation itself; `Annotated` is seen through, None and literals left out."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return members(get_args(annotation)[0], literals)
    if origin in {Union, types.UnionType}:
        return [inner for member in get_args(annotation) for inner in members(member, literals)]
    if annotation is None or annotation is types.NoneType or (origin is Literal) is not literals:
        return []
    return [annotation]


def constraints(annotation: Any) -> Iterator[Any]:
    """What a value of this type must satisfy besides (`Ge`, `Le` and the like)."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        for item in arguments[1:]:
            yield item
            yield from getattr(item, "metadata", ())
        yield from constraints(arguments[0])
    elif origin in {Union, types.UnionType}:
        for member in arguments:
            yield from constraints(member)
