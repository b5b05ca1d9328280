"""What a configuration names and this host lacks."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from director.advice import files
from director.core.config import parse_config

pytestmark = pytest.mark.unit

FILE = """
virtual_servers:
  web:
    address: 192.0.2.10
    port: 80
    forward: nat
    quorum_up: {command: [/bin/true]}
    quorum_down: {command: [/nowhere/hook]}
    real_servers:
      a: {address: 10.0.0.5, check: {type: script, command: [/nowhere/check, "{address}"]}}
      b: {address: 10.0.0.6, check: {type: script, command: [/nowhere/check, "{address}"]}}
      c: {address: 10.0.0.7, check: {type: redis, password_file: DIR/secret}}
      d: {address: 10.0.0.8, check: {type: all, of: [{type: tcp}, {type: https, ca: DIR/ca, verify: true}]}}
"""


def test_programs_and_files_that_are_not_there_are_told_once_with_who_needs_them(tmp_path: Path) -> None:
    config = parse_config(FILE.replace("DIR", str(tmp_path)), "f")
    missing = "cannot be read (No such file or directory): its probes cannot be made"
    assert files(config) == (
        "quorum_down of web: /nowhere/hook cannot be run: No such file or directory",
        "check of web/a: /nowhere/check cannot be run: No such file or directory",
        f"check of web/c: {tmp_path}/secret {missing}",
        f"check of web/d: {tmp_path}/ca {missing}",
    )
    for name in ("secret", "ca"):
        (tmp_path / name).write_text("x")
    assert not any(str(tmp_path) in sentence for sentence in files(config))


def test_user_that_a_director_without_root_cannot_become_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse_config(FILE.replace("[/bin/true]}", "[/bin/true], user: nobody}").replace("DIR", "/nowhere"), "f")
    told = "quorum_up of web: /bin/true is not run as nobody: a director that is not root runs programs as itself"
    monkeypatch.setattr("os.geteuid", lambda: 4711)
    assert files(config)[0].startswith(told)
    monkeypatch.setattr("os.geteuid", lambda: pwd.getpwnam("nobody").pw_uid)
    assert not any(told in sentence for sentence in files(config))
