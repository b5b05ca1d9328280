"""The lab for people: the prompt, and `director lab`.

One rule: what is typed and what is seen, word for word.
"""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from director.cli import exits
from director.cli.lab import lab as command
from director.lab.hosts import Lab
from director.lab.kernels import Kernel
from director.lab.waiting import wait_until

pytestmark = pytest.mark.lab


def converse(kernel: Kernel, lab: Lab, *typed: str) -> tuple[str, list[str]]:
    """What the prompt wrote, and each prompt, for lines typed before Ctrl-D."""
    said: list[str] = []
    prompts: list[str] = []
    lines = iter(typed)

    def ask(prompt: str) -> str:
        prompts.append(prompt)
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    kernel.shell(lab, said.append, ask)
    return "".join(said), prompts


def test_prompt_shows_the_host_and_the_last_exit_code(kernel: Kernel, lab: Lab) -> None:
    said, prompts = converse(kernel, lab, "on director", "hostname; exit 3", "web-1: hostname", "on nowhere", "true")
    assert prompts == ["client> ", "director> ", "director [3]> ", "director> ", "director> ", "director> "]
    assert "\ndirector\nweb-1\nthere is no host 'nowhere': client, director" in said


def test_program_with_a_hosts_name_is_a_program(kernel: Kernel, lab: Lab) -> None:
    said, _ = converse(kernel, lab, "on director", "director --version", "director: hostname")
    assert "director, version" in said
    assert said.endswith("\ndirector\n\n")


def test_prompt_lists_hosts_with_their_addresses(kernel: Kernel, lab: Lab) -> None:
    said, _ = converse(kernel, lab, "hosts")
    assert "director   director  lan 10.9.0.2 fd09::2, inside 10.9.1.1 fd09:1::1\n" in said


def test_prompt_shows_output_as_it_comes(kernel: Kernel, lab: Lab) -> None:
    said, _ = converse(kernel, lab, "echo one; sleep 1; echo two >&2", "exit", "echo never")
    assert said.endswith("one\ntwo\n")


def test_ctrl_c_stops_the_line_and_stays(kernel: Kernel, lab: Lab) -> None:
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if said.count("started\n") == 1 and text == "started\n":
            raise KeyboardInterrupt

    lines = iter(["echo started; sleep 4717", "echo still here"])
    kernel.shell(lab, say, lambda _: next(lines, "exit"))
    assert said[-1] == "still here\n"
    assert wait_until(lambda: lab.host("client").run("pgrep", "-f", "sleep 4717").exit_code == 1)


def test_command_line_runs_on_a_fresh_lab_and_exits_alike() -> None:
    result = CliRunner().invoke(command, ["run", "web-2", "--", "sh", "-c", "hostname; exit 5"])
    assert (result.exit_code, result.output) == (5, "web-2\n")


def test_command_line_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert exits.run(command, "director", ["run", "nobody", "true"]) == exits.ERROR
    assert "director: the lab has no host 'nobody': it has client, director" in capsys.readouterr().err
