"""YAML text to plain values, with the place of every key and value kept beside them.

One rule: nothing is guessed. Duplicate keys are problems, only `true` and `false` are booleans, `1:30` and
dates stay text, and no tag makes an object (YAML 1.2's core schema, https://yaml.org/spec/1.2.2/#103-core-schema).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import yaml

from director.kit import collector
from director.kit.problem import Mark, Problem
from director.kit.yamlnodes import DEEPEST, MERGE, SCALARS, RefusedError, compose, mark_of

Path = tuple[str | int, ...]
MOST_VALUES = 400_000


@dataclass(slots=True)
class Tree:
    """Values of one document. `keys` and `values` hold the mark of each key and value by its path.

    `broken` are paths whose value the operator did not get across: their problem is told already. What could not
    be read is not in `data`; of a duplicate key the first value is.
    """

    data: object = None
    keys: dict[Path, Mark] = field(default_factory=dict)
    values: dict[Path, Mark] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    broken: set[Path] = field(default_factory=set)

    def mark(self, path: Path, at_key: bool = False) -> Mark:
        """The place of `path`, or of its nearest ancestor that is in the file."""
        for end in range(len(path), -1, -1):
            for marks in (self.keys, self.values) if at_key else (self.values, self.keys):
                if path[:end] in marks:
                    return marks[path[:end]]
        return Mark(1, 1)


_COLLECTIONS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}
NOT_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_BROKEN = object()


def parse(text: str) -> Tree:
    """Read one YAML document; what is wrong stands in the tree's `problems`, in the file's order."""
    tree = Tree()
    try:
        with collector.paused():
            node = compose(text)
            if node is not None:
                _Builder(tree).build(node)
    except RefusedError as error:
        tree.problems.append(error.problem)
    tree.problems.sort()
    return tree


def places_in(text: str, source: str) -> Callable[[Path], str]:
    """Where in `text` a path stands, as `file:line:column`; of one that is not there, its nearest ancestor.

    >>> places_in("{a: 1, b: {c: 2}}", "f")(("b", "c"))
    'f:1:12'
    """
    tree = parse(text)

    def place(path: Path) -> str:
        mark = tree.mark(path, at_key=True)
        return f"{source}:{mark.line}:{mark.column}"

    return place


class _Builder:
    """Turns nodes into values, marking each. A value that cannot be read is `_BROKEN`."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.count = 0
        self.open: list[yaml.Node] = []
        self.told: set[int] = set()

    def build(self, root: yaml.Node) -> None:
        data = self._value(root, ())
        self.tree.data = None if data is _BROKEN else data

    def _tell(self, node: yaml.Node, message: str) -> None:
        """Once for each node, however many aliases lead to it."""
        if id(node) not in self.told:
            self.told.add(id(node))
            self.tree.problems.append(Problem(mark_of(node.start_mark), message))

    def _value(self, node: yaml.Node, path: Path) -> object:
        self.tree.values.setdefault(path, mark_of(node.start_mark))
        with self._inside(node):
            if isinstance(node, yaml.ScalarNode):
                return self._scalar(node)
            if node.tag not in _COLLECTIONS:
                self._tell(node, f"tag {_tag_name(node)} is not supported: remove it")
                return _BROKEN
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path, set(), set())
            values = [self._value(child, (*path, index)) for index, child in enumerate(node.value)]
            return _BROKEN if any(value is _BROKEN for value in values) else values

    def _count(self, node: yaml.Node) -> None:
        self.count += 1
        if self.count > MOST_VALUES:
            what = (
                f"more than {MOST_VALUES} keys and values: this is no configuration; what an alias names counts again"
            )
            raise RefusedError(node.start_mark, what)

    @contextmanager
    def _inside(self, node: yaml.Node) -> Iterator[None]:
        self._count(node)
        if len(self.open) > DEEPEST:
            raise RefusedError(node.start_mark, f"nested deeper than {DEEPEST} levels: this is no configuration")
        if any(node is outer for outer in self.open):
            raise RefusedError(node.start_mark, "this anchor contains an alias of itself: write the value out")
        self.open.append(node)
        yield
        self.open.pop()

    def _mapping(self, node: yaml.MappingNode, path: Path, taken: set[str], merged: set[int]) -> dict[str, object]:
        """The mapping without the keys that are `taken`, which it adds to; `merged` are nodes that are in it by now."""
        result: dict[str, object] = {}
        lines: dict[str, int] = {}
        merge: yaml.Node | None = None
        for key_node, value_node in node.value:
            if key_node.tag == MERGE:
                if merge is not None:
                    self._tell(key_node, "duplicate key '<<': write one, with a list: `<<: [*a, *b]`")
                    self.tree.broken.add(path)
                merge = merge or value_node
                continue
            key = self._key(key_node)
            if key is None:
                self.tree.broken.add(path)
                continue
            mark = mark_of(key_node.start_mark)
            child = (*path, key)
            if key in lines:
                self._tell(
                    key_node,
                    f"{dotted(child)}: duplicate key {key[:60]!r}, first in line {lines[key]}: remove one of them",
                )
                self.tree.broken.add(child)
                continue
            lines[key] = mark.line
            self._count(key_node)
            if key in taken:
                continue
            self.tree.keys.setdefault(child, mark)
            value = self._value(value_node, child)
            if value is _BROKEN:
                self.tree.broken.add(child)
            else:
                result[key] = value
        taken.update(lines)
        for source in self._merge_sources(merge, path):
            with self._inside(source):
                if id(source) not in merged:
                    merged.add(id(source))
                    result |= self._mapping(source, path, taken, merged)
        return result

    def _key(self, node: yaml.Node) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self._tell(node, "a list or a mapping cannot be a key: use a name, and put text with braces in quotes")
            return None
        key = str(node.value)
        if NOT_TEXT.search(key) or set(key) & set("\t\n"):
            self._tell(node, f"{key[:60]!r} has a control character: use a name")
            return None
        return key

    def _merge_sources(self, node: yaml.Node | None, path: Path) -> list[yaml.MappingNode]:
        if node is None:
            return []
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        good = [source for source in sources if isinstance(source, yaml.MappingNode)]
        if len(good) != len(sources):
            self._tell(node, "<< merges mappings only: give it an *alias of one")
            self.tree.broken.add(path)
        return good

    def _scalar(self, node: yaml.ScalarNode) -> object:
        text = str(node.value)
        if node.tag in {"tag:yaml.org,2002:str", MERGE}:
            if NOT_TEXT.search(text):
                self._tell(node, f"{text[:60]!r} has a control character: remove it")
                return _BROKEN
            return text
        if node.tag not in SCALARS:
            self._tell(node, f"tag {_tag_name(node)} is not supported: write a plain value")
            return _BROKEN
        kind = node.tag.rpartition(":")[2]
        if not SCALARS[node.tag][0].fullmatch(text):
            self._tell(node, f"{text[:32]!r} is no {kind}: remove the tag, or change the value")
            return _BROKEN
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        return self._number(node, text)

    def _number(self, node: yaml.Node, text: str) -> object:
        number = number_of(text)
        if number is not None:
            return number
        self._tell(node, f"{text[:32]!r} is not a number that can be used here: it is too large")
        return _BROKEN


def number_of(text: str) -> int | float | None:
    """What a plain scalar that looks like a number is; None where it is too large to be used.

    >>> number_of("0x10"), number_of("-1.5"), number_of("9" * 40)
    (16, -1.5, None)
    """
    if len(text) > 32:
        return None
    number = int(text, 16) if text.startswith("0x") else float(text) if "." in text else int(text)
    return number if math.isfinite(number) else None


def dotted(path: Path) -> str:
    """How messages name a path.

    >>> dotted(("routes", 0, "match"))
    'routes.0.match'
    """
    return ".".join(str(part)[:60] for part in path)


def _tag_name(node: yaml.Node) -> str:
    return str(node.tag).replace("tag:yaml.org,2002:", "!!")[:60]
