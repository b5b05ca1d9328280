"""Examples for other programs: Prometheus, Ansible, Compose.

One rule: what names something of this project (a metric, a role, a role's variable) must name one that is there; the
rest is looked at as far as its own program would complain at once.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser
import yaml

from director.core import metrics as of_director
from l7proxy.core.metering import FAMILIES, Kind
from tests.docs.pages import ROOT

COLLECTION = ROOT / "deploy" / "ansible"
_VARIABLE = re.compile(r"^(director|l7proxy|realserver|program)_\w+$")
_METRIC = re.compile(r"\b(?:director|l7proxy)_[a-z0-9_]+")
_PLAY = {"hosts", "import_playbook"}
_TASK = {"name", "hosts", "import_playbook"}


def kind_of(held: Any) -> str:
    """By its keys, what this is; nothing where they do not tell."""
    if isinstance(held, list) and held and all(isinstance(each, dict) for each in held):
        return "ansible-playbook" if all(set(each) & _PLAY for each in held) else ""
    if not isinstance(held, dict):
        return ""
    keys = set(held)
    for kind, names in (
        ("prometheus-rules", {"groups"}),
        ("prometheus", {"scrape_configs", "global", "rule_files", "alerting"}),
        ("compose", {"services", "networks", "volumes", "name"}),
        ("ansible-inventory", {"all"}),
        ("ansible-requirements", {"collections", "roles"}),
    ):
        if keys and keys <= names:
            return kind
    if keys and all(_VARIABLE.match(str(key)) for key in keys):
        return "ansible-vars"
    return ""


# Prometheus


def metrics() -> set[str]:
    """What both programs show, by the names that Prometheus stores."""
    found: set[str] = set()
    for name, family in FAMILIES.items():
        found |= _stored(name, family.kind)
    families = [each for each in vars(of_director).values() if isinstance(each, of_director.Family)]
    families += [each for each, _ in (*of_director._VIRTUAL, *of_director._REAL, *of_director._DELIVERIES)]
    found |= {f"{each.name}_total" if each.is_counter else each.name for each in families}
    # The daemon's own have their names in the text: which of them are counters, it does not tell.
    own = set(re.findall(r"\"(director_[a-z0-9_]+)\"", Path(of_director.__file__).read_text()))
    return found | own | {f"{name}_total" for name in own}


def _stored(name: str, kind: Kind) -> set[str]:
    match kind:
        case Kind.COUNTER:
            return {f"{name}_total"}
        case Kind.HISTOGRAM:
            return {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
        case _:
            return {name}


def unknown_metrics(expression: str) -> set[str]:
    """Metrics of this project that `expression` names, and that are none. Labels' values and job names do not count."""
    bare = re.sub(r"\"[^\"]*\"|'[^']*'", '""', expression)
    return set(_METRIC.findall(bare)) - metrics()


def _rules(held: Any, text: str) -> str:
    problems = []
    for group in held["groups"]:
        problems += [f"a group has no {key}" for key in ("name", "rules") if key not in group]
        for rule in group.get("rules", ()):
            if "expr" not in rule or not {"alert", "record"} & set(rule):
                problems.append(f"a rule needs expr, and alert or record: {rule}")
            problems += [f"no such metric: {name}" for name in sorted(unknown_metrics(str(rule.get("expr", ""))))]
    return "; ".join(problems) or _promtool(text, "rules")


def _prometheus(held: Any, text: str) -> str:
    jobs = [each for each in held.get("scrape_configs", ()) if "job_name" not in each]
    return f"a scrape config needs job_name: {jobs}" if jobs else ""


def _promtool(text: str, what: str) -> str:
    if shutil.which("promtool") is None:
        return ""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        done = subprocess.run(["promtool", "check", what, file.name], capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


def wrong_with_promql(text: str) -> str:
    """What is wrong with an expression, or nothing."""
    try:
        promql_parser.parse(text)
    except ValueError as error:
        return f"no PromQL: {error}"
    return "; ".join(f"no such metric: {name}" for name in sorted(unknown_metrics(text)))


# Ansible


@cache
def role_variables() -> dict[str, set[str]]:
    """The variables of each role, as its argument_specs say; empty where there is no collection."""
    found = {}
    for specs in COLLECTION.glob("roles/*/meta/argument_specs.yml"):
        points = yaml.safe_load(specs.read_text())["argument_specs"]
        found[specs.parents[1].name] = {name for point in points.values() for name in point.get("options") or {}}
    return found


def _unknown_variables(names: Any) -> Iterator[str]:
    known = {name for variables in role_variables().values() for name in variables}
    for name in names:
        if known and _VARIABLE.match(str(name)) and name not in known:
            yield f"no role has a variable {name}"


def _variables(held: Any, text: str) -> str:
    return "; ".join(_unknown_variables(held))


def _playbook(held: Any, text: str) -> str:
    problems = []
    for play in held:
        if not set(play) & _PLAY:
            problems.append(f"a play needs hosts: {play}")
        problems += _unknown_variables(play.get("vars") or {})
        named = [role["role"] if isinstance(role, dict) else role for role in play.get("roles", ())]
        named += [
            task.get(key, {}).get("name", "")
            for task in play.get("tasks", ())
            for key in ("ansible.builtin.import_role", "ansible.builtin.include_role")
            if key in task
        ]
        problems += [f"no such role: {name}" for name in named if name and not _is_role(name)]
    return "; ".join(problems)


def _is_role(name: str) -> bool:
    collection, _, role = name.rpartition(".")
    if collection not in {"", "lvs.director"}:
        return True  # somebody else's
    return not COLLECTION.exists() or (COLLECTION / "roles" / role).is_dir()


def _inventory(held: Any, text: str) -> str:
    problems: list[str] = []

    def walk(group: Any, name: str) -> None:
        unknown = set(group or {}) - {"hosts", "children", "vars"}
        problems.extend(f"group {name} has no key {key}" for key in sorted(unknown))
        problems.extend(_unknown_variables((group or {}).get("vars") or {}))
        for variables in ((group or {}).get("hosts") or {}).values():
            problems.extend(_unknown_variables(variables or {}))
        for child, held_by in ((group or {}).get("children") or {}).items():
            walk(held_by, child)

    for name, group in held.items():
        walk(group, name)
    return "; ".join(problems)


def _requirements(held: Any, text: str) -> str:
    return "" if held.get("collections") or held.get("roles") else "it names no collection"


def _tasks(held: Any, text: str) -> str:
    nameless = [task for task in held if "name" not in task]
    return f"a task needs a name: {nameless}" if nameless else ""


# Compose


def _compose(held: Any, text: str) -> str:
    bad = [name for name, service in held["services"].items() if not {"image", "build"} & set(service)]
    return f"a service needs image or build: {bad}" if bad else ""


def _foreign(held: Any, text: str) -> str:
    return ""


KINDS: dict[str, Callable[[Any, str], str]] = {
    "prometheus-rules": _rules,
    "prometheus": _prometheus,
    "ansible-playbook": _playbook,
    "ansible-tasks": _tasks,
    "ansible-vars": _variables,
    "ansible-inventory": _inventory,
    "ansible-requirements": _requirements,
    "compose": _compose,
    "foreign": _foreign,  # <!-- example: foreign: WHOSE -->
}
