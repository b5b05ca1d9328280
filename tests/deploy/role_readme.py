"""The roles' README.md: the table of variables is written from meta/argument_specs.yml, which Ansible itself goes by.

One rule: what is not between the marks is somebody's own words. `python -m tests.deploy.role_readme` renews the tables.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).parents[2] / "deploy" / "ansible" / "roles"
BEGIN = "<!-- variables: python -m tests.deploy.role_readme -->"
END = "<!-- end of variables -->"


def options(role: str) -> Mapping[str, Any]:
    """The variables of a role by their names, as its specification has them."""
    spec = yaml.safe_load((ROLES / role / "meta" / "argument_specs.yml").read_text())
    found: Mapping[str, Any] = spec["argument_specs"]["main"]["options"]
    return found


def table(role: str) -> str:
    """The variables as Markdown."""
    lines = ["| variable | value | default | |", "|---|---|---|---|"]
    for name, option in options(role).items():
        lines.append(_row(name, option))
        lines += [_row(f"{name}[].{key}", inner) for key, inner in option.get("options", {}).items()]
    return "\n".join(lines)


def renewed(role: str) -> str:
    """The role's README.md with its table as it should be."""
    text = (ROLES / role / "README.md").read_text()
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{table(role)}\n{END}{after}"


def roles() -> list[str]:
    """All of them."""
    return sorted(path.name for path in ROLES.iterdir())


def _row(name: str, option: Mapping[str, Any]) -> str:
    kind = " \\| ".join(f"`{each}`" for each in option.get("choices", ())) or str(option["type"])
    if option.get("elements"):
        kind = f"list of {option['elements']}"
    default = f"`{json.dumps(option['default'])}`" if "default" in option else ""
    said = re.sub(r"C\(((?:[^()]|\([^()]*\))*)\)", r"`\1`", " ".join(str(option["description"]).split()))
    return f"| `{name}` | {kind} | {default} | {said} |"


def main() -> None:
    for role in roles():
        (ROLES / role / "README.md").write_text(renewed(role))


if __name__ == "__main__":
    main()
