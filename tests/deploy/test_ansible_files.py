"""The Ansible collection as it stands in deploy/ansible: clean, documented, and contradictions are refused by name.

Nothing here changes a machine: what is played ends in validation, or is played against this one in check mode.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from director.core.config import parse_config
from l7proxy.files.loading import load_file
from tests.deploy import role_readme

pytestmark = [pytest.mark.unit, pytest.mark.timeout(180)]

PROJECT = Path(__file__).parents[2]
COLLECTION = PROJECT / "deploy" / "ansible"
ROLES = role_readme.roles()
INVENTORIES = sorted(path.parent.name for path in COLLECTION.glob("inventories/*/hosts.yml"))
PLAYBOOKS = sorted(path.stem for path in COLLECTION.glob("playbooks/*.yml"))

Variables = Mapping[str, Any]
WEB = {"address": "192.0.2.10", "port": 80, "forward": "dr", "real_servers": {"a": {"address": "192.0.2.21"}}}
DIRECTOR: Variables = {"director_config": {"defaults": {"interface": "eth0"}, "virtual_servers": {"web": WEB}}}
L7PROXY: Variables = {
    "l7proxy_config": {
        "listeners": {"web": {"bind": "127.0.0.1:80"}},
        "routes": [{"upstream": "shop"}],
        "upstreams": {"shop": {"backends": {"a": {"address": "127.0.0.1:8000"}}}},
        "admin": {"socket": "/run/l7proxy/admin.sock"},
    }
}
REALSERVER: Variables = {"realserver_vips": ["192.0.2.10"]}

REFUSED = yaml.safe_load(Path(__file__).with_name("contradictions.yaml").read_text())
GOOD: dict[str, Variables] = {
    "director": DIRECTOR,
    "realserver": REALSERVER,
    "l7proxy": L7PROXY,
    "rolling": {**L7PROXY, **DIRECTOR},
}


@pytest.fixture(scope="session")
def ansible(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which Ansible finds the collection, and leaves nothing elsewhere."""
    place = tmp_path_factory.mktemp("ansible")
    collections = place / "collections" / "ansible_collections" / "lvs"
    collections.mkdir(parents=True)
    (collections / "director").symlink_to(COLLECTION)
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(place),
        "ANSIBLE_HOME": str(place / "home"),
        "ANSIBLE_COLLECTIONS_PATH": str(place / "collections"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCALHOST_WARNING": "0",
        "PYTHONWARNINGS": "ignore",
    }


def run(ansible: Mapping[str, str], *command: str, folder: Path = COLLECTION) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=dict(ansible), cwd=folder, capture_output=True, text=True, timeout=150, check=False
    )


def test_it_is_clean_by_the_production_profile(ansible: Mapping[str, str]) -> None:
    found = run(ansible, "ansible-lint", "--offline", "--strict", "--nocolor", "--format", "pep8", ".")
    assert found.returncode == 0, found.stdout + found.stderr
    assert yaml.safe_load((COLLECTION / ".ansible-lint").read_text())["profile"] == "production"


def test_inventories_and_playbooks_are_understood(ansible: Mapping[str, str]) -> None:
    assert INVENTORIES == ["home", "many", "pair"]
    assert PLAYBOOKS == ["rolling", "site", "uninstall"]
    inventories = [word for name in INVENTORIES for word in ("-i", f"inventories/{name}/hosts.yml")]
    names = [f"lvs.director.{name}" for name in PLAYBOOKS]
    found = run(ansible, "ansible-playbook", *inventories, "--syntax-check", *names)
    assert found.returncode == 0, found.stderr


