"""From l7proxy.yaml's text to a `Config`.

One rule: every problem is found before anything is built (`findings.py`), and then all of it can be (`build.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain

from director.kit.configfile import Finding, load
from director.kit.net import Answer
from l7proxy.core.build import build, where_is
from l7proxy.core.findings import findings
from l7proxy.core.model import (
    Config,
)
from l7proxy.core.schema import ConfigSection


def no_answers(_: Iterable[str]) -> Mapping[str, Answer]:
    """Nobody is asked."""
    return {}


def no_findings(_: ConfigSection) -> Iterator[Finding]:
    """Nothing more is wrong."""
    yield from ()


def load_config(
    text: str,
    source: str,
    more: Callable[[ConfigSection], Iterable[Finding]] = no_findings,
    look_up: Callable[[Iterable[str]], Mapping[str, Answer]] = no_answers,
) -> Config:
    """The configuration in `text`; `source` names it in messages. `more` looks at what only an edge can: files;
    `look_up` says what names are.

    Raises: InvalidConfigError with every problem that was found.
    """
    section = load(text, source, ConfigSection, lambda section: chain(findings(section), more(section)))
    hosts = {
        host
        for upstream in section.upstreams.values()
        for backend in upstream.backends.values()
        if (host := where_is(backend.address, {})[1])
    }
    return build(section, look_up(hosts) if hosts else {})
