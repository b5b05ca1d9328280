"""YAML text to plain values, with the place of every key and value kept beside them.

One rule: nothing is guessed. Duplicate keys are problems, only `true` and `false` are booleans, `1:30` and
dates stay text, and no tag makes an object (YAML 1.2's core schema, https://yaml.org/spec/1.2.2/#103-core-schema).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import yaml

Path = tuple[str | int, ...]
LARGEST_BYTES = 8 * 1024 * 1024
DEEPEST = 64
MOST_VALUES = 1_000_000


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A place in a file; both count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong, and where."""

    mark: Mark
    message: str


@dataclass(slots=True)
class Tree:
    """Values of one document. `keys` and `values` hold the mark of each key and value by its path."""

    data: object = None
    keys: dict[Path, Mark] = field(default_factory=dict)
    values: dict[Path, Mark] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def mark(self, path: Path, at_key: bool = False) -> Mark:
        """The place of `path`, or of its nearest ancestor that is in the file."""
        for end in range(len(path), -1, -1):
            for marks in (self.keys, self.values) if at_key else (self.values, self.keys):
                if path[:end] in marks:
                    return marks[path[:end]]
        return Mark(1, 1)


class _Loader(yaml.SafeLoader):
    """YAML's loader, with the core schema's scalars only."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 -- yaml's own


for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:int", r"[-+]?(0|[1-9][0-9]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    ("tag:yaml.org,2002:float", r"[-+]?[0-9]+\.[0-9]+([eE][-+]?[0-9]+)?", "-+0123456789"),
    ("tag:yaml.org,2002:merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), list(_first))


def parse(text: str) -> Tree:
    """Read one YAML document; what is wrong stands in the tree's `problems`, in the file's order."""
    tree = Tree()
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        place = error.problem_mark or error.context_mark
        tree.problems.append(Problem(_mark(place), _syntax_message(error)))
        return tree
    except yaml.reader.ReaderError as error:
        before = text[: error.position] if isinstance(error.position, int) else ""
        line = before.count("\n") + 1
        mark = Mark(line, len(before) - before.rfind("\n"))
        tree.problems.append(Problem(mark, f"control character {error.character!r}: this is not a text file"))
        return tree
    except RecursionError:
        tree.problems.append(Problem(Mark(1, 1), f"nested deeper than {DEEPEST} levels: this is no configuration"))
        return tree
    if node is None:
        return tree
    _Builder(tree).build(node)
    tree.problems.sort()
    return tree


class _Builder:
    """Turns nodes into values, marking each."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.count = 0
        self.open: list[yaml.Node] = []

    def build(self, root: yaml.Node) -> None:
        try:
            self.tree.data = self._value(root, ())
        except _TooMuchError as error:
            self.tree.problems.append(Problem(_mark(error.node.start_mark), str(error)))

    def _value(self, node: yaml.Node, path: Path) -> object:
        self.tree.values.setdefault(path, _mark(node.start_mark))
        with self._inside(node):
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self._value(child, (*path, index)) for index, child in enumerate(node.value)]
            return self._scalar(node)

    @contextmanager
    def _inside(self, node: yaml.Node) -> Iterator[None]:
        self.count += 1
        if self.count > MOST_VALUES:
            raise _TooMuchError(node, f"more than {MOST_VALUES} values: aliases multiply what they name")
        if len(self.open) > DEEPEST:
            raise _TooMuchError(node, f"nested deeper than {DEEPEST} levels: this is no configuration")
        if any(node is outer for outer in self.open):
            raise _TooMuchError(node, "this alias contains itself: write the value out")
        self.open.append(node)
        yield
        self.open.pop()

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, object]:
        result: dict[str, object] = {}
        merged: list[yaml.MappingNode] = []
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                merged += self._merge_sources(value_node)
                continue
            mark = _mark(key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                self.tree.problems.append(Problem(mark, "a list or a mapping cannot be a key: use a name"))
                continue
            key = str(key_node.value)
            child = (*path, key)
            if key in result:
                first = self.tree.keys[child]
                where = ".".join(map(str, child))
                self.tree.problems.append(
                    Problem(
                        mark,
                        f"{where}: duplicate key {key!r}, first in line {first.line}: remove one of them",
                    )
                )
                continue
            self.tree.keys.setdefault(child, mark)
            result[key] = self._value(value_node, child)
        for source in merged:
            with self._inside(source):
                for key, value in self._mapping(source, path).items():
                    result.setdefault(key, value)
        return result

    def _merge_sources(self, node: yaml.Node) -> list[yaml.MappingNode]:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        good = [source for source in sources if isinstance(source, yaml.MappingNode)]
        if len(good) != len(sources):
            self.tree.problems.append(
                Problem(_mark(node.start_mark), "<< merges mappings only: give it an *alias of one")
            )
        return good

    def _scalar(self, node: yaml.Node) -> object:
        text = str(node.value)
        match node.tag.rpartition(":")[2]:
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                return self._number(node, text)
            case "float":
                return self._number(node, text)
            case "str":
                return text
            case _:
                what = f"tag {node.tag!r} is not supported: write a plain value"
                self.tree.problems.append(Problem(_mark(node.start_mark), what))
                return None

    def _number(self, node: yaml.Node, text: str) -> int | float:
        try:
            if len(text) > 32:
                raise ValueError
            if text.startswith("0x"):
                return int(text, 16)
            return float(text) if "." in text else int(text)
        except ValueError:
            what = f"{text[:32]!r} is not a number that can be used here"
            self.tree.problems.append(Problem(_mark(node.start_mark), what))
            return 0


class _TooMuchError(Exception):
    def __init__(self, node: yaml.Node, message: str) -> None:
        super().__init__(message)
        self.node = node


def _mark(mark: yaml.Mark | None) -> Mark:
    return Mark(mark.line + 1, mark.column + 1) if mark is not None else Mark(1, 1)


def _syntax_message(error: yaml.MarkedYAMLError) -> str:
    what = error.problem or "cannot be read"
    if "found character '\\t'" in what:
        return "a tab where spaces must stand: YAML indents with spaces"
    if error.context is None:
        return f"not YAML: {what}: check indentation, colons and quotes near here"
    since = f" (begun in line {error.context_mark.line + 1})" if error.context_mark else ""
    return f"not YAML: {error.context}{since}: {what}: check indentation, colons and quotes near here"
