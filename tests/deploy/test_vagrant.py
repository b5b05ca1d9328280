"""The Vagrant lab: the same machines as the lab's, and files that its programs and tools take.

One rule: no machine is started here.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from director.cli.root import cli as director
from director.lab import topology
from director.lab.bytecode import PROJECT
from director.lab.scenes.titles import TITLES
from l7proxy.cli.main import cli as l7proxy
from tests.deploy.vagrantlab import VAGRANT, director_file, l7proxy_file, variables

pytestmark = pytest.mark.unit

README = (VAGRANT / "README.md").read_text()
PAIR = topology.load(topology.PAIR)


def needs(program: str, package: str) -> str:
    """The program's path, or a skip that says why."""
    found = shutil.which(program, path=f"{PROJECT / '.venv/bin'}:{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{program} is not installed: {package}")
    return found


def run(*argv: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    everything = {**os.environ, **env}
    return subprocess.run(argv, cwd=VAGRANT, env=everything, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    """What the Vagrantfile makes of the topology."""
    done = run(needs("ruby", "apt-get install ruby"), "lab.rb")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_machines_are_the_topologys(made: dict[str, Any]) -> None:
    assert [each["name"] for each in made["machines"]] == list(PAIR.hosts)
    for machine in made["machines"]:
        host = PAIR.hosts[machine["name"]]
        assert machine["role"] == host.role
        assert machine["sysctls"] == host.sysctls
        assert machine["links"] == [
            {
                "network": name,
                "v4": str(link.v4),
                "netmask": str(link.network.v4.netmask),
                "v6": f"{link.v6}/{link.network.v6.prefixlen}",
                "mac": link.mac,
            }
            for name, link in host.links.items()
        ]
        via = [str(address) for address in topology.gateways_of(PAIR, host)]
        assert [route["via"] for route in machine["routes"]] == via
        if via:
            assert [route["to"] for route in machine["routes"]] == ["10.9.0.0/24", "fd09::/64"]


def test_topology_can_be_another(tmp_path: Path) -> None:
    done = run(needs("ruby", "apt-get install ruby"), "lab.rb", LAB_TOPOLOGY=str(topology.DEFAULT))
    assert [each["name"] for each in json.loads(done.stdout)["machines"]] == list(topology.load().hosts)


def test_every_group_has_its_play_and_no_play_or_file_another_group(made: dict[str, Any]) -> None:
    groups = set(made["groups"])
    assert made["groups"]["directors"] == ["director-1", "director-2"]
    assert made["groups"]["l7proxies"] == ["l7proxy-1", "l7proxy-2"]
    plays = yaml.safe_load((VAGRANT / "provision.yml").read_text())
    assert {name for play in plays for name in play["hosts"].split(":")} == groups
    files = {path.stem for path in (VAGRANT / "group_vars").iterdir()}
    assert files - {"all"} <= groups
    assert set(variables("directors")["lab_web"]) == set(made["groups"]["directors"])


def test_scripts_of_the_machines_are_shell(made: dict[str, Any], tmp_path: Path) -> None:
    for machine in made["machines"]:
        script = tmp_path / machine["name"]
        script.write_text(machine["settle"])
        assert run("sh", "-n", script).returncode == 0
        assert machine["links"][0]["mac"] in machine["settle"]
    assert run("sh", "-n", "wheels.sh").returncode == 0


def test_vagrant_takes_the_file(tmp_path: Path) -> None:
    vagrant = needs("vagrant", "apt-get install vagrant")
    homes = {
        "HOME": str(tmp_path),
        "VAGRANT_HOME": str(tmp_path / "home"),
        "VAGRANT_DOTFILE_PATH": str(tmp_path / "dot"),
    }
    done = run(vagrant, "validate", "--ignore-provider", VAGRANT_CHECKPOINT_DISABLE="1", **homes)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "validated successfully" in done.stdout
    assert [name for name in PAIR.hosts if f"==> {name}:" not in done.stdout] == []
    assert 'ending in ".1"' not in done.stdout


@pytest.fixture(scope="module")
def ansible(made: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Run a playbook with the collection, on an inventory such as Vagrant makes; what it says."""
    playbook = needs("ansible-playbook", "pip install ansible-core")
    home = tmp_path_factory.mktemp("ansible")
    (home / "ansible_collections" / "lvs").mkdir(parents=True)
    (home / "ansible_collections" / "lvs" / "director").symlink_to(PROJECT / "deploy" / "ansible")
    local = "ansible_connection=local ansible_python_interpreter=/usr/bin/python3 lab_lan=eth1"
    hosts = [f"{each['name']} {local}" for each in made["machines"]]
    groups = [f"[{name}]\n" + "\n".join(members) for name, members in made["groups"].items()]
    inventory = home / "inventory"
    inventory.write_text("\n".join([*hosts, *groups, ""]))

    def play(*words: str | Path) -> str:
        places = {"ANSIBLE_COLLECTIONS_PATH": str(home), "ANSIBLE_LOCAL_TEMP": str(home / "local"), "HOME": str(home)}
        done = run(playbook, "--inventory", inventory, *words, **places)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return play


def test_ansible_takes_the_playbook_with_its_roles(ansible: Callable[..., str]) -> None:
    ansible("--syntax-check", "provision.yml")


def test_roles_find_their_variables_good(ansible: Callable[..., str], tmp_path: Path) -> None:
    """Each role's own look at its variables, which is how it begins; it touches nothing."""
    for name in ("group_vars", "templates"):
        (tmp_path / name).symlink_to(VAGRANT / name)
    roles = {"realserver": "realservers", "l7proxy": "l7proxies", "director": "directors"}
    plays = [
        {
            "hosts": group,
            "gather_facts": False,
            "tasks": [{"ansible.builtin.include_role": {"name": f"lvs.director.{role}", "tasks_from": "validate"}}],
        }
        for role, group in roles.items()
    ]
    (tmp_path / "validate.yml").write_text(yaml.safe_dump(plays))
    said = ansible(tmp_path / "validate.yml")
    for host in ("director-1", "director-2", "l7proxy-1", "l7proxy-2"):
        assert re.search(rf"^{host} +: ok=[1-9]", said, re.MULTILINE), said


def test_roles_know_the_variables_that_they_are_given() -> None:
    roles = PROJECT / "deploy" / "ansible" / "roles"
    for path in (VAGRANT / "group_vars").iterdir():
        for name in variables(path.stem):
            role = name.split("_")[0]
            if role != "lab":
                assert name in yaml.safe_load((roles / role / "defaults" / "main.yml").read_text()), (
                    f"{path.name}: {name}"
                )


@pytest.mark.parametrize("name", ["director-1", "director-2"])
def test_directors_take_their_files(name: str, tmp_path: Path) -> None:
    file = tmp_path / "director.yaml"
    file.write_text(director_file(name, "eth1"))
    done = CliRunner().invoke(director, ["check", str(file)])
    assert done.exit_code == 0, done.output
    assert "warning" not in done.output
    written = yaml.safe_load(file.read_text())["virtual_servers"]
    for virtual in written.values():
        link = "lan" if virtual["forward"] == "dr" else "inside"
        known = {str(host.links[link].v4) for host in PAIR.hosts.values() if link in host.links}
        assert {real["address"] for real in virtual["real_servers"].values()} <= known
    assert written["web"]["address"] in variables("realservers")["realserver_vips"]


def test_l7proxies_take_their_file_and_a_canary_can_get_a_share(tmp_path: Path) -> None:
    file = tmp_path / "l7proxy.yaml"
    for shares in ("", "s/shop: .*, canary: .*}/shop: 95, canary: 5}/"):
        file.write_text(l7proxy_file())
        assert run("sed", "-i", shares, file).returncode == 0
        done = CliRunner().invoke(l7proxy, ["check", str(file)])
        assert done.exit_code == 0, done.output
    assert "upstream: {shop: 95, canary: 5}" in file.read_text()
    assert shares in README


def test_web_servers_answer_as_the_labs_do() -> None:
    there = (VAGRANT / "templates" / "nginx.conf.j2").read_text().replace("{{ inventory_hostname }}", "NAME")
    here = (PROJECT / "director" / "lab" / "demo" / "nginx.conf").read_text()
    answer = re.search(r"return 200 .*", here)
    assert answer is not None
    assert answer[0] in there


def test_tour_shows_every_scene() -> None:
    assert re.findall(r"`director lab scene ([a-z]+)`", README) == ["all", *TITLES]
    assert len(re.findall(r"^## \d\. ", README, re.MULTILINE)) == len(TITLES)


def typed() -> list[tuple[str, str]]:
    """Each line of the tour's shell blocks: the machine ("" for the computer below), and what is typed there."""
    found = []
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[:2] == ["vagrant", "ssh"]:
                assert words[3] == "-c", line
                assert len(words) == 5, line
                found.append((words[2], words[4]))
            else:
                found.append(("", line))
    return found


@pytest.mark.parametrize(("machine", "line"), typed())
def test_command_of_the_tour_can_be_typed(machine: str, line: str, tmp_path: Path) -> None:
    if not machine:
        assert line.split(maxsplit=1)[0] in ("cd", "vagrant")
        return
    assert machine in PAIR.hosts
    script = tmp_path / "line"
    script.write_text(line)
    assert run("sh", "-n", script).returncode == 0
    for part in re.split(r" && | \| |; ", line):
        words = [word for word in shlex.split(part) if word != "sudo"]
        for name, program in (("director", director), ("l7proxy", l7proxy)):
            if words[0] == name:
                parse(program, words[1:])


def parse(command: click.Command, words: list[str], name: str = "x") -> None:
    """Raises: click.UsageError when the command would not take these words."""
    files = {"/etc/director/director.yaml", "/etc/l7proxy/l7proxy.yaml"}
    here = [__file__ if word in files else word for word in words]  # where a file must exist
    if isinstance(command, click.Group):
        found = command.get_command(click.Context(command), here[0])
        assert found is not None, f"no command {here[0]}"
        parse(found, here[1:], here[0])
    else:
        command.make_context(name, here)


def test_words_that_a_command_does_not_take_are_noticed() -> None:
    parse(director, ["drain", "plain", "web-1"])
    with pytest.raises(click.UsageError):
        parse(director, ["drain", "plain", "web-1", "--quickly"])
    with pytest.raises(AssertionError):
        parse(director, ["pour", "plain"])
