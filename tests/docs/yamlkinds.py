"""What a YAML example is, and what is wrong with it.

One rule: a part of a file is put into the smallest whole one and taken as its program takes it; an example of which
nobody knows what it is, is wrong.
"""

from __future__ import annotations

import copy
import re
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import yaml

from director.core.config import parse_config
from director.core.naming import Named
from director.core.schema import FileSection, VirtualServerSection
from director.kit.errors import DirectorError
from l7proxy.core.schema import ConfigSection
from l7proxy.files.loading import load_text
from tests.docs import foreignyaml
from tests.docs.pages import Block
from tests.wire.sealed import make_certificate

LEAST_DIRECTOR: Mapping[str, Any] = {
    "defaults": {"interface": "eth0"},
    "virtual_servers": {
        "web": {
            "address": "192.0.2.10",
            "port": 80,
            "forward": "dr",
            "real_servers": {"a": {"address": "192.0.2.21"}, "b": {"address": "192.0.2.22"}},
        }
    },
}
LEAST_L7PROXY: Mapping[str, Any] = {
    "listeners": {"http": {"bind": "0.0.0.0:80"}},
    "routes": [{"upstream": "shop"}],
    "upstreams": {"shop": {"backends": {"a": {"address": "10.0.1.11:8000"}}}},
}
ADDRESS = IPv4Address("192.0.2.77")
"""Of each real server that is given by name."""
USERS = "ann:$2b$10$mWutT4xLQwnRwdmMwt0FweFCVkpJc/uzaAYeAZqbVU8BKmDAGCOVW\n"
KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n"


class _Strict(yaml.SafeLoader):
    """PyYAML takes the last of two equal keys, and says nothing."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in found:
            raise yaml.MarkedYAMLError(problem=f"{key} is there twice", problem_mark=key_node.start_mark)
        found[key] = loader.construct_object(value_node, deep=True)
    return found


def _tagged(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    """Ansible's `!vault` and the like: its text."""
    return getattr(node, "value", suffix)


_Strict.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not (tag.endswith(":bool") and first in "oOyYnN")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}  # `on:` is a key, as both programs read it
_Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Strict.add_multi_constructor("!", _tagged)


def documents(text: str) -> list[Any]:
    """The documents of `text`.

    Raises: yaml.YAMLError, also for a key that is there twice.
    """
    return list(yaml.load_all(text, _Strict))


def wrong_with(block: Block) -> str:
    """What is wrong with this example, or nothing."""
    try:
        parts = _lines_of_their_own(block.text)
        found = [_wrong_with_part(block, part) for part in parts]
    except yaml.YAMLError as error:
        return f"no YAML: {error}"
    return "; ".join(filter(None, found))


