"""Settings kept and put back, on files that stand in for /proc/sys; a kernel's are in tests/lab."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from director.host import kept, settings, sysctl
from director.host.change import Attempt
from director.host.kept import KeptSettings, State
from director.host.settings import Requirement
from director.host.sysctl import Epoch, Key, Remembered, conf
from director.kit.errors import HostError
from director.kit.statefile import Json

pytestmark = pytest.mark.unit

REDIRECTS, OF_ETH0 = conf(4, "all", "send_redirects"), conf(4, "eth0", "send_redirects")
EPOCH = Epoch("this boot", 7)


def need(key: Key, value: str = "0") -> Requirement:
    return Requirement(key, (value,), value, "it must", ("web",))


BOTH = (need(REDIRECTS), need(OF_ETH0))


class Proc:
    """/proc/sys with two settings that are 1."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for key in (REDIRECTS, OF_ETH0):
            self.set(key, "1")

    def set(self, key: Key, value: str) -> None:
        self.path.joinpath(*key).parent.mkdir(parents=True, exist_ok=True)
        self.path.joinpath(*key).write_text(value + "\n")

    def values(self) -> list[str | None]:
        return [sysctl.read(REDIRECTS), sysctl.read(OF_ETH0)]


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Proc:
    monkeypatch.setattr(sysctl, "ROOT", tmp_path / "proc")
    return Proc(tmp_path / "proc")


def keeper(tmp_path: Path, epoch: Epoch = EPOCH) -> KeptSettings:
    return KeptSettings(tmp_path / "state", lambda: epoch)


def test_enforced_settings_survive_a_restart_and_are_put_back(tmp_path: Path, proc: Proc) -> None:
    assert [change.after for change in keeper(tmp_path).plan(BOTH)] == ["0", "0"]
    assert [str(change) for change in keeper(tmp_path).enforce(BOTH).changes] == [
        "sysctl net.ipv4.conf.all.send_redirects: 1 -> 0",
        "sysctl net.ipv4.conf.eth0.send_redirects: 1 -> 0",
    ]
    assert keeper(tmp_path).plan(BOTH) == ()
    assert keeper(tmp_path).enforce(BOTH) == Attempt()
    assert len(keeper(tmp_path).undo().changes) == 2
    assert proc.values() == ["1", "1"]
    assert list((tmp_path / "state").iterdir()) == []
    assert keeper(tmp_path).undo() == Attempt()


def test_drift_is_repaired_and_undone_to_the_first_value(tmp_path: Path, proc: Proc) -> None:
    one = keeper(tmp_path)
    one.enforce(BOTH)
    proc.set(OF_ETH0, "2")
    assert [str(change) for change in one.enforce(BOTH).changes] == ["sysctl net.ipv4.conf.eth0.send_redirects: 2 -> 0"]
    one.undo()
    assert proc.values() == ["1", "1"]


def test_setting_that_is_no_longer_needed_is_put_back_alone(tmp_path: Path, proc: Proc) -> None:
    keeper(tmp_path).enforce(BOTH)
    one = keeper(tmp_path)
    (planned,) = one.plan(BOTH[:1])
    assert str(planned) == (
        "net.ipv4.conf.eth0.send_redirects: 0 -> 1 (nothing needs it any more, and this it was before)"
    )
    assert [change.after for change in one.enforce(BOTH[:1]).changes] == ["1"]
    assert proc.values() == ["0", "1"]


def test_setting_that_someone_changed_since_stays_theirs(tmp_path: Path, proc: Proc) -> None:
    keeper(tmp_path).enforce(BOTH)
    proc.set(REDIRECTS, "2")
    one = keeper(tmp_path)
    assert [change.key for change in one.plan(())] == [OF_ETH0]
    one.undo()
    assert proc.values() == ["2", "1"]


def test_interfaces_come_and_go(tmp_path: Path, proc: Proc) -> None:
    one = keeper(tmp_path)
    later = conf(4, "eth1", "send_redirects")
    with_later = (*BOTH, need(later))
    assert one.enforce(with_later).failures == ()  # listed, and gone before it was looked at
    proc.set(later, "1")
    assert [change.name for change in one.enforce(with_later).changes] == ["net.ipv4.conf.eth1.send_redirects"]
    proc.path.joinpath(*OF_ETH0).unlink()
    assert one.enforce((BOTH[0], need(later))) == Attempt()
    assert len(one.undo().changes) == 2
    assert sysctl.read(OF_ETH0) is None


