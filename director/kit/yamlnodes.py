"""YAML text to nodes with marks, or to the reason why it is none.

One rule: nesting ends, and whoever wrote the text is told in an operator's words where to look.
"""

from __future__ import annotations

import re

import yaml

from director.kit.problem import Mark, Problem

DEEPEST = 64
FAST: bool = yaml.__with_libyaml__
"""Whether there is a parser in C. Both give the same nodes and marks."""


class RefusedError(Exception):
    """Text that is not looked at any further; the message is for the operator."""

    def __init__(self, mark: yaml.Mark | None, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(mark_of(mark), message)


class _DifferentError(Exception):
    """The two parsers do not agree about this text."""


class _Bounded(yaml.composer.Composer):
    """YAML's composer, with an end to nesting."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self._depth > DEEPEST:
            mark = self.peek_event().start_mark  # type: ignore[attr-defined]  # the parser beside it has it
            raise RefusedError(mark, f"nested deeper than {DEEPEST} levels: this is no configuration")
        self._depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _CoreSchema(yaml.resolver.BaseResolver):
    """The core schema's scalars only."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 -- yaml's own


class _Loader(yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser, _Bounded, _CoreSchema):
    """The parser in Python: its words are what `_syntax` translates."""

    def __init__(self, text: str) -> None:
        yaml.reader.Reader.__init__(self, text)
        yaml.scanner.Scanner.__init__(self)
        yaml.parser.Parser.__init__(self)
        _Bounded.__init__(self)
        _CoreSchema.__init__(self)


if FAST:
    from yaml._yaml import CParser

    class _FastLoader(_Bounded, CParser, _CoreSchema):
        """The parser in C, with the same composer: its own recurses on the stack, without an end."""

        def __init__(self, text: str) -> None:
            CParser.__init__(self, text)
            _Bounded.__init__(self)
            _CoreSchema.__init__(self)

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            if isinstance(parent, yaml.MappingNode) and parent.flow_style:
                event = self.peek_event()
                if isinstance(event, yaml.ScalarEvent) and not event.value and not event.style:
                    raise _DifferentError  # its mark is the bracket's, not the colon's
            return super().compose_node(parent, index)


MERGE = "tag:yaml.org,2002:merge"
SCALARS = {
    "tag:yaml.org,2002:bool": (re.compile(r"true|True|TRUE|false|False|FALSE"), "tTfF"),
    "tag:yaml.org,2002:null": (re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]),
    "tag:yaml.org,2002:int": (re.compile(r"[-+]?(0|[1-9][0-9]*)|0x[0-9a-fA-F]+"), "-+0123456789"),
    "tag:yaml.org,2002:float": (re.compile(r"[-+]?[0-9]+\.[0-9]+([eE][-+]?[0-9]+)?"), "-+0123456789"),
    MERGE: (re.compile(r"<<"), "<"),
}
for _tag, (_pattern, _first) in SCALARS.items():
    _CoreSchema.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern.pattern})\Z"), list(_first))


READ_DIFFERENTLY = re.compile(
    r"[^\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufdff]|[!?]|[|>][-+0-9]*#|^[%.-]{3}", re.MULTILINE
)
"""Where libyaml and PyYAML do not agree, found by comparing their nodes: tabs, line ends other than \\n, byte order
marks, controls, tags, complex keys, `?` in brackets, a comment at a block scalar's indicator, directives, and document
marks.
"""


def compose(text: str) -> yaml.Node | None:
    """The document's nodes. Raises: RefusedError.

    libyaml reads what is good, three times as fast; what it refuses the parser in Python reads again, for its words.
    """
    if FAST and not READ_DIFFERENTLY.search(text):
        try:
            node: yaml.Node | None = _FastLoader(text).get_single_node()
        except (yaml.YAMLError, ValueError, RefusedError, _DifferentError):
            pass
        else:
            return node
    return _compose_slowly(text)


def _compose_slowly(text: str) -> yaml.Node | None:
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        mark = yaml.Mark("", error.position, before.count("\n"), len(before) - before.rfind("\n") - 1, None, 0)
        code = error.character if isinstance(error.character, int) else ord(error.character)
        raise RefusedError(mark, f"control character U+{code:04X}: this is not a text file") from error
    try:
        node: yaml.Node | None = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise RefusedError(*_syntax(error)) from error
    except (ValueError, OverflowError) as error:
        # The scanner's chr() of an escape such as "\UFFFFFFFF".
        raise RefusedError(loader.get_mark(), "an escape that names no character: \\U ends at 0010FFFF") from error
    finally:
        loader.dispose()
    return node


def mark_of(mark: yaml.Mark | None) -> Mark:
    return Mark(mark.line + 1, mark.column + 1) if mark is not None else Mark(1, 1)


_QUOTED = re.compile(r"character '(.)'")
_END = ("<stream end>", "unexpected end of stream", "found '\\x00'", "<document end>")


def _syntax(error: yaml.MarkedYAMLError) -> tuple[yaml.Mark | None, str]:
    """Where text is not YAML, and a sentence on it; the place is where to look, not where the parser gave up."""
    what, context = error.problem or "cannot be read", error.context or ""
    place = error.problem_mark or error.context_mark
    since = f" (begun in line {error.context_mark.line + 1})" if error.context_mark else ""
    if "found character '\\t'" in what:
        return place, "a tab where spaces must stand: YAML indents with spaces"
    if "expected a single document" in context:
        return place, "a second document begins here: keep one in a file, and remove this `---`"
    if any(end in what for end in _END) and error.context_mark:
        if "flow sequence" in context or "flow mapping" in context:
            return error.context_mark, f"this bracket is never closed: add {']' if 'sequence' in context else '}'}"
        if "flow node" in context:
            return place, "the file ends inside of a bracket: close it with ] or }"
        if "quoted scalar" in context:
            return error.context_mark, "this quote is never closed: add the second one"
    if "that cannot start any token" in what and (match := _QUOTED.search(what)):
        return place, f"a value cannot begin with {match[1]}: put it in quotes"
    if "mapping values are not allowed" in what:
        return place, "a colon that makes no key here: check the indentation, and put text that contains ': ' in quotes"
    if "undefined alias" in what:
        return place, f"{what.removeprefix('found ')}: define it above with &, or put text that begins with * in quotes"
    if "duplicate anchor" in context:
        return place, f"{context.partition(';')[0].removeprefix('found ')}{since}: rename one of them"
    if "flow sequence" in context or "flow mapping" in context:
        kind, bracket = ("list", "]") if "sequence" in context else ("mapping", "}")
        return place, f"in a {kind}{since}: a comma or {bracket} is missing before this"
    if "<block end>" in what or "<document start>" in what:
        return place, f"this does not line up with the lines above{since}: check the indentation"
    if "could not find expected ':'" in what:
        return error.context_mark or place, "a line without a colon: write `key: value`, and check the indentation"
    found = what.replace("'<stream end>'", "the end of the file").replace("'\\x00'", "the end of the file")
    middle = f"{context}{since}: " if context else ""
    return place, f"not YAML: {middle}{found}: check indentation, colons and quotes near here"
