"""The rule file and the dashboard: whole, and about metrics that the running programs have."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import shutil
import signal
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import uvloop
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy import alerts
from tests.director.daemon.world import FILE, World
from tests.wire.harness import Origin, free_port, named, running
from tests.wire.sealed import listens_with, make_certificate

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "monitoring" / "prometheus-rules.yaml"
DASHBOARD = ROOT / "deploy" / "monitoring" / "grafana-lvs.json"
MADE_BY_PROMETHEUS = {"up", "ALERTS"}
SEVERITIES = {"critical", "warning", "info"}

_GROUPS = yaml.safe_load(RULES.read_text())["groups"]
_RULES: list[dict[str, Any]] = [rule for group in _GROUPS for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in _RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in _RULES if "record" in rule}
BOARD: dict[str, Any] = json.loads(DASHBOARD.read_text())
PANELS: list[dict[str, Any]] = [panel for panel in BOARD["panels"] if panel["type"] != "row"]

DIRECTOR = (
    """
notifications: {n: {type: script, command: [/bin/true]}}
"""
    + FILE.replace("forward: nat", "forward: nat\n    quorum_down: {command: [/bin/true]}")
    + "    check: {type: tcp, interval: 20ms}\n"
)
UPSTREAM = """
    outlier: {}
    breaker: {}
    retry_budget: {}
    sticky: {cookie: SRV, mode: insert}
    max_connections: 10
    queue: {timeout: 1s}
