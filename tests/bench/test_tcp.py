"""What `make bench-tcp` makes of its samples, and that all are told the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from l7proxy.core.config import load_config
from tests.bench.l7_figures import Answered, Sample, Taken
from tests.bench.l7_load import script
from tests.bench.l7_peers import Setting
from tests.bench.tcp import ROWS, SET_UP, TITLES, closing, figures, haproxy_further, lines

pytestmark = pytest.mark.unit


def sample(a_second: float, cpu_s: float) -> Sample:
    return Sample(Answered(1000, a_second, 1.0, 2.0, 0, a_second * 1e6), Taken(1.0, cpu_s, 0.9, 1.0))


def test_a_ratio_is_to_the_better_of_both_haproxies() -> None:
    found = {
        "l7proxy": [sample(100, 0.2), sample(120, 0.2), sample(80, 0.2)],
        "haproxy": [sample(50, 0.1), sample(60, 0.1), sample(40, 0.1)],
        "haproxy-further": [sample(80, 0.4), sample(100, 0.4), sample(100, 0.4)],
    }
    by = figures("conns", ROWS["conns"], found)
    assert by["tcp_conns_vs_haproxy"] == 1.2
    assert by["tcp_conns_cpu_vs_haproxy"] == 2.0
    assert by["tcp_conns_cpu_us_l7proxy"] == 200.0
    assert figures("bulk", ROWS["bulk"], found)["tcp_bulk_l7proxy"] == 100.0
    assert lines("conns", ROWS["conns"], found, by)[-1] == "  ours over the better of HAProxy's: 1.20, CPU 2.00"


@pytest.mark.parametrize("name", SET_UP)
def test_each_is_told_its_port_and_both_origins(name: str, tmp_path: Path) -> None:
    command = SET_UP[name]("/program", Setting(tmp_path, 8080, (9001, 9002)))
    assert command.words[0] == "/program"
    text = "".join(path.read_text() for path in tmp_path.iterdir())
    assert all(part in text for part in ("8080", "9001", "9002"))
    assert name in TITLES


def test_our_configuration_is_good_and_haproxy_s_splices(tmp_path: Path) -> None:
    SET_UP["l7proxy"]("/program", Setting(tmp_path, 8080, (9001, 9002)))
    config = load_config((tmp_path / "l7proxy.yaml").read_text(), "f")
    assert config.listeners[0].tcp is not None
    haproxy_further("/program", Setting(tmp_path, 8080, (9001, 9002)))
    assert "option splice-auto\n" in (tmp_path / "haproxy.cfg").read_text()


def test_short_connections_are_asked_to_be_closed() -> None:
    text = closing(script("k1", 1))
    assert text.count("Connection: close") == 1
    assert '.. "\\r\\nConnection: close\\r\\n\\r\\n"' in text