def test_a_package_of_it_holds_files_where_links_lead_out_of_it(ansible: Mapping[str, str], tmp_path: Path) -> None:
    found = run(ansible, "ansible-galaxy", "collection", "build", "--output-path", str(tmp_path))
    assert found.returncode == 0, found.stderr
    (package,) = tmp_path.glob("*.tar.gz")
    subprocess.run(["tar", "-xzf", str(package), "-C", str(tmp_path)], check=True)
    for unit in ("director.service", "director.sysusers", "l7proxy.service", "l7proxy.socket"):
        (inside,) = tmp_path.glob(f"roles/*/files/{unit}")
        assert not inside.is_symlink()
        assert inside.read_bytes() == (PROJECT / "deploy" / "systemd" / unit).read_bytes()


def test_release_of_the_collection_is_the_programs() -> None:
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((COLLECTION / "galaxy.yml").read_text())["version"] == version
    assert _defaults("program")["program_release"] == version


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_has_its_specification_and_the_same_default(role: str) -> None:
    options, defaults = role_readme.options(role), _defaults(role)
    assert options.keys() == defaults.keys()
    for name, option in options.items():
        if "{{" in str(defaults[name]):
            continue
        assert option.get("default") == defaults[name], name


@pytest.mark.parametrize("role", ROLES)
def test_the_readme_has_every_variable(role: str) -> None:
    readme = (role_readme.ROLES / role / "README.md").read_text()
    assert readme == role_readme.renewed(role), "python -m tests.deploy.role_readme renews it"
    assert all(f"`{name}`" in readme for name in _defaults(role))


def test_scripts_are_understood_by_a_plain_shell() -> None:
    scripts = sorted(COLLECTION.glob("roles/*/files/*.sh"))
    assert len(scripts) >= 8
    for script in scripts:
        subprocess.run(["dash", "-n", str(script)], check=True)


def test_contradictions_are_refused_by_name_before_a_machine_is_touched(
    ansible: Mapping[str, str], tmp_path: Path
) -> None:
    """All at once, each on a machine of its own that cannot be reached: who tried would be `unreachable`."""
    groups = {"director": "directors", "realserver": "realservers", "l7proxy": "l7proxies"}
    told: dict[str, str] = {}
    for playbook in ("site", "rolling"):
        cases = {
            f"case-{number}": (case["role"], {**GOOD[case["role"]], **case["variables"]})
            for number, case in enumerate(REFUSED)
            if (case["role"] == "rolling") == (playbook == "rolling")
        }
        children: dict[str, dict[str, Any]] = {group: {"hosts": {}} for group in groups.values()}
        for name, (role, _) in cases.items():
            children[groups.get(role, "l7proxies")]["hosts"][name] = {}
        hosts = {name: {**variables, "ansible_host": "nobody.invalid"} for name, (_, variables) in cases.items()}
        inventory = tmp_path / f"{playbook}.yml"
        inventory.write_text(yaml.safe_dump({"all": {"hosts": hosts, "children": children}}))
        found = run(
            {**ansible, "ANSIBLE_FORKS": "2"}, "ansible-playbook", "-i", str(inventory), f"lvs.director.{playbook}"
        )
        assert found.returncode != 0
        told |= {name: _told(name, found.stdout) for name in cases}
        assert "unreachable=1" not in found.stdout
        assert "changed=1" not in found.stdout
    wrong = [
        (case["told"], told[f"case-{number}"])
        for number, case in enumerate(REFUSED)
        if not re.search(case["told"], told[f"case-{number}"])
    ]
    assert wrong == []


