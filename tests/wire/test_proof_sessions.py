"""Sessions and hashing as clients of the program see them: over restarts, reloads, upgrades and several proxies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.wire.harness import fields_of
from tests.wire.outside import Answered, Back, Line, Program, ok, until, upstreams

pytestmark = pytest.mark.unit

STICKY = {
    "plain": "sticky: {cookie: SRV}",
    "signed": "sticky: {cookie: SRV, key_file: KEY_FILE, maxidle: 1h, maxlife: 8h}",
    "prefix": "sticky: {cookie: SRV, mode: prefix}",
    "rewrite": "sticky: {cookie: SRV, mode: rewrite}",
    "passive": "sticky: {cookie: SRV, mode: passive}",
    "by-source": "sticky: {source: true}",
    "by-header": "sticky: {header: X-Session}",
}
HASHED = {
    "source": "balance: {hash: source}",
    "header": 'balance: {hash: "header X-Key"}',
    "cookie": 'balance: {hash: "cookie key"}',
    "uri": "balance: {hash: uri}",
    "query": 'balance: {hash: "query key"}',
    "stuck": "sticky: {header: X-Key}",
}
COOKIES = ("plain", "signed", "prefix", "rewrite", "passive")


def application(back: Back, head: bytes) -> bytes:
    """It sets a cookie of its own, where the client brings none: as `passive`, its name."""
    value = back.name if b"Host: passive" in head else "application"
    seen = f"X-Seen: {b'|'.join(fields_of(head, b'cookie')).decode()}"
    return ok(back.name.encode(), seen, *([] if b"SRV=" in head else [f"Set-Cookie: SRV={value}; Path=/"]))


class User:
    """A browser of one site."""

    def __init__(self, site: str, number: int = 0) -> None:
        self.site = site
        self.number = number
        self.cookies: dict[str, str] = {}
        self.told: list[str] = []

    def ask(self, port: int, target: str = "/") -> str:
        """Who answers."""
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        lines = [f"X-Session: {self.number}"] + ([f"Cookie: {cookie}"] if cookie else [])
        with Line(port, f"127.0.7.{self.number + 1}") as line:
            answer = line.ask(target, "Connection: close", *lines, host=self.site)
        assert answer.status == 200, answer
        self.cookies |= answer.cookies
        self.told = answer.all("set-cookie")
        return answer.text


@dataclass(frozen=True, slots=True)
class Place:
    """Backends, and a program before them that all tests here use one after the other."""

    folder: Path
    members: list[Back]
    proxy: Program


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("sessions")
    members = [Back(name, application) for name in ("one", "two", "three", "four")]
    with Program(folder / "run", text_of(folder, members[:3])) as proxy:
        yield Place(folder, members, proxy)
    for each in members:
        each.stop()


def text_of(folder: Path, members: list[Back], workers: int = 2) -> str:
    key_file = folder / "keys"
    key_file.write_text("0123456789abcdef0123456789abcdef\n")
    keys = {site: text.replace("KEY_FILE", str(key_file)) for site, text in (STICKY | HASHED).items()}
    routes = "".join(f"  - {{name: {site}, match: {{host: {site}}}, upstream: {site}}}\n" for site in keys)
    text = f"access_log: none\nworkers: {workers}\nroutes:\n{routes}"
    return text + upstreams(dict.fromkeys(keys, members), keys)


def weighed(text: str, back: Back, weight: int) -> str:
    address = f'address: "{back.address}"'
    assert address in text
    return text.replace(address, f"{address}, weight: {weight}")


def test_drained_dead_and_back_again(place: Place) -> None:
    proxy, members = place.proxy, place.members[:3]
    text = text_of(place.folder, members)
    proxy.reload(text)
    users = [User(site, number) for site in COOKIES for number in range(5)]
    homes = [user.ask(proxy.port) for user in users]
    drained = members[1]
    proxy.reload(weighed(text, drained, 0))
    assert [user.ask(proxy.port) for user in users] == homes, "drained backends keep their sessions"
    for site in STICKY:
        assert "two" not in {User(site, 50 + number).ask(proxy.port) for number in range(6)}, site
    drained.stop()
    orphans = [user for user, home in zip(users, homes, strict=True) if home == "two"]
    assert orphans
    for user in orphans:
        before = user.cookies["SRV"]
        home = user.ask(proxy.port)
        assert home != "two"
        if user.site in ("plain", "signed"):
            assert user.cookies["SRV"] != before, "the answer that comes from elsewhere brings the cookie"
            assert len(user.told) == 1
            assert {user.ask(proxy.port) for _ in range(3)} == {home}
            assert not user.told
    drained.start()
    proxy.reload(text)
    for user, home in zip(users, homes, strict=True):
        if home != "two":
            assert user.ask(proxy.port) == home, "nobody else has moved"
    until(lambda: "two" in {User("plain").ask(proxy.port) for _ in range(3)}, "it gets new sessions again")


Told = tuple[Line, dict[str, str], dict[str, str]]


@pytest.fixture(scope="module")
def told(place: Place) -> Iterator[Told]:
    """A connection, and of a user of each site the cookie, and the backend."""
    place.proxy.reload(text_of(place.folder, place.members[:3]))
    users = {site: User(site) for site in ("plain", "signed")}
    homes = {site: user.ask(place.proxy.port) for site, user in users.items()}
    with Line(place.proxy.port) as line:
        yield line, {site: user.cookies["SRV"] for site, user in users.items()}, homes


def is_new(answer: Answered) -> bool:
    return bool(answer.cookies.get("SRV"))


VALUE = st.text(st.characters(codec="ascii", min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=";"))


@settings(max_examples=120)
@given(site=st.sampled_from(["plain", "signed"]), data=st.data())
def test_what_is_not_to_the_letter_a_cookie_of_ours_is_none(told: Told, site: str, data: st.DataObject) -> None:
    """Garbage, a true one with something changed, of another upstream, cut, doubled, or very long: a new session."""
    line, cookies, _ = told
    mine, other = cookies[site], cookies["signed" if site == "plain" else "plain"]
    place = st.integers(0, len(mine) - 1)
    forged = data.draw(
        st.one_of(
            VALUE,
            st.sampled_from(
                ["", "one", "two", "three", "0", "b0", other, mine + mine, mine * 400, "x" * 8000, f"{mine}="]
            ),
            st.tuples(place, VALUE.filter(bool)).map(lambda drawn: mine[: drawn[0]] + drawn[1] + mine[drawn[0] :]),
            place.map(lambda at: mine[:at]),
            place.map(lambda at: mine[:at] + ("A" if mine[at] != "A" else "B") + mine[at + 1 :]),
            place.map(lambda at: mine[:at] + mine[at].swapcase() + mine[at + 1 :]),
        ).filter(lambda value: value.strip('"') != mine)
    )
    answer = line.ask("/", f"Cookie: a=1; SRV={forged}; b=2", host=site)
    assert answer.status == 200
    assert is_new(answer), "it was believed"
    assert answer.one("x-seen") == "a=1; b=2", "what is for us is not for the backend"


@settings(max_examples=40)
@given(site=st.sampled_from(["plain", "signed"]), before=st.lists(VALUE, max_size=4), is_split=st.booleans())
@example(site="plain", before=["x" * 6000], is_split=False)
def test_among_others_of_its_name_the_one_that_holds_counts(
    told: Told, site: str, before: list[str], is_split: bool
) -> None:
    line, cookies, homes = told
    mine, home = cookies[site], homes[site]
    pairs = [f"SRV={value}" for value in [*before, mine]]
    lines = [f"Cookie: {pair}" for pair in pairs] if is_split else ["Cookie: " + "; ".join(pairs)]
    answer = line.ask("/", *lines, host=site)
    assert answer.status == 200
    if not any(value.strip('"') == mine for value in before):
        assert answer.text == home
        assert not is_new(answer)


# hashing

COUNT = 90


def homes_of(proxy: Program) -> dict[str, list[str]]:
    """Where each key goes, by what is hashed; over both workers in turn."""
    homes: dict[str, list[str]] = {}
    with proxy.lines() as workers:
        for site in HASHED:
            homes[site] = []
            for key in range(COUNT if site != "source" else COUNT // 3):
                if site == "source":
                    with Line(proxy.port, f"127.0.{key // 200 + 1}.{key % 200 + 1}") as line:
                        homes[site].append(line.ask("/", "Connection: close", host=site).text)
                    continue
                (line,) = workers[key % 2]
                target = {"uri": f"/{key}", "query": f"/?key={key}"}.get(site, "/")
                answer = line.ask(target, f"X-Key: {key}", f"Cookie: key={key}", host=site)
                homes[site].append(answer.text)
    return homes


def test_one_more_backend_takes_its_share_of_keys_and_moves_no_other(place: Place) -> None:
    proxy, members = place.proxy, place.members
    proxy.reload(text_of(place.folder, members[:3]))
    before = homes_of(proxy)
    assert all(set(homes) == {"one", "two", "three"} for homes in before.values())
    proxy.reload(text_of(place.folder, members[::-1]))  # and in whatever order
    for site, homes in homes_of(proxy).items():
        moved = [(old, new) for old, new in zip(before[site], homes, strict=True) if old != new]
        assert {new for _, new in moved} == {"four"}, site
        epsilon = 4 * (1 / 4 * 3 / 4 / len(homes)) ** 0.5
        assert 1 / 4 - epsilon <= len(moved) / len(homes) <= 1 / 3 + epsilon, site
    proxy.reload(text_of(place.folder, members[:3]))
    assert homes_of(proxy) == before, "one that goes moves its own only, and back"


def test_sessions_outlive_every_kind_of_new_beginning_and_hold_on_every_proxy(place: Place) -> None:
    """A reload, SIGUSR2, a new process with the same file, and another proxy beside it. The last: it ends the one."""
    first, members = place.proxy, place.members[:3]
    text = text_of(place.folder, members)
    first.reload(text)
    users = [User(site, number) for site in STICKY for number in range(4)]
    homes = [user.ask(first.port) for user in users]
    for site in COOKIES:
        assert len({home for user, home in zip(users, homes, strict=True) if user.site == site}) > 1, site

    def all_are_at_home(port: int) -> None:
        assert [user.ask(port) for user in users] == homes
        assert not any(user.told for user in users), "nobody is told of what has not changed"

    with first.lines() as workers:  # each of both keeps them
        for (line,) in workers:
            for user, home in zip(users, homes, strict=True):
                if user.site in COOKIES:
                    assert line.ask("/", f"Cookie: SRV={user.cookies['SRV']}", host=user.site).text == home
    first.reload(text.replace("{host: plain}", "{host: [plain, other]}"))
    all_are_at_home(first.port)
    old = first.workers()
    first.upgrade()
    assert len(set(first.workers()) - set(old)) == 2
    all_are_at_home(first.port)
    first.end()
    alone = text_of(place.folder, members, workers=1)
    again = Program(place.folder / "again", alone, port=first.port).start()
    with Program(place.folder / "other", alone.replace("access_log", "name: other\naccess_log")) as other, again:
        all_are_at_home(again.port)
        all_are_at_home(other.port)
        more = [User(site, number) for site in STICKY for number in range(4, 7)]
        theirs = [user.ask(other.port) for user in more]
        assert [user.ask(again.port) for user in more] == theirs
