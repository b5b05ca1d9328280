"""A shell example as the commands in it.

One rule: what this cannot take apart it leaves to `bash -n`; what it does take apart is a command that somebody types.

>>> [*commands('VERBOSE=1 sudo director check "$FILE" && make test >log 2>&1 # or so')]
[['director', 'check', '$FILE'], ['make', 'test']]
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

_PROMPT = re.compile(r"^(?:[\w.@:~/-]+ ?)?[$#] (?P<command>.*)$")
_INNER = re.compile(r"\$\(([^()]*)\)")
_HEREDOC = re.compile(r"(?<!<)<<-?\s*(['\"]?)(?P<word>\w+)\1")
_ASSIGNMENT = re.compile(r"^[A-Za-z_]\w*\+?=")
_GOES_ON = {"do", "then", "else", "if", "elif", "while", "until", "!", "{", "time"}
_SAYS_NOTHING = {"done", "fi", "}", "esac", "for", "case", "select", "function", "in"}
_WRAPPERS = {"timeout": 1} | dict.fromkeys(
    ["command", "env", "exec", "nice", "nohup", "runuser", "setpriv", "setsid", "sudo", "watch", "xargs"], 0
)
"""What comes before another command, and how many words of its own it takes besides options."""
_VALUED = {"-u", "-n", "-g", "--user", "-s", "-k"}


def typed(console: str) -> str:
    """What was typed in a terminal session: the lines with a prompt, and those that go on with them."""
    found = []
    goes_on = False
    for line in console.splitlines():
        prompted = _PROMPT.match(line)
        if goes_on or prompted is not None:
            command = prompted["command"] if prompted is not None and not goes_on else line
            found.append(command)
            goes_on = command.endswith("\\")
    return "".join(line + "\n" for line in found)


def commands(script: str) -> Iterator[list[str]]:
    """Each command of `script` as its words, without what stands before it (sudo, assignments) and redirections.

    Raises: ValueError where quotes are not closed.
    """
    script = _without_heredocs(script)
    for inner in _INNER.findall(script):
        yield from commands(inner)
    script = _INNER.sub("INNER", script)
    for line in _logical_lines(script):
        yield from _commands_of(line)


def _without_heredocs(script: str) -> str:
    kept: list[str] = []
    until: str | None = None
    for line in script.splitlines():
        if until is not None:
            until = None if line.strip() == until else until
            continue
        heredoc = _HEREDOC.search(line)
        until = heredoc["word"] if heredoc else None
        kept.append(_HEREDOC.sub("", line))
    return "\n".join(kept) + "\n"


def _logical_lines(script: str) -> Iterator[str]:
    """Lines, joined where a backslash or an open quote says so."""
    held = ""
    for line in script.splitlines():
        held += line
        if held.endswith("\\"):
            held = held[:-1] + " "
            continue
        try:
            shlex.split(held, comments=True)
        except ValueError:
            held += "\n"
            continue
        yield held
        held = ""
    if held.strip():
        raise ValueError(f"a quote is not closed: {held.strip().splitlines()[0]}")


def _commands_of(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    skip = False
    for token in lexer:
        if skip:
            skip = False
        elif set(token) <= set("<>&") and set(token) & set("<>"):
            skip = True
            if words and words[-1] in {"0", "1", "2"}:
                words.pop()
        elif token and set(token) <= set("|&;()"):
            yield from _unwrapped(words)
            words = []
        else:
            words.append(token)
    yield from _unwrapped(words)


def _unwrapped(words: list[str]) -> Iterator[list[str]]:
    while words:
        first = words[0]
        if first in _SAYS_NOTHING:
            return
        if first in _GOES_ON or _ASSIGNMENT.match(first):
            words = words[1:]
        elif first in _WRAPPERS:
            words = _after_options(words[1:])[_WRAPPERS[first] :]
        elif first in {"podman", "docker"} and words[1:2] == ["exec"]:
            words = _after_options(words[2:])[1:]
        elif words[:3] == ["ip", "netns", "exec"]:
            words = words[4:]
        elif first == "ssh" and len(after := _after_options(words[1:])) > 1:
            yield from commands(" ".join(after[1:]))
            return
        elif words[:2] == ["vagrant", "ssh"] and "-c" in words:
            yield from commands(words[words.index("-c") + 1])
            return
        else:
            yield words
            return


def _after_options(words: list[str]) -> list[str]:
    while words and words[0].startswith("-"):
        if words[0] == "--":
            return words[1:]
        words = words[2:] if words[0] in _VALUED else words[1:]
    return words
