"""What path, query and host a backend sees: the keys, and what they mean.

One rule: what has no findings can be built.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, Field

from director.kit.configfile import Finding, Section
from l7proxy.core.captures import groups_of
from l7proxy.core.paths import danger_of, normal_path
from l7proxy.core.settings.fields import ONE_OR_SEVERAL, Flag
from l7proxy.core.template import Place, Template, compile_template

Key = tuple[str | int, ...]


def _as_text(value: object) -> object:
    """A whole number as it is written; what YAML makes of others cannot be told from it."""
    if isinstance(value, bool):
        raise ValueError('write it in quotes, such as "true": YAML takes it for a truth value')
    return str(value) if isinstance(value, int) else value


TextValue = Annotated[str, BeforeValidator(_as_text, json_schema_input_type=str | int)]
Texts = dict[str, TextValue]
Names = Annotated[tuple[str, ...], ONE_OR_SEVERAL]

_AUTHORITY = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")


def check_prefix(text: str) -> str:
    """A path that others begin with. Raises: ValueError."""
    plain = text.rstrip("/")
    if not re.fullmatch(r"/[!-~]*", text) or set(text) & set("?#*{}"):
        raise ValueError(f"{text!r} is not the begin of a path: write one such as /app, percent-encoded, without `?`")
    if not plain:
        raise ValueError(f"{text!r} is the begin of every path: name one such as /app, or remove the key")
    if plain != text:
        raise ValueError(f"{text!r} ends with a slash: write {plain}, which stands for whole segments")
    if normal_path(text) != text or "//" in text:
        raise ValueError(f"{text!r} is not in normal form: write {re.sub('//+', '/', normal_path(text))!r}")
    return text


class RegexSection(Section):
    """`{pattern: "^/old/(?P<x>.*)$", to: "/new/{x}"}`"""

    pattern: str = Field(description="a regular expression (RE2) that is searched in the path's normal form")
    to: str = Field(description="the whole path, where it is found; {NAME} is a group of the pattern, or a variable")


class QuerySection(Section):
    """`{set: {a: "1"}, remove: "utm_*"}`; what nobody names keeps its bytes and its order."""

    set: Texts = Field({}, description="parameters that are there once, with this value; variables in braces")
    add: Texts = Field({}, description="parameters that are added at the end, whatever is there")
    remove: Names = Field((), description="parameters that are taken away; with * at the end all that begin so")


class RewriteSection(Section):
    """`{strip_prefix: /app, add_prefix: /v2}`"""

    strip_prefix: str | None = Field(
        None, description="taken off the path where it begins with it, by whole segments: /app/x becomes /x, /app /"
    )
    add_prefix: str | None = Field(None, description="put before the path, after `strip_prefix`, `path` or `regex`")
    path: str | None = Field(
        None, description="the whole path; {NAME} is a group of match.path (`~ ...`), or a variable"
    )
    regex: RegexSection | None = Field(None, description="the path, where a pattern is found in it")
    query: QuerySection | None = Field(None, description="parameters of the query that are changed")
    host: str | None = Field(None, description="Host towards the backend; default: what came")
    answers: Flag = Field(
        True,
        description="Location, Content-Location, Refresh, and Path and Domain of cookies lead back through this proxy, "
        "where it is known how",
    )


@dataclass(frozen=True, slots=True)
class QueryRewrite:
    """Names are as they are when decoded."""

    sets: tuple[tuple[str, Template], ...] = ()
    adds: tuple[tuple[str, Template], ...] = ()
    removes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What that means. Of a pattern `path` is what it leads to; prefixes are empty where there is none."""

    strip_prefix: str = ""
    add_prefix: str = ""
    path: Template | None = None
    pattern: str = ""
    query: QueryRewrite | None = None
    host: Template | None = None
    answers: bool = True


