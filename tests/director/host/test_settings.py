"""Which settings which forwarding methods need: the table, case by case."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from director.host import settings, sysctl
from director.host.settings import DeadConnections, Method, Requirement, Use
from director.host.sysctl import conf, name

pytestmark = pytest.mark.unit


def needs(*uses: tuple[Method, int]) -> dict[str, str]:
    found = settings.required([Use(f"vs-{method}", method, version) for method, version in uses], ["eth0"])
    return {name(requirement.key).removeprefix("net."): requirement.advised for requirement in found}


REDIRECTS = {"ipv4.conf.all.send_redirects": "0", "ipv4.conf.eth0.send_redirects": "0"}
V6_FORWARDING = {"ipv6.conf.all.forwarding": "1", "ipv6.conf.eth0.accept_ra": "2"}
REUSE = {"ipv4.vs.conn_reuse_mode": "1"}


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
    assert needs(*uses) == (expected | REUSE if uses else {})


def test_host_stops_heeding_its_default_route_only_after_advertisements_are_accepted() -> None:
    keys = [requirement.key for requirement in settings.required([Use("six", "nat", 6)], ["eth0"])]
    assert keys.index(conf(6, "eth0", "accept_ra")) < keys.index(sysctl.IPV6_FORWARDING)


def of_ipvs(uses: list[Use], wish: DeadConnections | None = None) -> dict[str, tuple[str, tuple[str, ...]]]:
    found = settings.required(uses, [], wish)
    return {each.key[3]: (each.advised, each.needed_by) for each in found if each.key[:3] == ("net", "ipv4", "vs")}


@pytest.mark.parametrize(
    ("uses", "wish", "expected"),
    [
        ([], "expire", {}),
        ([Use("web", "nat", 4)], None, {}),
        ([Use("web", "nat", 4)], "expire", {"expire_nodest_conn": ("1", ("dead_connections: expire",))}),
        ([Use("web", "nat", 4)], "keep", {"expire_nodest_conn": ("0", ("dead_connections: keep",))}),
        (
            [Use("web", "nat", 4), Use("shop", "nat", 4, persistent=True), Use("shop", "nat", 6, persistent=True)],
            None,
            {"expire_quiescent_template": ("1", ("shop",))},
        ),
        ([Use("web", "nat", 4), Use("api", "nat", 4, resumes=True)], None, {"sloppy_tcp": ("1", ("api",))}),
    ],
)
def test_wishes_become_settings_of_ipvs(
    uses: list[Use], wish: DeadConnections | None, expected: dict[str, tuple[str, tuple[str, ...]]]
) -> None:
    reuse = {"conn_reuse_mode": ("1", tuple(dict.fromkeys(use.virtual_server for use in uses)))}
    assert of_ipvs(uses, wish) == (expected | reuse if uses else {})


def test_every_setting_of_the_namespace_says_that_it_holds_for_all() -> None:
    uses = [Use("web", "fullnat", 4, persistent=True, resumes=True), Use("api", "dr", 4)]
    found = [each for each in settings.required(uses, [], "expire") if each.key[:3] == ("net", "ipv4", "vs")]
    assert len(found) == 5
    assert all("every virtual server of this network namespace" in each.effect for each in found)
    tracked = next(each for each in found if each.key == settings.CONNTRACK)
    assert tracked.effect.endswith("a firewall rule that drops invalid packets would cut api")


def test_pending_is_what_differs_and_says_why() -> None:
    values = {settings.EXPIRE_NODEST: "0", settings.CONN_REUSE: "3", sysctl.IP_FORWARD: "1"}
    wanted = settings.required([Use("web", "nat", 4)], ["eth0"], "expire")
    (change,) = settings.pending(wanted, values.get)
    assert str(change) == (
        "net.ipv4.vs.expire_nodest_conn: 0 -> 1 (dead_connections: expire: connections to a removed or dead server "
        "end at once); UDP flows move to another server, TCP clients see a reset; "
        "it holds for every virtual server of this network namespace"
    )
    values[settings.CONN_REUSE] = "0"
    values[settings.EXPIRE_NODEST] = "1"
    assert [change.key for change in settings.pending(wanted, values.get)] == [settings.CONN_REUSE]


def test_setting_that_the_kernel_lacks_is_told() -> None:
    wanted = settings.required([Use("web", "fullnat", 4)], ["eth0"])
    (sentence,) = settings.lacking(wanted, {settings.CONN_REUSE: "1"}.get)
    assert sentence.startswith("net.ipv4.vs.conntrack does not exist, and web needs it to be 1")


def test_requirement_names_every_virtual_server_once() -> None:
    uses = [Use("web", "nat", 4), Use("web", "nat", 4), Use("dns", "fullnat", 4), Use("six", "nat", 6)]
    first = settings.required(uses, [])[0]
    assert replace(first, effect="") == Requirement(
        ("net", "ipv4", "ip_forward"), ("1",), "1", "replies pass through the director", ("web", "dns")
    )


def test_check_tells_what_is_wrong_and_passes_over_what_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysctl, "ROOT", tmp_path)
    for key, value in [(sysctl.IP_FORWARD, "0"), (conf(4, "all", "send_redirects"), "0")]:
        tmp_path.joinpath(*key).parent.mkdir(parents=True, exist_ok=True)
        tmp_path.joinpath(*key).write_text(value + "\n")
    assert settings.check([Use("web", "nat", 4)], ["eth0"]) == (
        "net.ipv4.ip_forward is 0, and web needs 1 (replies pass through the director): "
        "sysctl -w net.ipv4.ip_forward=1",
    )
