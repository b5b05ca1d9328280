"""A YAML file to one frozen, checked configuration, or to all of its problems at once.

One rule: nothing of a file with a problem is used. Every problem carries file:line:column and says what to do.

A file without problems is read without the places of its keys and values; one with problems is read again, with them.

How all problems come out in one go, and none that follows from another: what is wrong is cut out of a copy, and
what is left is looked at again. It is cut twice, once as small as can be and once with the section around it. A
problem that both copies have does not come from a default or from a gap that the cut has left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from director.kit.problem import InvalidConfigError, Mark, Problem
from director.kit.readtext import read_text
from director.kit.salvage import Remains, is_below
from director.kit.schemawalk import Detail, allowed_keys, describe, in_section, is_about_key, is_field, locate, nearest
from director.kit.yamlquick import values
from director.kit.yamltree import Path, Tree, dotted, parse

__all__ = ["Finding", "InvalidConfigError", "Section", "load", "read_text"]

MOST_WRONGS = 1000
"""Of more wrong values than this, the first ones are told, and no check across sections is made."""


class Section(BaseModel):
    """Base of every configuration model: unknown keys are errors and values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False, defer_build=True)


Model = TypeVar("Model", bound=Section)
Misspelt = dict[Path, Path]
Finding = tuple[Path, str]
"""A problem that a check across fields found: the path it is about, and what is wrong and what to do."""


class Facts(Protocol):
    """What validators ask of the world beyond the text; they find it as their context."""

    def complete(self) -> bool:
        """Learn all that was asked for since the last time; False when that is nothing."""


def _no_findings(_: Any) -> Iterable[Finding]:
    return ()


def load(
    text: str,
    source: str,
    model: type[Model],
    check: Callable[[Model], Iterable[Finding]] = _no_findings,
    facts: Facts | None = None,
) -> Model:
    """The configuration in `text`; `source` names it in messages. `check` looks across sections.

    A document that asks for `facts` is validated again once they are there.

    Raises: InvalidConfigError with every problem that was found.
    """
    quick = values(text)
    if quick is not None:
        good, _ = _validate(quick, model, facts)
        if good is not None and not any(True for _ in check(good)):
            return good
    tree = parse(text)
    problems = list(tree.problems)
    if tree.data is None:
        if not problems:
            problems.append(Problem(Mark(1, 1), f"the file is empty: it needs {_required(model)}"))
        raise InvalidConfigError(source, problems)
    config, wrongs = _validate(tree.data, model, facts)
    if config is None or tree.broken:
        misspelt = _misspelt(tree, model, wrongs)
        problems += _told(tree, model, wrongs, misspelt)
        findings: Sequence[Finding] = ()
        if len(wrongs) < MOST_WRONGS:
            news, findings = _salvaged(tree, model, wrongs, misspelt, check, facts)
            problems += news
    else:
        findings = list(check(config))
    problems += [Problem(tree.mark(path), _prefixed(path, message)) for path, message in findings]
    if problems or config is None:
        raise InvalidConfigError(source, sorted(set(problems)))
    return config


def _required(model: type[Section]) -> str:
    names = [name for name, info in model.model_fields.items() if info.is_required()]
    return "at least " + " and ".join(f"`{name}:`" for name in names or list(model.model_fields)[:1])


@dataclass(frozen=True, slots=True)
class _Wrong:
    """One value or key that pydantic refuses. `section` is the smallest entity that it leaves incomplete."""

    path: Path
    details: tuple[Detail, ...]
    about_key: bool
    section: Path

    @property
    def kind(self) -> str:
        return str(self.details[0]["type"])

    def message(self, model: type[BaseModel]) -> str:
        return describe(self.details, model, self.path)


def _validate(data: object, model: type[Model], facts: Facts | None) -> tuple[Model | None, list[_Wrong]]:
    found = _validated(data, model, facts)
    while facts is not None and facts.complete():
        found = _validated(data, model, facts)
    return found


def _validated(data: object, model: type[Model], facts: Facts | None) -> tuple[Model | None, list[_Wrong]]:
    try:
        return model.model_validate(data, context=facts), []
    except ValidationError as error:
        details = error.errors(include_url=False)[:MOST_WRONGS]
    grouped: dict[tuple[Path, bool], list[Detail]] = {}
    for detail in details:
        grouped.setdefault((locate(detail, model), is_about_key(detail)), []).append(detail)
    return None, [
        _Wrong(path, tuple(group), about_key, path[:-1] if is_field(group[0], model) and len(path) > 1 else path)
        for (path, about_key), group in grouped.items()
    ]


