"""A command of an example, and what is wrong with it.

One rule: what is this project's (both programs, make, curl at their sockets, units) is taken as it takes itself; of
other programs only the name is looked at, so that a slip in it is found.
"""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import PurePath
from typing import Any, cast
from urllib.parse import urlsplit

import click

from director.cli.root import cli as director
from l7proxy.admin.app import make_app
from l7proxy.cli.main import cli as l7proxy
from tests.docs.pages import ROOT, Block
from tests.docs.shellwords import commands, typed

OURS: dict[str, click.Command] = {"director": director, "l7proxy": l7proxy}
SOCKETS = {"/run/l7proxy/admin.sock": "l7proxy", "/run/director/director.sock": "director"}
L7PROXY_BIND = "127.0.0.1:9180"
UNITS = re.compile(r"^(?:director|l7proxy)(?:\.service|\.socket)?$")
FOREIGN_UNITS = {
    "keepalived", "haproxy", "nginx", "prometheus", "prometheus.service", "systemd-networkd", "systemd-modules-load",
    "systemd-modules-load.service", "ldirectord", "firewalld", "certbot.timer", "grafana-server", "nftables", "ipvsadm",
    "director-realserver",  # which docs/installation.md writes
}  # fmt: skip
SHELLS_OWN = """
    [ [[ . : alias cd complete echo eval exit export false kill printf read set source test trap true type ulimit umask
    unset wait"""
DEBIANS = """
    apt apt-cache apt-get arping awk base64 bash cat chgrp chmod chown column conntrack cp curl cut date diff dmesg dnf
    dpkg dpkg-deb find getcap getent git grep groupadd groupdel gzip head hostname htpasswd id install ip iptables
    iptables-save journalctl jq ln logger ls lsmod man mkdir mkpasswd mktemp modinfo modprobe mv nc nft nsenter nslookup
    openssl pgrep ping ps readlink rm rmdir rpm scp sed seq setfacl sh sha256sum sleep sort ss ssh ssh-copy-id stat su
    sysctl systemctl systemd-analyze systemd-sysusers systemd-tmpfiles tail tar tcpdump tee touch tr uname uniq useradd
    userdel usermod vi wc wget which yq"""
PYTHONS = "mkdocs pip pip3 pipx pytest python python3"
BESIDE = """
    ab ansible ansible-galaxy ansible-inventory ansible-lint ansible-playbook ansible-vault buildah certbot docker
    grafana-cli haproxy hey ipvsadm keepalived nginx podman promtool vagrant wrk"""
KNOWN = {*SHELLS_OWN.split(), *DEBIANS.split(), *PYTHONS.split(), *BESIDE.split()}


def wrong_with(block: Block) -> list[str]:
    """What is wrong with a shell example, or with what was typed in a terminal session; one line each."""
    script = typed(block.text) if block.language == "console" else block.text
    if not script.strip():
        return ["nothing is typed here: a prompt is `$ ` or `# `, output alone is ```text"]
    parsed = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    if parsed.returncode:
        return [f"bash: {parsed.stderr.strip()}"]
    found = (_wrong_with_command(words) for words in commands(script))
    return [problem for problem in found if problem]


def wrong_with_unit(block: Block) -> list[str]:
    """What is wrong with the commands of a unit, or of a drop-in to one."""
    lines = re.findall(r"^Exec\w+=[-@:+!]*(.+)$", block.text, re.MULTILINE)
    return [problem for line in lines for words in commands(line) if (problem := _wrong_with_command(words))]


def _wrong_with_command(words: list[str]) -> str:
    program = PurePath(words[0]).name
    if program in OURS:
        return taken_by_click(OURS[program], program, words[1:])
    match program:
        case "make":
            return _make(words[1:])
        case "curl":
            return _curl(words[1:])
        case "systemctl":
            return _systemctl(words[1:])
        case "ansible-playbook":
            return _ansible_playbook(words[1:])
    if program in KNOWN or words[0].startswith("$"):
        return ""
    return f"nobody knows the program {program}: is it a slip, or to be added to tests/docs/commandlines.py?"


