"""schema: what a configuration may hold, for editors and for people."""

from __future__ import annotations

import json

import click


@click.command()
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the reference of all keys instead.")
def schema(as_markdown: bool) -> None:
    """Print the JSON Schema of director.yaml: editors complete and check a file by it."""
    from director.core.schema import FileSection
    from director.kit.reference import for_editors, markdown

    found, title = FileSection.model_json_schema(), "director.yaml"
    if as_markdown:
        click.echo(markdown(found, title), nl=False)
    else:
        click.echo(json.dumps(for_editors(found, title), indent=2))
