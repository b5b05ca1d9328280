"""Who serves: quorum, the sorry server, panic, and what all real servers of a virtual server have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from director.core.config import parse_config
from director.core.model import Config, RealState, ServerRef
from director.core.policy import OnStart, Quorum
from director.core.serving import Known, Serving, Standing, is_held, serving
from director.core.weight import Maintenance, Wish
from director.kit.health import Asks, HealthState, ProbeResult, Status
from director.kit.net import Endpoint

pytestmark = pytest.mark.unit

NAMES = ("a", "b", "c", "d")
GOOD, BAD = ProbeResult(True, "connected"), ProbeResult(False, "refused")
UP, DOWN = HealthState(Status.UP, last=GOOD), HealthState(Status.DOWN, last=BAD)
STATES = {"U": UP, "D": DOWN, "?": HealthState()}
SORRY = "sorry_server: {address: 10.0.0.99, weight: 3}"


def config(*keys: str, servers: int = 4, each: Mapping[str, str] | None = None) -> Config:
    """One virtual server `web` with `keys`, and what is written of `each` real server besides its address."""
    body = "".join(f"    {key}\n" for key in keys)
    reals = "".join(
        f"      {name}: {{address: 10.0.0.{number}{', ' + (each or {})[name] if name in (each or {}) else ''}}}\n"
        for number, name in enumerate(NAMES[:servers], 1)
    )
    head = "virtual_servers:\n  web:\n    address: 192.0.2.10\n    port: 80\n    forward: nat\n    check: {type: tcp}\n"
    return parse_config(f"{head}{body}    real_servers:\n{reals}", "f")


def ref(name: str) -> ServerRef:
    return ServerRef("web", name)


def health(states: str) -> dict[ServerRef, HealthState]:
    """`UD?` is a up, b down, c without a verdict."""
    return {ref(name): STATES[state] for name, state in zip(NAMES, states, strict=False)}


def values(found: Serving) -> dict[str, int]:
    return {each.real_server: weight.value for each, weight in found.weights.items()}


def standing(found: Serving) -> Standing:
    return found.standings["web"]


BASE, BASE_SORRY = config(), config(SORRY)


@pytest.mark.parametrize(
    ("quorum", "alive", "before", "held"),
    [
        (Quorum(), 0, None, False),
        (Quorum(), 1, None, True),
        (Quorum(), 1, False, True),
        (Quorum(), 0, True, False),
        (Quorum(3, 2), 3, False, True),
        (Quorum(3, 2), 2, False, False),
        (Quorum(3, 2), 2, True, True),
        (Quorum(3, 2), 2, None, True),
        (Quorum(3, 2), 1, True, False),
        (Quorum(3, 2), 1, None, False),
    ],
)
def test_quorum_is_won_at_one_count_and_lost_below_another(
    quorum: Quorum, alive: int, before: bool | None, held: bool
) -> None:
    assert is_held(quorum, alive, before) is held


@given(st.integers(1, 6), st.integers(1, 6), st.lists(st.integers(0, 7)), st.none() | st.booleans())
def test_between_its_bounds_quorum_stays_as_it_was(one: int, other: int, counts: list[int], held: bool | None) -> None:
    quorum = Quorum(max(one, other), min(one, other))
    for alive in counts:
        was, held = held, is_held(quorum, alive, held)
        if alive >= quorum.up:
            assert held
        elif alive < quorum.down:
            assert not held
        else:
            assert held is (was is not False)


def test_a_configuration_keeps_quorum_between_looks() -> None:
    two = config("quorum: {up: 3, down: 2}")
    seen = []
    before: dict[str, bool] = {}
    for states in ("UUDD", "UUUD", "UUDD", "UDDD", "UUDD", "UUUU"):
        found = serving(two, Known(health(states), quorate=before))
        before = {name: each.quorate for name, each in found.standings.items()}
        seen.append((standing(found).alive, standing(found).quorate))
    assert seen == [(2, True), (3, True), (2, True), (1, False), (2, False), (4, True)]


@pytest.mark.parametrize(
    ("states", "before", "found"),
    [
        ("UUUU", None, {"a": 100, "b": 100, "c": 100, "d": 100, "sorry_server": 0}),
        ("UUDD", True, {"a": 100, "b": 100, "c": 0, "d": 0, "sorry_server": 0}),
        ("UUDD", False, {"a": 0, "b": 0, "c": 0, "d": 0, "sorry_server": 3}),
        ("UDDD", True, {"a": 0, "b": 0, "c": 0, "d": 0, "sorry_server": 3}),
        ("DDDD", True, {"a": 0, "b": 0, "c": 0, "d": 0, "sorry_server": 3}),
    ],
)
def test_either_the_real_servers_or_the_sorry_server(states: str, before: bool | None, found: dict[str, int]) -> None:
    two = config("quorum: {up: 3, down: 2}", SORRY)
    quorate = {} if before is None else {"web": before}
    assert values(serving(two, Known(health(states), quorate=quorate))) == found


def test_reasons_say_for_whom_the_sorry_server_stands() -> None:
    two = config("quorum: {up: 2}", SORRY)
    lost = serving(two, Known(health("UDDD"))).weights
    assert lost[ref("sorry_server")].reason == "serves: quorum is lost (1 of 2)"
    assert lost[ref("a")].reason == "quorum is lost (1 of 2): the sorry server serves; up: connected"
    assert lost[ref("b")].reason == "down: refused"
    assert not lost[ref("a")].is_down, "it stays in the table, whatever on_failure says"
    held = serving(two, Known(health("UUDD"))).weights
    assert held[ref("sorry_server")].reason == "stands by: it serves while quorum is lost"


@pytest.mark.parametrize("wish", [Wish(drain=True), Wish(maintenance=Maintenance()), Wish(weight=0)])
def test_a_sorry_server_that_was_taken_out_stands_in_for_nobody(wish: Wish) -> None:
    two = config("quorum: {up: 2}", SORRY)
    found = serving(two, Known(health("UDDD"), {ref("sorry_server"): wish}))
    assert values(found) == {"a": 100, "b": 0, "c": 0, "d": 0, "sorry_server": 0}
    assert not standing(found).quorate


def test_without_a_sorry_server_lost_quorum_changes_no_weight() -> None:
    found = serving(config("quorum: {up: 3}"), Known(health("UDDD")))
    assert values(found)["a"] == 100
    assert standing(found) == Standing(alive=1, quorate=False)


@pytest.mark.parametrize(
    ("share", "servers", "states", "panics"),
    [
        ("50%", 2, "UD", False),
        ("50%", 2, "DD", True),
        ("50%", 3, "UUD", False),
        ("50%", 3, "UDD", True),
        ("50%", 4, "UUDD", False),
        ("50%", 4, "UDDD", True),
        ("0%", 4, "UUUU", False),
        ("0%", 4, "UUUD", True),
        ("99%", 4, "UDDD", False),
        ("99%", 4, "DDDD", True),
        ("50%", 4, "UDD?", False),
        ("50%", 1, "D", True),
    ],
)
def test_panic_begins_above_its_share(share: str, servers: int, states: str, panics: bool) -> None:
    found = serving(config(f"panic_threshold: {share}", servers=servers), Known(health(states)))
    assert standing(found).panic is panics
    expected = {"U": 100, "D": 100 if panics else 0, "?": 100}
    assert values(found) == {name: expected[state] for name, state in zip(NAMES, states, strict=False)}


@given(st.integers(0, 99), st.sampled_from((1, 7, 50, 100, 200)), st.integers(-1, 2))
@example(29, 100, 0)
@example(57, 100, 0)
@example(14, 50, 0)
def test_panic_counts_exactly(percent: int, servers: int, beside: int) -> None:
    down = min(max(percent * servers // 100 + beside, 0), servers)
    (virtual,) = BASE.virtual_servers
    reals = tuple(replace(virtual.real_servers[0], name=str(number)) for number in range(servers))
    many = replace(virtual, real_servers=reals, policy=replace(virtual.policy, panic_share=percent / 100))
    states = {ref(str(number)): DOWN if number < down else UP for number in range(servers)}
    assert standing(serving(Config((many,)), Known(states))).panic is (down * 100 > percent * servers)


@pytest.mark.parametrize(
    ("each", "wishes"),
    [
        ({}, {"c": Wish(drain=True), "d": Wish(drain=True)}),
        ({}, {"c": Wish(maintenance=Maintenance()), "d": Wish(weight=0)}),
        ({"c": "state: drained", "d": "state: disabled"}, {}),
        ({"c": "weight: 0", "d": "weight: 0"}, {}),
        ({"c": "check: {type: none}", "d": "check: {type: none}"}, {}),
    ],
)
def test_who_is_not_meant_to_serve_does_not_count_for_panic(each: dict[str, str], wishes: dict[str, Wish]) -> None:
    half = config("panic_threshold: 50%", each=each)
    by_ref = {ref(name): wish for name, wish in wishes.items()}
    assert not standing(serving(half, Known(health("UDDD"), by_ref))).panic, "1 of 2"
    assert standing(serving(half, Known(health("DDUU"), by_ref))).panic, "2 of 2"


def test_a_weight_of_the_operators_makes_a_server_of_weight_0_count() -> None:
    half = config("panic_threshold: 50%", each={"c": "weight: 0", "d": "weight: 0"})
    wishes = {ref(name): Wish(weight=5) for name in "cd"}
    assert not standing(serving(half, Known(health("DDUU"), wishes))).panic


def test_maglev_is_recognized_by_its_virtual_server() -> None:
    slow = {ref("a"): HealthState(Status.UP, since_at=100.0, last=replace(GOOD, percent=50), was_down=True)}
    for scheduler, value in (("mh", 100), ("wrr", 3)):
        found = serving(config(f"scheduler: {scheduler}", "slow_start: 1m"), Known(slow, now=100.0))
        assert values(found)["a"] == value, scheduler


def test_a_dead_server_is_not_revived_by_a_restart_that_finds_an_empty_table() -> None:
    presumed = {ref("a"): Status.UP, ref("b"): Status.DOWN}
    found = serving(config(servers=2), Known(health("??"), presumed=presumed))
    assert values(found) == {"a": 100, "b": 0}
    assert found.weights[ref("b")].reason == "no verdict yet: it was down when last known"
    assert found.weights[ref("b")].is_down


RESULTS = st.builds(
    ProbeResult,
    st.booleans(),
    st.just("seen"),
    weight=st.none() | st.integers(0, 65535),
    percent=st.none() | st.integers(1, 100),
    asks=st.none() | st.sampled_from(Asks),
)
HEALTH = st.builds(
    HealthState, st.sampled_from(Status), since_at=st.floats(0, 100), last=st.none() | RESULTS, was_down=st.booleans()
)
WISH = st.builds(
    Wish, st.booleans(), st.none() | st.sampled_from((0, 1, 7, 65535)), st.none() | st.just(Maintenance("work"))
)
REFS = [ref(name) for name in (*NAMES, "sorry_server")]


@st.composite
def worlds(draw: st.DrawFn, *, sorry: bool | None = None) -> tuple[Config, Known]:
    has_sorry = draw(st.booleans()) if sorry is None else sorry
    (virtual,) = (BASE_SORRY if has_sorry else BASE).virtual_servers
    up = draw(st.integers(1, 4))
    policy = replace(
        virtual.policy,
        on_start=draw(st.sampled_from(OnStart)),
        quorum=Quorum(up, draw(st.integers(1, up))),
        panic_share=None if has_sorry else draw(st.none() | st.sampled_from((0.0, 0.29, 0.5, 0.57, 0.99))),
        slow_start_s=draw(st.sampled_from((0.0, 30.0))),
    )
    reals = tuple(
        real
        if real.is_sorry
        else replace(
            real,
            weight=draw(st.sampled_from((0, 1, 100, 65535))),
            state=draw(st.sampled_from(RealState)),
            check=draw(st.sampled_from((real.check, None))),
        )
        for real in virtual.real_servers
    )
    row = replace(virtual.row, scheduler=draw(st.sampled_from(("wlc", "mh"))))
    known = Known(
        draw(st.dictionaries(st.sampled_from(REFS[:-1]), HEALTH)),
        draw(st.dictionaries(st.sampled_from(REFS), WISH)),
        draw(st.dictionaries(st.sampled_from(REFS), st.integers(0, 65535))),
        draw(st.frozensets(st.sampled_from(REFS[:-1]))),
        draw(st.dictionaries(st.sampled_from(REFS[:-1]), st.sampled_from((Status.UP, Status.DOWN)))),
        draw(st.dictionaries(st.sampled_from(REFS[:-1]), RESULTS)),
        draw(st.dictionaries(st.just("web"), st.booleans())),
        draw(st.floats(0, 200)),
        draw(st.booleans()),
    )
    return Config((replace(virtual, row=row, policy=policy, real_servers=reals),)), known


@given(worlds())
def test_every_weight_is_in_range_and_explained(world: tuple[Config, Known]) -> None:
    found = serving(*world)
    assert set(found.weights) == set(world[0].virtual_servers[0].refs)
    for weight in found.weights.values():
        assert 0 <= weight.value <= 65535
        assert weight.factors[-1].value == weight.value
        assert weight.reason or not world[1].probed
        assert not (weight.is_down and weight.value)


@given(worlds())
def test_nobody_who_was_taken_out_gets_weight_whatever_else_holds(world: tuple[Config, Known]) -> None:
    where, known = world
    found = values(serving(where, known))
    for real in where.virtual_servers[0].real_servers:
        wish = known.wishes.get(ref(real.name), Wish())
        if wish.drain or wish.maintenance is not None or wish.weight == 0 or real.state is not RealState.ENABLED:
            assert found[real.name] == 0


@given(worlds(sorry=True))
def test_one_side_takes_connections_and_never_both(world: tuple[Config, Known]) -> None:
    where, known = world
    found = serving(where, known)
    weights = values(found)
    sorry = weights.pop("sorry_server")
    wish = known.wishes.get(ref("sorry_server"), Wish())
    is_out = wish.drain or wish.maintenance is not None or wish.weight == 0
    assert not (sorry and any(weights.values()))
    assert sorry or is_out or standing(found).quorate
    assert bool(sorry or any(weights.values())) is bool(standing(found).alive or not is_out)
    if standing(found).quorate or is_out:
        assert sum(weight > 0 for weight in weights.values()) == standing(found).alive


@given(worlds(sorry=False))
def test_panic_never_takes_weight_away(world: tuple[Config, Known]) -> None:
    where, known = world
    (virtual,) = where.virtual_servers
    calm = Config((replace(virtual, policy=replace(virtual.policy, panic_share=None)),))
    before, after = values(serving(calm, known)), values(serving(where, known))
    assert all(after[name] >= weight for name, weight in before.items())


def test_the_sorry_server_has_its_own_port_and_method() -> None:
    (virtual,) = config("sorry_server: {address: 10.0.0.99, port: 8080, forward: nat}").virtual_servers
    assert virtual.sorry is not None
    assert virtual.sorry.at(virtual.keys[0]) == Endpoint(ip_address("10.0.0.99"), 8080)