def test_one_direction_may_turn_into_the_other(tmp_path: Path, proc: Proc) -> None:
    one = keeper(tmp_path)
    one.enforce(BOTH)
    one.enforce((need(REDIRECTS, "3"), need(OF_ETH0)))
    assert proc.values() == ["3", "0"]
    one.undo()
    assert proc.values() == ["1", "1"]


@pytest.mark.parametrize("epoch", [Epoch("another boot", 7), Epoch("this boot", 8)])
def test_what_another_boot_or_namespace_changed_is_not_ours(tmp_path: Path, proc: Proc, epoch: Epoch) -> None:
    keeper(tmp_path).enforce(BOTH)
    assert keeper(tmp_path, epoch).plan(()) == ()
    assert keeper(tmp_path, epoch).undo() == Attempt()
    assert proc.values() == ["0", "0"]
    assert list((tmp_path / "state").iterdir()) == []


def test_what_cannot_be_remembered_is_not_changed(tmp_path: Path, proc: Proc) -> None:
    (tmp_path / "state").write_text("a file where the directory should be")
    with pytest.raises(HostError, match="could not read"):
        keeper(tmp_path).enforce(BOTH)
    (tmp_path / "state").unlink()
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / ".settings.json.new").mkdir()
    (failure,) = keeper(tmp_path).enforce(BOTH).failures
    assert "could not save" in failure
    assert proc.values() == ["1", "1"]


def test_what_was_changed_is_on_disk(tmp_path: Path, proc: Proc) -> None:
    keeper(tmp_path).enforce(BOTH)
    content = json.loads((tmp_path / "state" / "settings.json").read_text())
    assert content.pop("version") == kept.VERSION
    entries = (Remembered(REDIRECTS, "1", "0"), Remembered(OF_ETH0, "1", "0"))
    assert kept.decode(content, Path("x")) == State(EPOCH, entries)


def test_refused_put_back_is_told_and_tried_again(tmp_path: Path, proc: Proc, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(key: Key, value: str) -> None:
        if key == REDIRECTS:
            raise HostError("no")

    one = keeper(tmp_path)
    one.enforce(BOTH)
    monkeypatch.setattr(sysctl, "write", refused)
    assert one.undo() == Attempt(failures=("no",))
    monkeypatch.undo()
    monkeypatch.setattr(sysctl, "ROOT", proc.path)
    assert len(keeper(tmp_path).undo().changes) == 2


@pytest.mark.parametrize(
    "change", [{"boot_id": 7}, {"namespace": "x"}, {"sysctls": None}, {"sysctls": ["net.ipv4.ip_forward"]}]
)
def test_strange_content_is_told_with_the_way_out(change: dict[str, Json]) -> None:
    content = kept.encode(State(EPOCH, (Remembered(REDIRECTS, "1", "0"),)))
    with pytest.raises(HostError, match=r"cannot be used: .*mv settings\.json settings\.json\.bad"):
        kept.decode({**content, **change}, Path("settings.json"))


def test_requirement_of_what_the_kernel_lacks_is_passed_over(tmp_path: Path, proc: Proc) -> None:
    assert keeper(tmp_path).enforce((need(settings.CONNTRACK, "1"),)) == Attempt()


def test_what_is_still_needed_is_neither_put_back_nor_turned_round_until_it_is_released(
    tmp_path: Path, proc: Proc
) -> None:
    one = keeper(tmp_path)
    one.enforce(BOTH)
    round_again = (Requirement(REDIRECTS, ("1",), "1", "another method wants it so", ("web",)),)
    assert one.plan(round_again, release=False) == ()
    assert one.enforce(round_again, release=False) == Attempt()
    assert proc.values() == ["0", "0"]
    assert len(one.plan(round_again)) == 2
    one.enforce(round_again)
    assert proc.values() == ["1", "1"]