def taken_by_click(command: click.Command, name: str, words: list[str]) -> str:
    """What click says about these words after `name`, or nothing. Nothing is run."""
    path, above = name, None
    try:
        while isinstance(command, click.Group):
            above = command.make_context(path, list(words), parent=above)
            words = [*above._protected_args, *above.args]
            if not words:
                return f"{path}: which of its commands?"
            _, found, words = command.resolve_command(above, words)
            if found is None or found.hidden:
                return f"{path} has no command {words[:1]}"
            command, path = found, f"{path} {found.name}"
        command.make_context(path, list(words), parent=above)
    except click.exceptions.NoArgsIsHelpError:
        return f"{path}: which of its commands?"
    except click.exceptions.Exit:
        return ""  # --help, --version
    except click.ClickException as error:
        return f"{path}: {error.format_message()}"
    return ""


@cache
def targets() -> tuple[set[str], set[str]]:
    """The Makefile's targets and variables."""
    text = (ROOT / "Makefile").read_text()
    return set(re.findall(r"^([a-z][\w-]*):", text, re.MULTILINE)), set(
        re.findall(r"^([A-Z_]+) *[?:]?=", text, re.MULTILINE)
    )


def _make(words: list[str]) -> str:
    known, variables = targets()
    for word in words:
        name, equals, _ = word.partition("=")
        if (equals and name not in variables) or (not equals and not word.startswith("-") and word not in known):
            return f"the Makefile has no {name}"
    return ""


@cache
def served(program: str) -> list[re.Pattern[str]]:
    """The paths that a program's admin socket answers."""
    app: Any
    if program == "l7proxy":
        app = make_app(cast("Any", None), operations=lambda: cast("Any", None))
        paths = {each.resource.canonical for each in app.router.routes() if each.resource}
    else:
        sources = "".join(path.read_text() for path in (ROOT / "director" / "api").glob("*.py"))
        paths = set(re.findall(r"\.(?:add_)?(?:get|post)\(\"(/[^\"]*)\"", sources))
    return [re.compile(re.sub(r"\\\{.*?\\\}", "[^/]+", re.escape(path)) + "$") for path in paths]


def _curl(words: list[str]) -> str:
    url = next((word for word in words if word.startswith(("http://", "https://"))), "")
    at = words.index("--unix-socket") + 1 if "--unix-socket" in words else 0
    program = SOCKETS.get(words[at], "") if at else "l7proxy" if urlsplit(url).netloc == L7PROXY_BIND else ""
    if at and not program:
        return f"neither program has a socket {words[at]}"
    path = urlsplit(url).path
    if program and not any(each.match(path) for each in served(program)):
        return f"{program} does not answer {path}"
    return ""


def _systemctl(words: list[str]) -> str:
    valued = {"-p", "-n", "-t", "-s", "-o", "-H", "-M"}
    plain = [word for before, word in zip(["", *words], words, strict=False) if word[0] != "-" and before not in valued]
    for unit in plain[1:]:
        if not UNITS.match(unit) and unit not in FOREIGN_UNITS and "$" not in unit:
            return f"no unit of ours, nor one that is known: {unit}"
        file = ROOT / "deploy" / "systemd" / (unit if "." in unit else f"{unit}.service")
        if UNITS.match(unit) and file.parent.is_dir() and not file.exists():
            return f"deploy/systemd has no {file.name}"
    return ""


def _ansible_playbook(words: list[str]) -> str:
    collection = ROOT / "deploy" / "ansible"
    for word in words:
        name = word.removeprefix("lvs.director.")
        if name != word and collection.is_dir() and not (collection / "playbooks" / f"{name}.yml").exists():
            return f"the collection has no playbook {name}"
    return ""


def wrong_in_words(text: str) -> list[str]:
    """What is wrong with commands that stand in a sentence: it may name one without all of its arguments, or with words
    in capitals that stand for something."""
    spans = re.findall(r"(?<!`)`((?:director|l7proxy)\s[^`]+)`(?!`)", text)
    found = [_wrong_with_command(words) for span in spans for words in commands(" ".join(span.split()))]
    name_alone = "Missing argument|which of its commands|requires an argument"
    placeholder = "No such command 'COMMAND'|Invalid value.*'[A-Z]+' is no"
    return [problem for problem in found if problem and not re.search(f"{name_alone}|{placeholder}", problem)]
