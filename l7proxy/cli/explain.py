"""`l7proxy explain FILE`: what would become of a request, told in words or as JSON.

One rule: nothing is sent, and nobody is asked.
"""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from director.kit.yamltree import parse
from l7proxy.core.explaintext import note_of, told
from l7proxy.core.question import Question, ask
from l7proxy.files.loading import load_file

EXIT_NO_ROUTE = 1


def run(file: str, question: Question, as_json: bool) -> int:
    """Tell it on standard output; the exit code.

    Raises: AskError, InvalidConfigError.
    """
    loaded = load_file(file)
    found = ask(loaded.config, question)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
    else:
        tree = parse(loaded.text)
        places = {place: tree.mark(("routes", place)).line for place in range(len(loaded.config.routes))}
        note = note_of(loaded.config, question.request, found)
        for line in told(found, file, places, [note] if note else []):
            click.echo(line)
    return EXIT_NO_ROUTE if found.is_unmatched else 0
