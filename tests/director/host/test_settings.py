"""Which settings which forwarding methods need: the table, case by case."""

from __future__ import annotations

from pathlib import Path

import pytest

from director.host import settings, sysctl
from director.host.settings import Method, Requirement, Use
from director.host.sysctl import conf, name

pytestmark = pytest.mark.unit


def needs(*uses: tuple[Method, int]) -> dict[str, str]:
    found = settings.required([Use(f"vs-{method}", method, version) for method, version in uses], ["eth0"])
    return {name(requirement.key).removeprefix("net."): requirement.advised for requirement in found}


REDIRECTS = {"ipv4.conf.all.send_redirects": "0", "ipv4.conf.eth0.send_redirects": "0"}
V6_FORWARDING = {"ipv6.conf.all.forwarding": "1", "ipv6.conf.eth0.accept_ra": "2"}


@pytest.mark.parametrize(
    ("uses", "expected"),
    [
        ([], {}),
        ([("nat", 4)], {"ipv4.ip_forward": "1", **REDIRECTS}),
        ([("dr", 4)], {**REDIRECTS, "ipv4.vs.conntrack": "0"}),
        ([("tun", 4)], {**REDIRECTS, "ipv4.vs.conntrack": "0"}),
        ([("fullnat", 4)], {"ipv4.ip_forward": "1", **REDIRECTS, "ipv4.vs.conntrack": "1"}),
        ([("nat", 6)], V6_FORWARDING),
        ([("dr", 6)], {"ipv4.vs.conntrack": "0"}),
        ([("dr", 4), ("fullnat", 6)], {**V6_FORWARDING, **REDIRECTS, "ipv4.vs.conntrack": "1"}),
    ],
)
def test_methods_need_what_the_table_says(uses: list[tuple[Method, int]], expected: dict[str, str]) -> None:
    assert needs(*uses) == expected


def test_requirement_names_every_virtual_server_once() -> None:
    uses = [Use("web", "nat", 4), Use("web", "nat", 4), Use("dns", "fullnat", 4), Use("six", "nat", 6)]
    assert settings.required(uses, [])[0] == Requirement(
        ("net", "ipv4", "ip_forward"), ("1",), "1", "replies pass through the director", ("web", "dns")
    )


def test_check_tells_what_is_wrong_and_passes_over_what_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysctl, "ROOT", tmp_path)
    for key, value in [(settings.IP_FORWARD, "0"), (conf(4, "all", "send_redirects"), "0")]:
        tmp_path.joinpath(*key).parent.mkdir(parents=True, exist_ok=True)
        tmp_path.joinpath(*key).write_text(value + "\n")
    assert settings.check([Use("web", "nat", 4)], ["eth0"]) == (
        "net.ipv4.ip_forward is 0, and web needs 1 (replies pass through the director): "
        "sysctl -w net.ipv4.ip_forward=1",
    )