def rewrite_findings(section: RewriteSection, key: Key, path: str, groups: Collection[str] | None) -> Iterator[Finding]:
    """What is wrong; `key` is where the section stands, `path` the route's, and `groups` are its groups, None where
    nobody can tell."""
    whole = [name for name in ("strip_prefix", "path", "regex") if getattr(section, name) is not None]
    if len(whole) > 1:
        yield (*key, whole[1]), f"{whole[0]} says already what becomes of the path: remove one of them"
    for name in ("strip_prefix", "add_prefix"):
        text = getattr(section, name)
        if text is None:
            continue
        try:
            check_prefix(text)
        except ValueError as error:
            yield (*key, name), str(error)
            continue
        if name == "strip_prefix" and (said := _never_begins(path, text)):
            yield (*key, name), said
    if section.path is not None and groups is not None:
        yield from _path_findings((*key, "path"), section.path, groups)
    if section.regex is not None:
        try:
            own = groups_of(section.regex.pattern)
        except ValueError as error:
            yield (*key, "regex", "pattern"), str(error)
        else:
            yield from _path_findings((*key, "regex", "to"), section.regex.to, own)
    if section.host is not None and groups is not None:
        yield from _host_findings((*key, "host"), section.host, groups)
    if section.query is not None:
        yield from _query_findings(section.query, (*key, "query"), groups)
    changed = section.model_fields_set - {"answers"}
    if not changed and not section.answers:
        yield (*key, "answers"), "nothing is rewritten that answers could be led back from: remove it"


def _never_begins(path: str, prefix: str) -> str:
    """Why no path of a route for `path` begins with `prefix`; empty where one may."""
    if path.startswith("~"):
        return ""
    exact = path.startswith("=")
    plain = path.removeprefix("=").strip()
    if (plain + "/").startswith(prefix + "/") or (not exact and (prefix + "/").startswith(plain.rstrip("/") + "/")):
        return ""
    return f"no path of this route begins with {prefix}: match.path is {path}; change one of them"


def _path_findings(key: Key, text: str, groups: Collection[str]) -> Iterator[Finding]:
    if not text.startswith("/") and not text.startswith("{path}"):
        yield key, f"{text!r} does not begin with a slash: write /{text}"
        return
    if text.startswith("//") or ("{" not in text and danger_of(text) is not None):
        yield key, f"{text!r} would be refused each time: a path must not climb (`..`) or begin with //"
        return
    yield from _template_findings(key, text, groups, Place.PATH)


def _host_findings(key: Key, text: str, groups: Collection[str]) -> Iterator[Finding]:
    if "{" not in text and not _AUTHORITY.fullmatch(text):
        yield key, f"{text!r} is not a host: write a name or address, with :port where one is needed"
        return
    yield from _template_findings(key, text, groups, Place.HEADER)


def _query_findings(section: QuerySection, key: Key, groups: Collection[str] | None) -> Iterator[Finding]:
    for kind, texts in (("set", section.set), ("add", section.add)):
        for name, text in texts.items():
            if not name:
                yield (*key, kind, name), "a parameter without a name: name it"
            elif groups is not None:
                yield from _template_findings((*key, kind, name), text, groups, Place.QUERY)
    for name in section.add:
        if name in section.set:
            yield (*key, "add", name), "`set` has it already, and it would be there twice: remove one of them"
    for place, name in enumerate(section.remove):
        if not name or "*" in name[:-1]:
            yield (*key, "remove", place), f"{name!r}: write a name, or the begin of one and * at its end"
        elif name in section.set:
            yield (*key, "remove", place), f"`set` replaces {name} already: remove one of them"


def _template_findings(key: Key, text: str, groups: Collection[str], place: Place) -> Iterator[Finding]:
    try:
        compile_template(text, groups, place)
    except ValueError as error:
        yield key, str(error)


def build_rewrite(section: RewriteSection, groups: Collection[str] = ()) -> Rewrite:
    """`section`, which has no findings; `groups` are those of the route's path."""
    query = section.query
    path, pattern = None, ""
    if section.regex is not None:
        pattern = section.regex.pattern
        path = compile_template(section.regex.to, groups_of(pattern), Place.PATH)
    elif section.path is not None:
        path = compile_template(section.path, groups, Place.PATH)
    return Rewrite(
        section.strip_prefix or "",
        section.add_prefix or "",
        path,
        pattern,
        QueryRewrite(
            tuple((name, compile_template(text, groups, Place.QUERY)) for name, text in query.set.items()),
            tuple((name, compile_template(text, groups, Place.QUERY)) for name, text in query.add.items()),
            query.remove,
        )
        if query is not None
        else None,
        compile_template(section.host, groups) if section.host is not None else None,
        section.answers,
    )
