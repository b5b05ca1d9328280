"""What the roles open in a packet filter, made by the lines of the unit that they install, in a network namespace."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.unit,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes a network namespace: run as root"),
]

TEMPLATE = Path(__file__).parents[2] / "deploy/ansible/roles/program/templates/firewall.service.j2"
OPEN = [
    {"port": 80, "to": "192.0.2.10"},
    {"port": "8000-8099", "from": "2001:db8::/64", "protocol": "udp"},
    {"protocol": "ipip"},
    {"port": 8080, "from": "10.0.0.1", "reply": True},
]
OPENED = [
    "-A INPUT -j LVS-OPEN-DIRECTOR",
    "-A FORWARD -j LVS-OPEN-DIRECTOR-REPLY",
    "-A LVS-OPEN-DIRECTOR -d 192.0.2.10/32 -p tcp -m tcp --dport 80 -j ACCEPT",
    "-A LVS-OPEN-DIRECTOR -p ipencap -j ACCEPT",
    "-A LVS-OPEN-DIRECTOR-REPLY -s 10.0.0.1/32 -p tcp -m tcp --sport 8080 -j ACCEPT",
]
OPENED_V6 = "-A LVS-OPEN-DIRECTOR -s 2001:db8::/64 -p udp -m udp --dport 8000:8099 -j ACCEPT"
SCRIPT = """
iptables -A INPUT -j DROP
{start}
{start}
{reload}
echo "== v4"; iptables-save; echo "== v6"; ip6tables-save
{stop}
echo "== closed"; iptables-save
"""
NFT_RULES = """
table inet filter {
    chain input { type filter hook input priority 0; policy drop; }
    chain forward { type filter hook forward priority 0; policy drop; }
}
"""
NFT_OPENED = [
    "ip daddr 192.0.2.10 tcp dport 80 accept",
    "ip6 saddr 2001:db8::/64 udp dport 8000-8099 accept",
    "meta l4proto 4 accept",
]
NFT_SCRIPT = """
nft -f - <<'EOF'
{rules}
EOF
{start}
{start}
{reload}
echo "== open"; nft --numeric list ruleset
nft flush ruleset
nft -f - <<'EOF'
{rules}
EOF
{reload}
echo "== loaded anew"; nft --numeric list ruleset
{stop}
echo "== closed"; nft --numeric list ruleset
"""


def _unit(place: Path, firewall: str, chain: str) -> dict[str, str]:
    """What the unit does, a shell script for each of its directives."""
    variables = {
        "program_for": "director",
        "program_firewall": firewall,
        "program_firewall_chain": chain,
        "program_firewall_open": OPEN,
        "ansible_python_interpreter": sys.executable,
    }
    task = {"ansible.builtin.template": {"src": str(TEMPLATE), "dest": str(place / "unit"), "mode": "0600"}}
    playbook = place / "play.yml"
    playbook.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "vars": variables, "tasks": [task]}]))
    subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", "-c", "local", str(playbook)],
        env={**os.environ, "ANSIBLE_HOME": str(place)},
        check=True,
        capture_output=True,
    )
    text = (place / "unit").read_text().replace("$$", "$")
    return {
        word: "\n".join(re.findall(rf"(?m)^{word}=-?(.*)$", text)) for word in ("ExecStart", "ExecReload", "ExecStop")
    }


@pytest.mark.skipif(shutil.which("iptables") is None, reason="iptables is not installed")
def test_what_is_said_is_opened_once_before_what_drops_and_closed_again(tmp_path: Path) -> None:
    unit = _unit(tmp_path, "iptables", "INPUT")
    script = SCRIPT.format(start=unit["ExecStart"], reload=unit["ExecReload"], stop=unit["ExecStop"])
    done = subprocess.run(["unshare", "-n", "sh", "-ec", script], capture_output=True, text=True, check=True)
    opened, opened_v6, closed = re.split(r"== .*\n", done.stdout)[1:]
    rules = [line for line in opened.splitlines() if line.startswith("-A")]
    assert sorted(rules) == sorted([*OPENED, "-A INPUT -j DROP"])
    assert rules.index("-A INPUT -j LVS-OPEN-DIRECTOR") < rules.index("-A INPUT -j DROP")
    assert OPENED_V6 in opened_v6
    assert "192.0.2.10" not in opened_v6
    assert "LVS" not in closed
    assert "-A INPUT -j DROP" in closed


@pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed: apt-get install nftables")
def test_nftables_too_and_again_when_its_rules_are_loaded_anew(tmp_path: Path) -> None:
    unit = _unit(tmp_path, "nftables", "inet filter input")
    script = NFT_SCRIPT.format(
        rules=NFT_RULES, start=unit["ExecStart"], reload=unit["ExecReload"], stop=unit["ExecStop"]
    )
    done = subprocess.run(["unshare", "-n", "sh", "-ec", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    opened, anew, closed = re.split(r"== .*\n", done.stdout)[1:]
    assert anew == opened
    chains = {
        name: [line.strip() for line in rules.splitlines() if line.strip() and not line.strip().startswith("type ")]
        for name, rules in re.findall(r"(?ms)^\tchain (\w+) \{\n(.*?)^\t\}", opened)
    }
    assert chains["lvs_open_director"] == NFT_OPENED
    assert chains["lvs_open_director_reply"] == ["ip saddr 10.0.0.1 tcp sport 8080 accept"]
    assert chains["input"] == ["jump lvs_open_director"]
    assert chains["forward"] == ["jump lvs_open_director_reply"]
    assert "policy drop" in closed
    assert "lvs" not in closed
