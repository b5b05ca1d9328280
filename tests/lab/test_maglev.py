"""Two directors that start with the same file choose the same real server for every client."""

from __future__ import annotations

import json
from typing import TypedDict

import pytest

from director.lab.hosts import Lab

pytestmark = pytest.mark.lab

FLOWS = 10_000


class Choices(TypedDict):
    chosen: dict[str, str]
    share: dict[str, int]
    weights: list[int]


def choices(lab: Lab, host: str, how: str) -> Choices:
    words = ["python", "-m", "tests.lab.guest.choices", "7", str(FLOWS), how]
    done = lab.host(host).run(*words, timeout_s=60, fresh=False).check()
    found: Choices = json.loads(done.stdout)
    return found


def test_directors_with_other_pasts_choose_alike_for_ten_thousand_flows(lab: Lab) -> None:
    lowered, began = choices(lab, "director", "lowered"), choices(lab, "client", "began")
    assert lowered["weights"] == began["weights"] == [100, 100, 0, 50, 100]
    assert len(lowered["chosen"]) >= FLOWS - 10  # two flows may have been drawn alike
    assert lowered["chosen"] == began["chosen"]
    assert "10.88.0.3" not in lowered["share"]  # at weight 0 its flows go to others
    assert set(lowered["share"]) == {"10.88.0.1", "10.88.0.2", "10.88.0.4", "10.88.0.5"}
    assert choices(lab, "l7proxy-1", "edited")["chosen"] == began["chosen"]