@pytest.mark.parametrize("name", INVENTORIES)
def test_configurations_of_an_inventory_are_taken(ansible: Mapping[str, str], tmp_path: Path, name: str) -> None:
    """What the roles would write for its machines; of `many`, for one of each kind."""
    play = {"hosts": "directors:l7proxies:realservers", "gather_facts": False, "tasks": list(_rendering())}
    playbook = tmp_path / "render.yml"
    playbook.write_text(json.dumps([play]))
    inventory = COLLECTION / "inventories" / name / "hosts.yml"
    limit = ["--limit", "lb-*-1:proxy-*1:db-1"] if name == "many" else []
    found = run(ansible, "ansible-playbook", "-i", str(inventory), *limit, str(playbook))
    assert found.returncode == 0, found.stdout + found.stderr
    _certificate(tmp_path / "tls")
    told = [json.loads(text)["msg"] for text in re.findall(r"^ok: \[.*?\] => (\{\n.*?^\})", found.stdout, re.M | re.S)]
    assert {each["role"] for each in told} >= {"director", "l7proxy"}
    for each in told:
        file = tmp_path / f"{each['role']}.yaml"
        file.write_text(each["text"].replace("/etc/l7proxy/tls", str(tmp_path / "tls")))
        if each["role"] == "l7proxy":
            assert set(each["sockets"]) == {str(bind) for bind in load_file(str(file)).config.binds}
        else:
            assert parse_config(file.read_text(), str(file)).virtual_servers


def _rendering() -> Iterator[Mapping[str, Any]]:
    for role, group in (("director", "directors"), ("l7proxy", "l7proxies"), ("realserver", "realservers")):
        when = f"'{group}' in group_names"
        including = {"name": f"lvs.director.{role}", "tasks_from": "validate", "public": True}
        yield {"name": f"check {role}", "ansible.builtin.include_role": including, "when": when}
        if role == "realserver":
            continue
        message = {"role": role, "text": f"{{{{ {role}_text }}}}"}
        if role == "l7proxy":
            message["sockets"] = "{{ l7proxy_socket_listen }}"
        yield {"name": f"tell {role}", "ansible.builtin.debug": {"msg": message}, "when": when}


def test_check_mode_plays_on_a_machine_without_the_program_and_shows_no_secret(
    ansible: Mapping[str, str], tmp_path: Path
) -> None:
    """On this machine, where it changes nothing: it ends where the kernel lacks IPVS, or at the end."""
    hook = {"type": "webhook", "url": "https://chat.example/hooks/s3cr3t"}
    director = {**DIRECTOR["director_config"], "notifications": {"chat": hook}}
    variables = {
        **L7PROXY,
        **REALSERVER,
        "director_config": director,
        "l7proxy_secrets": {"session.key": "s3cr3t"},
        "director_secrets": {"chat.secret": "s3cr3t"},
        "program_source": "index",
        "program_index_url": "https://me:s3cr3t@index.example/simple",
        "ansible_python_interpreter": sys.executable,
    }
    roles = [f"lvs.director.{role}" for role in ("l7proxy", "realserver", "director")]
    play = [{"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": variables, "roles": roles}]
    playbook = tmp_path / "play.yml"
    playbook.write_text(json.dumps(play))
    before = sorted(str(path) for path in Path("/etc").glob("*/*"))
    found = run(ansible, "ansible-playbook", "-i", "localhost,", "--check", "--diff", "-vvv", str(playbook))
    if found.returncode:
        assert re.search(r"the kernel here, .*, has no ip_vs", found.stdout), found.stdout
        assert re.search(r"[Ii]nstall|container|Reboot", found.stdout)
    assert "start l7proxy.service" in found.stdout
    assert "director realserver apply --vip 192.0.2.10 --forward dr" in found.stdout
    assert "s3cr3t" not in found.stdout + found.stderr
    assert sorted(str(path) for path in Path("/etc").glob("*/*")) == before


def _told(host: str, stdout: str) -> str:
    found = re.search(rf"^fatal: \[{host}\]: FAILED! => (.*)$", stdout, re.MULTILINE)
    return str(json.loads(found[1])["msg"]) if found else "nothing"


def _defaults(role: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((role_readme.ROLES / role / "defaults" / "main.yml").read_text())
    return found


def _certificate(folder: Path) -> None:
    folder.mkdir()
    command = [
        *("openssl", "req", "-x509", "-noenc", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-subj", "/CN=shop.example.org", "-addext", "subjectAltName=DNS:shop.example.org"),
        *("-keyout", str(folder / "shop.key"), "-out", str(folder / "shop.pem")),
    ]
    subprocess.run(command, check=True, capture_output=True)
