"""The Vagrant lab's files as its machines get them, without Vagrant, Ansible or Ruby.

One rule: the templates stay simple enough for this; what it does not know is an error, not left as it is.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from director.lab.bytecode import PROJECT

VAGRANT = PROJECT / "vagrant"


def variables(group: str) -> dict[str, Any]:
    """A file of group_vars."""
    found = yaml.safe_load((VAGRANT / "group_vars" / f"{group}.yml").read_text())
    assert isinstance(found, dict)
    return found


def director_file(name: str, interface: str) -> str:
    """director.yaml of a director."""
    values = {key: variables("directors")[key] for key in ("lab_web", "lab_plain")}

    def choose(block: re.Match[str]) -> str:
        return block[2] if name in values[block[1]] else ""

    text = (VAGRANT / "templates" / "director.yaml.j2").read_text()
    text = re.sub(r"(?ms)^{% if inventory_hostname in (\w+) %}\n(.*?)^{% endif %}\n", choose, text)
    text = text.replace("{{ inventory_hostname }}", name).replace("{{ lab_lan }}", interface)
    text = re.sub(r"{{ (\w+)\[inventory_hostname\] }}", lambda found: str(values[found[1]][name]), text)
    assert "{{" not in text, text
    assert "{%" not in text, text
    return text


def l7proxy_file() -> str:
    """l7proxy.yaml of both l7proxy."""
    text = (VAGRANT / "templates" / "l7proxy.yaml.j2").read_text()
    assert "{{" not in text
    return text