def _lines_of_their_own(text: str) -> list[str]:
    """Several ways to write one key, each on its line, are as many examples."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    keys = [re.match(r"(\w+): \S", line) for line in lines]
    if len(lines) > 1 and all(keys) and len({key[1] for key in keys if key}) == 1:
        return [line + "\n" for line in lines]
    return [text]


def _wrong_with_part(block: Block, text: str) -> str:
    held = documents(text)
    if len(held) != 1:
        return "; ".join(filter(None, (_wrong_with_part(block, yaml.safe_dump(each)) for each in held)))
    kind = block.kind or kind_of(held[0], block.page)
    name, _, _ = kind.partition(":")
    if name not in KINDS:
        kinds = ", ".join(KINDS)
        return f"nobody knows what this is: write <!-- example: KIND --> on the line before it, one of {kinds}"
    return KINDS[name](held[0], text)


def kind_of(held: Any, page: str) -> str:
    """By its keys, what this is; nothing where they do not tell."""
    if not isinstance(held, dict):
        return foreignyaml.kind_of(held)
    keys = set(held)
    of_director, of_l7proxy = keys <= set(FileSection.model_fields), keys <= set(ConfigSection.model_fields)
    if of_director and of_l7proxy:
        return "l7proxy" if "l7proxy" in page else "director"
    if of_director or of_l7proxy:
        return "director" if of_director else "l7proxy"
    if "l7proxy" not in page and keys <= set(VirtualServerSection.model_fields):
        return "director-virtual-server"
    return foreignyaml.kind_of(held)


def _director(held: Any, text: str) -> str:
    servers = held.get("virtual_servers") or {}
    whole = bool(servers) and all({"forward", "real_servers"} <= set(each or {}) for each in servers.values())
    return _taken_by_director(text if whole else yaml.safe_dump(_with_least(held)))


def _with_least(held: Any) -> dict[str, Any]:
    least = copy.deepcopy(dict(LEAST_DIRECTOR))
    model = least["virtual_servers"]["web"]
    merged = {**least, **held, "defaults": {**least["defaults"], **held.get("defaults", {})}}
    for name, server in merged["virtual_servers"].items():
        wanted = {
            key: value for key, value in model.items() if "fwmark" not in server or key not in {"address", "port"}
        }
        merged["virtual_servers"][name] = {**wanted, **server}
    return merged


def _virtual_server(held: Any, text: str) -> str:
    return _taken_by_director(yaml.safe_dump(_with_least({"virtual_servers": {"web": held}})))


def _real_server(held: Any, text: str) -> str:
    return _virtual_server({"real_servers": {"a": {"address": "192.0.2.21", **held}}}, text)


def _taken_by_director(text: str) -> str:
    try:
        parse_config(text, "example", lambda hosts: {host: Named(host, (ADDRESS,)) for host in hosts})
    except DirectorError as error:
        return f"director does not take it: {error}"
    return ""


def _l7proxy(held: Any, text: str) -> str:
    whole = {"listeners", "upstreams"} <= set(held)
    return _taken_by_l7proxy(text if whole else yaml.safe_dump({**LEAST_L7PROXY, **held}))


def _part_of_l7proxy(put: Callable[[dict[str, Any], Any], None]) -> Callable[[Any, str], str]:
    def check(held: Any, text: str) -> str:
        least = copy.deepcopy(dict(LEAST_L7PROXY))
        put(least, held)
        return _taken_by_l7proxy(yaml.safe_dump(least))

    return check


def _taken_by_l7proxy(text: str) -> str:
    try:
        load_text(_with_files(text), "example", is_start=True)
    except DirectorError as error:
        return f"l7proxy does not take it: {error}"
    return ""


def _with_files(text: str) -> str:
    """The same, with files that are there in place of those that it names."""
    made = _made()
    for key, ending, file in (
        ("ca", "pem", "shop.crt"),
        ("certificate", "pem", "shop.crt"),
        ("key", "key", "shop.key"),
    ):
        text = re.sub(rf"\b({key}: )/\S+?\.{ending}\b", rf"\1{made / 'folder' / file}", text)
    text = re.sub(r"(\bfolder: )/[^\s},]+", rf"\1{made / 'folder'}", text)
    text = re.sub(r"(\bkey_file: )/[^\s}]+", rf"\1{made / 'key_file'}", text)
    text = re.sub(r"(\bbasic: \{file: )/[^\s}]+", rf"\1{made / 'users'}", text)
    return re.sub(r"(\bfile: )/[^\s}]+users\b", rf"\1{made / 'users'}", text)


@cache
def _made() -> Path:
    """A folder with a certificate, passwords and a key. It goes with the process."""
    directory = Path(_HELD.name)
    (directory / "folder").mkdir()
    make_certificate(directory / "folder", "shop", names="DNS:shop.example.org")
    (directory / "users").write_text(USERS)
    (directory / "key_file").write_text(KEY)
    return directory


_HELD = tempfile.TemporaryDirectory(prefix="examples-")


def _put_route(least: dict[str, Any], held: Any) -> None:
    least["routes"] = [{"upstream": "shop", **held} if not {"redirect", "respond"} & set(held) else held]


def _put_upstream(least: dict[str, Any], held: Any) -> None:
    least["upstreams"]["shop"].update(held)


def _put_listener(least: dict[str, Any], held: Any) -> None:
    least["listeners"]["http"].update(held)


def _put_backend(least: dict[str, Any], held: Any) -> None:
    least["upstreams"]["shop"]["backends"]["a"].update(held)


KINDS: dict[str, Callable[[Any, str], str]] = {
    "director": _director,
    "director-virtual-server": _virtual_server,
    "director-real-server": _real_server,
    "l7proxy": _l7proxy,
    "l7proxy-route": _part_of_l7proxy(_put_route),
    "l7proxy-upstream": _part_of_l7proxy(_put_upstream),
    "l7proxy-listener": _part_of_l7proxy(_put_listener),
    "l7proxy-backend": _part_of_l7proxy(_put_backend),
    **foreignyaml.KINDS,
}
