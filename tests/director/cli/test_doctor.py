"""The command line of the doctor: what it takes, what it prints, how it exits. What it finds is tried elsewhere."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path

import pytest

from director.cli import doctor, exits
from director.cli.root import cli
from director.doctor.checkup import Report
from director.doctor.finding import Code, error, note, warning
from director.doctor.gather import Role
from director.doctor.situation import Situation
from director.kit.errors import HostError

pytestmark = pytest.mark.unit

FILE = """
virtual_servers:
  web:
    address: 192.0.2.10
    port: 80
    forward: dr
    real_servers:
      a: {address: 192.0.2.21}
"""
FOUND = {
    "error": error(Code.VIP_NOT_LOCAL, "192.0.2.10", "no interface has it", "add it"),
    "warning": warning(Code.REUSE_MODE, "conn_reuse_mode", "it is 0", "make it 1"),
    "note": note(Code.UNDECLARED, "tcp 192.0.2.11:80", "it is there", "see who needs it"),
}


class Checkup:
    """Stands for the checkup: takes what it is asked, finds what it is told."""

    def __init__(self) -> None:
        self.asked: list[tuple[Situation, Role]] = []
        self.severities: list[str] = []
        self.is_server = False

    def __call__(self, situation: Situation, role: Role) -> Report:
        self.asked.append((situation, role))
        serves = situation.virtuals if self.is_server else ()
        return Report(tuple(FOUND[each] for each in self.severities), ("VIPs",), (), situation.virtuals, serves)


@pytest.fixture
def checkup(monkeypatch: pytest.MonkeyPatch) -> Checkup:
    made = Checkup()
    monkeypatch.setattr("director.doctor.checkup.checkup", made)
    return made


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "director.yaml"
    path.write_text(FILE)
    return str(path)


@pytest.mark.parametrize(
    ("severities", "code"),
    [([], 0), (["note"], 0), (["warning", "note"], 2), (["error"], 1), (["error", "warning", "note"], 1)],
)
def test_it_exits_by_the_worst(
    checkup: Checkup, file: str, capsys: pytest.CaptureFixture[str], severities: list[str], code: int
) -> None:
    checkup.severities = severities
    assert exits.run(cli, "director", ["doctor", file]) == code
    *lines, summary = capsys.readouterr().out.splitlines()
    assert lines == [str(FOUND[each]) for each in severities]
    assert summary.startswith("1 look as a director of 1 virtual server: ")
    assert exits.run(cli, "director", ["doctor", file, "--json"]) == code
    said = json.loads(capsys.readouterr().out)
    assert [each["severity"] for each in said["findings"]] == severities
    assert [set(each) for each in said["findings"]] == [{"severity", "code", "subject", "found", "remedy"}] * len(
        severities
    )
    assert (said["looks"], said["not_made"], said["director_of"], said["real_server_of"]) == (["VIPs"], [], ["web"], [])


def test_it_looks_at_the_file_or_at_the_vips_that_it_is_given(
    checkup: Checkup, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "DEFAULT_FILE", Path(file))
    checkup.is_server = True
    for words in ([], [file], ["--role", "realserver"], ["--vip", "192.0.2.7", "--vip", "fd00::7", "--forward", "tun"]):
        assert exits.run(cli, "director", ["doctor", *words]) == 0
    assert [role for _, role in checkup.asked] == [Role.AUTO, Role.AUTO, Role.REALSERVER, Role.REALSERVER]
    assert checkup.asked[0] == checkup.asked[1]
    assert {virtual.name for virtual in checkup.asked[0][0].virtuals} == {"web"}
    assert checkup.asked[3][0].vips() == (ip_address("192.0.2.7"), ip_address("fd00::7"))


@pytest.mark.parametrize(
    "words",
    [
        ["--vip", "192.0.2.7"],
        ["--forward", "dr"],
        ["--vip", "192.0.2.7", "--forward", "fullnat"],
        ["--vip", "192.0.2.256", "--forward", "dr"],
        ["--vip", "192.0.2.7", "--forward", "dr", "--role", "director"],
        ["f.yaml", "--vip", "192.0.2.7", "--forward", "dr"],
        ["--role", "nurse"],
    ],
)
def test_a_wrong_command_line_exits_64(checkup: Checkup, words: list[str]) -> None:
    assert exits.run(cli, "director", ["doctor", *words]) == 64
    assert checkup.asked == []


def test_a_file_that_cannot_be_used_and_a_host_that_cannot_be_looked_at_are_told(
    checkup: Checkup, file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "DEFAULT_FILE", Path(file).with_name("none.yaml"))
    assert exits.run(cli, "director", ["doctor"]) == 1
    said = capsys.readouterr().err
    assert "none.yaml does not exist: give the director's FILE; on a real server `director doctor --vip" in said
    assert exits.run(cli, "director", ["doctor", str(Path(file).with_name("none.yaml"))]) == 1
    assert "none.yaml:1:1: no such file" in capsys.readouterr().err

    assert exits.run(cli, "director", ["doctor", file, "--role", "realserver"]) == 1
    assert "no virtual server has an address of this host" in capsys.readouterr().err

    def refuse(*_: object) -> Report:
        raise HostError("could not list addresses: no")

    monkeypatch.setattr("director.doctor.checkup.checkup", refuse)
    assert exits.run(cli, "director", ["doctor", file]) == 1
    assert capsys.readouterr().err == "director: could not list addresses: no\n"
