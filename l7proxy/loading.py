"""A configuration from its file, with what only this host can fill in.

One rule: what comes out has no gaps: `auto` workers are so many.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from director.kit.configfile import read_text
from l7proxy.core.config import load_config
from l7proxy.core.model import Config


@dataclass(frozen=True, slots=True)
class Loaded:
    """A file's text, and what it means."""

    source: str
    text: str
    config: Config


def load_file(path: str) -> Loaded:
    """Read the file at `path`.

    Raises: InvalidConfigError.
    """
    return load_text(read_text(path), path)


def load_text(text: str, source: str) -> Loaded:
    """The same for a text that is there already.

    Raises: InvalidConfigError.
    """
    config = load_config(text, source)
    workers = config.workers or len(os.sched_getaffinity(0))
    return Loaded(source, text, replace(config, workers=workers))
