"""The commands that run on the lab's hosts: started by exec, or by a fork of the forker; watched, and told about.

One rule: a command's end is told once, however it was started, and whatever became of the forker.
"""

import os
import select
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from director.lab.guest import jobs
from director.lab.guest.layout import Layout

if TYPE_CHECKING:
    from director.lab.guest.forks import Forker

_TICK_S = 30.0
_Order = Mapping[str, object]


class Commands:
    """All commands that have not ended; `poll` is told of the pipes that `ready` is to be called for."""

    def __init__(
        self, folder: str, poll: select.epoll, answer: Callable[[dict[str, object]], None], forker: list[str]
    ) -> None:
        self._folder = folder
        self._poll = poll
        self._answer = answer
        self._forker_argv = forker
        self._forker: Forker | None = None
        self._jobs: dict[int, jobs.Job] = {}  # by process id
        self._asked: dict[int, tuple[jobs.Job, _Order, Layout]] = {}  # of the forker, not started yet; by number
        self._forked: dict[int, jobs.Job] = {}  # those of the jobs whose end the forker tells; by number
        self._streams: dict[int, jobs.Stream] = {}  # by file descriptor of the pipe

    def start(self, number: int, order: _Order, layout: Layout) -> None:
        """Start a command. Its end is answered; for one without a limit, in the background, its start too.

        Raises: OSError or KeyError when there is no such folder or host.
        """
        limit_s = order["timeout_s"]
        names = ("out",) if limit_s is None else ("out", "err")
        streams = [jobs.Stream(f"{self._folder}/{number}.{name}") for name in names]
        job = jobs.Job(number, streams, None if limit_s is None else float(limit_s))  # type: ignore[arg-type]
        try:
            if not (order["fork"] and self._ask(job, order, layout)):
                self._execute(job, order, layout)
        except (OSError, KeyError):
            job.discard()
            raise

    def ready(self, fd: int) -> None:
        """Take what a descriptor has to give."""
        if self._forker is not None and fd == self._forker.line:
            self._hear(self._forker)
        elif fd in self._streams and not self._streams[fd].pump():
            self._poll.unregister(fd)
            self._streams.pop(fd).close()

    def find(self, number: object) -> jobs.Job | None:
        """The command of an order, if it runs."""
        self.reap()
        return next((job for job in self._jobs.values() if job.number == number), None)

    def reap(self) -> None:
        """Tell about those that have ended."""
        if self._forker is not None:
            self._hear(self._forker)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._end(pid, os.waitstatus_to_exitcode(status))

    def any_forked(self) -> bool:
        return bool(self._forked)

    def until_next_deadline_s(self) -> float:
        deadlines = [job.deadline for job in self._jobs.values() if job.deadline is not None]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else _TICK_S

    def stop_late(self) -> None:
        """SIGKILL those over their limits, with all they started."""
        now = time.monotonic()
        for job in self._jobs.values():
            if job.deadline is not None and job.deadline <= now:
                job.timed_out = True
                job.deadline = now + 1.0  # again, should a fork have raced the first
                jobs.kill_tree(job.pid)

    def leave(self) -> None:
        """Before the hosts go: what was asked of the forker and has not started never will."""
        self.reap()
        if self._forker is not None and self._asked:
            for job, _, _ in self._asked.values():
                self._end_unbegun(job, -9)
            self._asked.clear()
            self._lose(self._forker)

    def _execute(self, job: jobs.Job, order: _Order, layout: Layout) -> None:
        argv: list[str] = order["argv"]  # type: ignore[assignment]
        try:
            with layout.inside(str(order["host"])):
                os.chdir(str(order["cwd"]))
                pid = jobs.spawn(argv, order["env"], self._stdin(job, order), job.streams)  # type: ignore[arg-type]
        except jobs.NotStartedError as error:
            self._end_unbegun(job, 127, str(error))
        else:
            self._begin(job, pid)

    def _begin(self, job: jobs.Job, pid: int) -> None:
        job.begin(pid)
        self._jobs[pid] = job
        for stream in job.streams:
            self._streams[stream.pipe] = stream
            self._poll.register(stream.pipe, select.EPOLLIN)
        if job.in_background:
            self._answer({"job": job.number, "pid": pid})

    def _end(self, pid: int, exit_code: int) -> None:
        if job := self._jobs.pop(pid, None):
            self._forked.pop(job.number, None)
            self._answer(job.finish(exit_code))

    def _end_unbegun(self, job: jobs.Job, exit_code: int, note: str = "") -> None:
        self._answer(job.finish(exit_code, note))
        job.discard()

    def _stdin(self, job: jobs.Job, order: _Order) -> str:
        return f"{self._folder}/{job.number}.in" if order["stdin"] else "/dev/null"

    def _ask(self, job: jobs.Job, order: _Order, layout: Layout) -> bool:
        """Whether the forker has been asked to start a command."""
        forker = self._running_forker()
        if forker is None:
            return False
        host = str(order["host"])
        with layout.inside(host):
            folder = os.open(str(order["cwd"]), os.O_PATH | os.O_DIRECTORY)
        source = os.open(self._stdin(job, order), os.O_RDONLY)
        outputs = [job.streams[0].write_end, job.streams[-1].write_end]
        asked = forker.ask(job.number, order, [source, *outputs, folder, *layout.places[host].fds])
        os.close(source)
        os.close(folder)
        if asked:
            self._asked[job.number] = (job, order, layout)
        return asked

    def _running_forker(self) -> "Forker | None":
        """The forker, started now if there is none, so that a lab that needs none does not pay for it."""
        if self._forker is None and self._forker_argv:
            from director.lab.guest.forks import Forker

            self._forker = Forker(self._forker_argv)
            self._poll.register(self._forker.line, select.EPOLLIN)
        return self._forker

    def _hear(self, forker: "Forker") -> None:
        try:
            for said in forker.hear():
                self._learn(said)
        except EOFError:
            if not forker.has_served:
                self._forker_argv = []
                sys.stderr.write("the lab's forker did not come up: every command is started by exec\n")
            self._lose(forker)

    def _learn(self, said: Mapping[str, int]) -> None:
        number = said["job"]
        if "started" in said:
            job, _, _ = self._asked.pop(number)
            for stream in job.streams:
                stream.close_write_end()
            self._forked[number] = job
            self._begin(job, said["started"])
        elif number in self._forked:
            self._end(self._forked[number].pid, said["ended"])
        elif number in self._asked:  # it has failed before it could begin
            job, _, _ = self._asked.pop(number)
            self._end_unbegun(job, said["ended"])

    def _lose(self, forker: "Forker") -> None:
        """What it has started ends with it, and what it has not is started by exec."""
        self._poll.unregister(forker.line)
        forker.close()
        self._forker = None
        for job in list(self._forked.values()):
            jobs.kill_tree(job.pid)
            self._end(job.pid, -9)
        asked = list(self._asked.values())
        self._asked.clear()
        for job, order, layout in asked:
            try:
                self._execute(job, order, layout)
            except (OSError, KeyError) as error:
                job.discard()
                self._answer({"job": job.number, "error": str(error)})
