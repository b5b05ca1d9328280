"""Quorum hooks: real programs, and what becomes of those that fail."""

from __future__ import annotations

import asyncio
import os
import pwd
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from director import hooks as module
from director.core.event import Event, EventKind
from director.core.policy import Hook
from director.hooks import AT_ONCE, Hooks
from director.witness import HookDue
from tests.director.fakes import until

pytestmark = pytest.mark.unit

SH = str(Path("/bin/sh").resolve())
ME = pwd.getpwuid(os.geteuid()).pw_name
"""Who may write where the tests do."""


def due(text: str, name: str = "web", held: bool = True, timeout_s: float = 10.0) -> HookDue:
    return HookDue(name, held, Hook((SH, "-c", text), ME, timeout_s), alive=2)


def begun(directory: Path) -> int:
    return len(list(directory.iterdir()))


def run(story: Callable[[Hooks, list[Event]], Awaitable[None]]) -> None:
    async def main() -> None:
        told: list[Event] = []
        hooks = Hooks(told.append)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            task = group.create_task(hooks.run())
            try:
                await story(hooks, told)
            finally:
                task.cancel()

    asyncio.run(main())


def test_a_hook_hears_what_has_changed_and_its_end_is_an_event(tmp_path: Path) -> None:
    async def story(hooks: Hooks, told: list[Event]) -> None:
        text = f'echo "$DIRECTOR_VIRTUAL_SERVER $DIRECTOR_QUORUM $DIRECTOR_ALIVE" > {tmp_path}/said'
        hooks.want(due(text, held=False))
        await until(lambda: bool(told))
        assert (tmp_path / "said").read_text() == "web lost 2\n"
        (event,) = told
        assert (event.kind, event.virtual_server, event.now) == (EventKind.NOTIFICATION, "web", "hook run")
        assert event.reason == ""
        assert (hooks.run_for, hooks.failed_for) == ({"web": 1}, {"web": 0})

    run(story)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (due("echo no gateway >&2; exit 3"), "exit code 3: no gateway"),
        (due("kill -9 $$"), "ended by signal 9"),
        (due("sleep 61", timeout_s=0.2), "killed: it took longer than 200ms"),
        (HookDue("web", True, Hook(("/nowhere",), ME, 1.0), 2), "/nowhere cannot be run: No such file or directory"),
    ],
)
def test_a_hook_that_fails_says_why(what: HookDue, reason: str) -> None:
    async def story(hooks: Hooks, told: list[Event]) -> None:
        hooks.want(what)
        await until(lambda: bool(told))
        assert [(each.now, each.reason) for each in told] == [("hook failed", reason)]
        assert (hooks.run_for, hooks.failed_for) == ({"web": 1}, {"web": 1})

    run(story)


def test_a_hook_that_fails_in_itself_ends_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise KeyError("the user has just gone")

    async def story(hooks: Hooks, told: list[Event]) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(module, "run_script", broken)
            hooks.want(due("exit 0"))
            await until(lambda: bool(told))
        hooks.want(due("exit 0", "mail"))
        await until(lambda: len(told) == 2)
        assert [(each.virtual_server, each.now, each.reason) for each in told] == [
            ("web", "hook failed", "internal error: KeyError"),
            ("mail", "hook run", ""),
        ]

    run(story)


def test_of_several_changes_while_a_hook_runs_the_last_is_told(tmp_path: Path) -> None:
    async def story(hooks: Hooks, told: list[Event]) -> None:
        hooks.want(due(f"echo first >> {tmp_path}/said; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done"))
        await until((tmp_path / "said").exists)
        for number in range(5):
            hooks.want(due(f"echo {number} >> {tmp_path}/said"))
        (tmp_path / "go").touch()
        await until(lambda: len(told) == 2)
        assert (tmp_path / "said").read_text().split() == ["first", "4"]

    run(story)


def test_hooks_of_many_virtual_servers_run_beside_each_other_so_many_at_once(tmp_path: Path) -> None:
    async def story(hooks: Hooks, told: list[Event]) -> None:
        for number in range(AT_ONCE + 3):
            hooks.want(
                due(f"touch {tmp_path}/{number}; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done", f"{number}")
            )
        await until(lambda: begun(tmp_path) == AT_ONCE)
        await asyncio.sleep(0.1)  # none of the others begins
        assert begun(tmp_path) == AT_ONCE
        (tmp_path / "go").touch()
        await until(lambda: len(told) == AT_ONCE + 3)
        assert {each.now for each in told} == {"hook run"}

    run(story)