"""
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
COUNTED_AT_THE_END = ("tcp_connections", "tls_handshake_failures", "errors")
ROUTES = "  - {name: all, upstream: up, limits: {rate: {limit: 100/s}}}"


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The labels of each series that a running director and a running l7proxy have, by its name."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("director.daemon.advice", lambda config: ())
        director = _director(World(tmp_path_factory.mktemp("director")))
    before = {number: signal.getsignal(number) for number in HANDLED}
    l7proxy = uvloop.run(_l7proxy(tmp_path_factory.mktemp("l7proxy")))
    for number, handler in before.items():  # uvloop leaves its own
        signal.signal(number, handler)
    return _series(director) | _series(l7proxy)


def _director(world: World) -> str:
    port, found = free_port(), ""

    async def story() -> None:
        nonlocal found
        async with asyncio.timeout(20):
            while "director_real_server_probe_duration_seconds{" not in found:
                await asyncio.sleep(0.2)
                found = await asyncio.to_thread(_read, port)

    world.run(story, f'metrics: {{bind: "127.0.0.1:{port}"}}\n' + DIRECTOR)
    return found


async def _l7proxy(folder: Path) -> str:
    certificate, key = make_certificate(folder)
    sealed, forwarding, plain, admin = (free_port() for _ in range(4))
    listeners = (
        f"{listens_with(certificate, key)}}}\n"
        f"  db: {{bind: '127.0.0.1:{forwarding}', tcp: {{upstream: up}}}}\n"
        f"  plain: {{bind: '127.0.0.1:{plain}'"
    )
    more = f"admin: {{bind: '127.0.0.1:{admin}'}}"
    origins = Origin(named), Origin(named)
    async with running(
        folder, *origins, upstream=UPSTREAM, more=more, listener=listeners, routes=ROUTES, port=sealed
    ) as proxy:
        await proxy.talk(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")  # no ClientHello that anybody understands
        proxy.port = plain
        await proxy.get("/")
        await proxy.get("/%zz")
        proxy.port = forwarding
        _, client = await proxy.connect()
        client.close()
        text = ""
        async with asyncio.timeout(10):
            while not all(f"l7proxy_{family}_total{{" in text for family in COUNTED_AT_THE_END):
                text = await asyncio.to_thread(_read, admin)
        return text


def _read(port: int) -> str:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()


def _series(text: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for name in (family.name, f"{family.name}_total") if family.type == "counter" else (family.name,):
            found.setdefault(name, set())
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def _selectors(expression: str) -> list[promql_parser.VectorSelector]:
    """What `expression` looks at. Raises: ValueError where it is none."""
    found: list[promql_parser.VectorSelector] = []

    def see(node: object) -> None:
        if isinstance(node, promql_parser.VectorSelector):  # that of a range, too
            found.append(node)

    promql_parser.walk(promql_parser.parse(expression), see)
    return found


def _unknown(expression: str, scraped: dict[str, set[str]]) -> list[str]:
    """Names and labels in `expression` that nobody has."""
    known = scraped | {name: {"upstream", "virtual_server"} for name in MADE_BY_PROMETHEUS | RECORDED}
    wrong = []
    for selector in _selectors(expression):
        labels = known.get(selector.name or "")
        if labels is None:
            wrong.append(str(selector.name))
            continue
        asked = {matcher.name for matcher in selector.matchers.matchers} - {"job", "instance"}
        wrong += [f"{selector.name}: {label}" for label in sorted(asked - labels)]
    return wrong


def test_the_check_of_expressions_finds_what_is_wrong(scraped: dict[str, set[str]]) -> None:
    """It is what the other tests here believe."""
    assert _unknown("rate(l7proxy_reqests_total[5m])", scraped) == ["l7proxy_reqests_total"]
    assert _unknown('sum(l7proxy_retries_total{route="x"}) / l7proxy_workers', scraped) == [
        "l7proxy_retries_total: route"
    ]
    with pytest.raises(ValueError, match="paren"):
        _selectors("rate(l7proxy_requests_total[5m]")


@pytest.mark.parametrize("rule", _RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_looks_at_what_there_is(rule: dict[str, Any], scraped: dict[str, set[str]]) -> None:
    assert _unknown(rule["expr"], scraped) == []


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_whoever_it_wakes_needs(name: str, scraped: dict[str, set[str]]) -> None:
    rule = ALERTS[name]
    assert "for" in rule
    assert rule["labels"]["severity"] in SEVERITIES
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook"}
    assert len(notes["summary"]) < 130
    labels = set(re.findall(r"\$labels\.(\w+)", notes["summary"] + notes["description"])) - {"instance"}
    of_its_series = {label for each in _selectors(rule["expr"]) for label in scraped.get(each.name or "", set())}
    recorded = any(each.name in RECORDED for each in _selectors(rule["expr"]))
    assert labels <= of_its_series | ({"upstream"} if recorded else set()), "a label that its series have not"
    page, _, anchor = notes["runbook"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_the_how_to_says_how_many_rules_there_are() -> None:
    assert f"SUCCESS: {len(_RULES)} rules found" in (ROOT / "docs" / "howto" / "monitoring.md").read_text()


def test_names_of_alerts_are_given_once() -> None:
    names = [rule["alert"] for rule in _RULES if "alert" in rule]
    assert len(names) == len(set(names)) == len(ALERTS)


def test_every_alert_is_tried() -> None:
    assert set(alerts.CASES) == set(ALERTS)


def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here (Debian's package prometheus: 97 MB): expressions are parsed, not evaluated")
    checked = subprocess.run([promtool, "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(alerts.document(str(RULES))))
    tried = subprocess.run(
        [promtool, "test", "rules", tmp_path / "test.yaml"], capture_output=True, text=True, check=False
    )
    assert tried.returncode == 0, tried.stdout + tried.stderr


# the dashboard


def test_the_dashboard_asks_for_its_data_source() -> None:
    assert BOARD["schemaVersion"] >= 36
    variables = {each["name"]: each for each in BOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert {"director", "virtual_server", "proxy", "upstream"} <= set(variables)
    uids = re.findall(r'"uid": "([^"]*)"', DASHBOARD.read_text())
    assert set(uids) == {"${datasource}", BOARD["uid"]}
    used = set(re.findall(r"\$(\w+)", " ".join(target["expr"] for panel in PANELS for target in panel["targets"])))
    assert used - {"__rate_interval"} == set(variables) - {"datasource"}


def test_panels_have_their_own_place() -> None:
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    taken: dict[tuple[int, int], str] = {}
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (x, y) not in taken, f"{panel['title']} covers {taken.get((x, y))}"
                taken[x, y] = panel["title"]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows_and_looks_at_what_there_is(
    panel: dict[str, Any], scraped: dict[str, set[str]]
) -> None:
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    for target in panel["targets"]:
        expression = target["expr"].replace("$__rate_interval", "5m")
        assert _unknown(expression, scraped) == []
        shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"])) - {"instance"}
        assert shown <= {label for each in _selectors(expression) for label in scraped[each.name or ""]}


def test_variables_are_filled_from_what_there_is(scraped: dict[str, set[str]]) -> None:
    for each in BOARD["templating"]["list"]:
        if each["type"] == "query":
            found = re.fullmatch(r"label_values\((\w+), (\w+)\)", each["definition"])
            assert found is not None
            assert found[1] in scraped
            assert found[2] in scraped[found[1]] | {"instance"}