def _told(tree: Tree, model: type[BaseModel], wrongs: Sequence[_Wrong], misspelt: Misspelt) -> Iterable[Problem]:
    """A problem for each wrong value that does not follow from another one."""
    seen: set[tuple[Mark, str]] = set()
    untold = tree.broken | set(misspelt.values())
    above = {wrong.path[:end] for wrong in wrongs for end in range(len(wrong.path))}
    for wrong in wrongs:
        if wrong.kind == "too_short" and wrong.path in above:
            continue  # pydantic before 2.11 counts good entries only
        if wrong.kind == "missing" and (wrong.path in untold or wrong.path[:-1] in tree.broken):
            continue
        problem, message = _problem(tree, model, wrong)
        if (problem.mark, message) not in seen:  # an alias leads to one place by several paths
            seen.add((problem.mark, message))
            yield problem


def _misspelt(tree: Tree, model: type[BaseModel], wrongs: Iterable[_Wrong]) -> Misspelt:
    """Unknown keys that look like one that is not there: what was written, and what was meant."""
    found: Misspelt = {}
    meant: set[Path] = set()
    for wrong in wrongs:
        if wrong.kind == "extra_forbidden":
            near = nearest(str(wrong.path[-1]), allowed_keys(wrong.details[0], model))
            right = (*wrong.path[:-1], near or "")
            if near is not None and right not in meant and right not in tree.keys:
                found[wrong.path] = right
                meant.add(right)
    return found


def _problem(tree: Tree, model: type[BaseModel], wrong: _Wrong) -> tuple[Problem, str]:
    path, message = wrong.path, wrong.message(model)
    while path and isinstance(path[-1], int) and path not in tree.values:
        path = path[:-1]  # one value where a list may stand
    missing = wrong.kind == "missing"
    mark = tree.mark(path[:-1] if missing else path, missing or wrong.about_key or wrong.kind == "extra_forbidden")
    return Problem(mark, _prefixed(path[:-1] if missing else path, message)), message


def _salvaged(
    tree: Tree,
    model: type[Model],
    wrongs: Sequence[_Wrong],
    misspelt: Misspelt,
    check: Callable[[Model], Iterable[Finding]],
    facts: Facts | None,
) -> tuple[list[Problem], list[Finding]]:
    """What else is wrong in a document of which `wrongs` and the tree's problems are known."""
    least, news = _remaining(tree, model, wrongs, misspelt, facts, small=True)
    most, _ = _remaining(tree, model, wrongs, misspelt, facts, small=False)
    problems = [_problem(tree, model, wrong)[0] for wrong in news]
    if least is None:
        return problems, []
    # What is cut out by its name is not missing for those who name it.
    lost = [repr(path[-1]) for path in least[1].lost if not in_section(path, model)]
    findings = [each for each in _findings(least, check) if not any(name in each[1] for name in lost)]
    if most is None:
        # Too little is left to compare with: keep what is said of sections that are whole.
        broken = [*(wrong.section for wrong in wrongs), *tree.broken]
        confirmed = [
            (path, message)
            for path, message in findings
            if not is_below(path, broken) and not any(is_below(other, [path]) for other in broken)
        ]
    else:
        # What to do may differ: it names what else there is.
        other = {(path, message.partition(": ")[0]) for path, message in _findings(most, check)}
        confirmed = [(path, message) for path, message in findings if (path, message.partition(": ")[0]) in other]
    return problems, [(_as_written(path, misspelt), message) for path, message in confirmed]


def _findings(left: tuple[Model, Remains], check: Callable[[Model], Iterable[Finding]]) -> list[Finding]:
    config, remains = left
    return [(remains.path(path), remains.text(message)) for path, message in check(config)]


def _remaining(
    tree: Tree, model: type[Model], wrongs: Sequence[_Wrong], misspelt: Misspelt, facts: Facts | None, small: bool
) -> tuple[tuple[Model, Remains] | None, list[_Wrong]]:
    """The configuration without what is wrong, None when nothing is left, and what its validators say then."""
    remains = Remains(tree.data)
    for path in tree.broken:
        remains.cut(path if small or len(path) < 2 or not in_section(path, model) else path[:-1])
    meant = {right for wrong, right in misspelt.items() if remains.rename(wrong, right)}
    news: list[_Wrong] = []
    for _ in range(16):
        for wrong in wrongs:
            if wrong.kind == "missing" and wrong.path in meant:
                continue
            least = wrong.path[:-1] if wrong.kind == "missing" else wrong.path
            if not remains.cut(least if small or wrong.kind == "extra_forbidden" else wrong.section):
                return None, news
        meant.clear()
        config, found = _validate(remains.data(), model, facts)
        if config is not None:
            return (config, remains), news
        wrongs = [replace(each, path=remains.path(each.path), section=remains.path(each.section)) for each in found]
        # Cutting makes keys go missing that are in the file: only what a validator says is news.
        news += [each for each in wrongs if each.kind == "value_error" and not is_below(each.path, misspelt.values())]
    return None, news


def _as_written(path: Path, misspelt: Misspelt) -> Path:
    for wrong, right in misspelt.items():
        if is_below(path, [right]):
            return (*wrong, *path[len(right) :])
    return path


def _prefixed(path: Path, message: str) -> str:
    return f"{dotted(path)}: {message}" if path else message
