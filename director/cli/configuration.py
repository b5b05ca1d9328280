"""director.yaml as commands read it: the names in it are looked up here and now.

One rule: what a daemon remembers of names helps where it can be read, and only who writes the kernel adds to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from director.cli.lines import note
from director.kit import statefile

if TYPE_CHECKING:
    from director.core.model import Config


def read_configuration(file: Path, state_directory: Path = statefile.DIRECTORY) -> tuple[str, Config]:
    """FILE's text, and the configuration that it is. Raises: InvalidConfigError."""
    from director.kit.configfile import read_text

    text = read_text(file)
    return text, parsed(text, str(file), state_directory)


def parsed(text: str, source: str, state_directory: Path, *, presume: bool = False) -> Config:
    """The configuration in `text`; `note: ...` tells of names that give no answer now.

    `presume`: addresses that are remembered are taken as they are. Raises: InvalidConfigError.
    """
    from director.core.config import parse_config
    from director.core.moves import trouble_sentences, troubles
    from director.names import Names

    names = Names(state_directory)
    config = parse_config(text, source, names.presumed if presume else names.look_up)
    if not presume:
        note(trouble_sentences(troubles(config, names.known)) if config.hosts() else ())
    return config
