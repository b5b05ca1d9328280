"""schema: what a configuration may hold, for editors and for people."""

from __future__ import annotations

import json

import click


@click.command()
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the reference of all keys instead.")
def schema(as_markdown: bool) -> None:
    """Print the JSON Schema of director.yaml: editors complete and check a file by it."""
    from director.core.schema import FileSection
    from director.kit.reference import markdown

    found = FileSection.model_json_schema()
    click.echo(markdown(found, "director.yaml"), nl=False) if as_markdown else click.echo(json.dumps(found, indent=2))
