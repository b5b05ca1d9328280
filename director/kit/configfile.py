"""A YAML file to one frozen, checked configuration, or to all of its problems at once.

One rule: nothing of a file with a problem is used. Every problem carries file:line:column and says what to do.

How all problems come out in one go: what pydantic rejects is cut out of a copy, and what is left is
validated again, so that checks across fields and across sections still run on everything else.
"""

from __future__ import annotations

import copy
import errno
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path as FilePath
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from director.kit.errors import ConfigError
from director.kit.schemawalk import describe, locate
from director.kit.yamltree import LARGEST_BYTES, Mark, Path, Problem, Tree, parse


class Section(BaseModel):
    """Base of every configuration model: unknown keys are errors and values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False)


Model = TypeVar("Model", bound=Section)
Finding = tuple[Path, str]
"""A problem that a check across fields found: the path it is about, and what is wrong and what to do."""


class InvalidConfigError(ConfigError):
    """A configuration that must not be used. `problems` is never empty; the text has one line for each."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """`file:line:column: what, where, what to do`, in the file's order."""
        return [f"{self.source}:{p.mark.line}:{p.mark.column}: {p.message}" for p in self.problems]


def read_text(path: str | FilePath) -> str:
    """The text of a configuration file.

    Raises: InvalidConfigError for a file that is missing, unreadable, too large, or no text.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode) and not stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
                raise _unreadable(path, "this is not a file: give the path of a YAML file")
            os.set_blocking(file.fileno(), True)
            raw = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, _ADVICE.get(error.errno or 0, f"cannot be read: {error.strerror}")) from error
    if len(raw) > LARGEST_BYTES:
        raise _unreadable(path, f"larger than {LARGEST_BYTES >> 20} MiB: this is no configuration")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        what = f"byte 0x{raw[error.start]:02x} is not UTF-8: this is not a text file; save it as UTF-8 YAML"
        raise InvalidConfigError(str(path), [Problem(Mark(line, column), what)]) from error


_ADVICE = {
    errno.ENOENT: "no such file: check the path",
    errno.EACCES: "permission denied: run as root, or make the file readable for this user",
    errno.EISDIR: "this is a directory: give the path of a YAML file",
}


def _unreadable(path: str | FilePath, what: str) -> InvalidConfigError:
    return InvalidConfigError(str(path), [Problem(Mark(1, 1), what)])


def _no_findings(_: Any) -> Iterable[Finding]:
    return ()


def load(
    text: str, source: str, model: type[Model], check: Callable[[Model], Iterable[Finding]] = _no_findings
) -> Model:
    """The configuration in `text`; `source` names it in messages. `check` looks across sections.

    Raises: InvalidConfigError with every problem that was found.
    """
    tree = parse(text)
    problems = list(tree.problems)
    if tree.data is None:
        if not problems:
            what = f"the file is empty: it needs {_required(model)}"
            problems.append(Problem(Mark(1, 1), what))
        raise InvalidConfigError(source, problems)
    config, found, cuts = _validate(tree, model)
    problems += found
    if config is not None:
        problems += [
            Problem(tree.mark(path), _prefixed(path, message))
            for path, message in check(config)
            # What a part was cut out of is not what the operator wrote: a finding about all of it would mislead.
            if not any(cut[: len(path)] == path for cut in cuts)
        ]
    if problems or config is None:
        raise InvalidConfigError(source, sorted(set(problems)))
    return config


def _required(model: type[Section]) -> str:
    names = [name for name, info in model.model_fields.items() if info.is_required()]
    return "at least " + " and ".join(f"`{name}:`" for name in names or list(model.model_fields)[:1])


def _validate(tree: Tree, model: type[Model]) -> tuple[Model | None, list[Problem], list[Path]]:
    """The model, possibly of what is left after cutting out what is wrong, the problems met, and what was cut."""
    data = copy.deepcopy(tree.data)
    problems: list[Problem] = []
    cuts: list[Path] = []
    for attempt in range(8):
        try:
            return model.model_validate(data), problems, cuts
        except ValidationError as error:
            details = [(locate(data, detail["loc"]), detail) for detail in error.errors(include_url=False)]
        for path, detail in details:
            # Cutting makes keys go missing that are in the file: only what a validator says is news then.
            if attempt == 0 or detail["type"] == "value_error":
                at_key = detail["type"] == "extra_forbidden"
                message = _prefixed(path, describe(detail, model, path))
                problems.append(Problem(tree.mark(path, at_key), message))
        for path, detail in details:
            cuts.append(path)
            if not _cut(data, path[:-1] if detail["type"] == "missing" else path):
                return None, problems, cuts
    return None, problems, cuts


def _cut(data: object, path: Path) -> bool:
    """Remove what is at `path`, a list as a whole; False when that is the whole document."""
    while path and isinstance(path[-1], int):
        path = path[:-1]
    if not path:
        return False
    for key in path[:-1]:
        if isinstance(data, dict) and key in data:
            data = data[key]
        elif isinstance(data, list) and isinstance(key, int) and key < len(data):
            data = data[key]
        else:
            return True  # an ancestor is gone already
    if isinstance(data, dict):
        data.pop(path[-1], None)
    return True


def _prefixed(path: Path, message: str) -> str:
    where = ".".join(str(part) for part in path)
    return f"{where}: {message}" if where else message
