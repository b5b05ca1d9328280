"""What the lab promises about hosts, commands and files, tried on the kernel that tests use.

One rule: a test leaves no command running that a later one could see.
"""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from director.lab.errors import CommandError, LabError
from director.lab.hosts import Lab, LabHost
from director.lab.kernels import Kernel
from director.lab.waiting import wait_until

pytestmark = pytest.mark.lab


def runs(host: LabHost, pattern: str) -> bool:
    return host.run("pgrep", "-f", pattern).exit_code == 0


@pytest.mark.parametrize("family", [4, 6])
def test_client_and_director_ping_each_other(lab: Lab, family: int) -> None:
    client, director = lab.host("client"), lab.host("director")
    client.run("ping", "-c1", "-W5", director.address("lan", family)).check()
    director.run("ping", "-c1", "-W5", client.address("lan", family)).check()


@pytest.mark.parametrize("family", [4, 6])
def test_backends_answer_the_client_through_the_director_which_it_cannot_reach_itself(lab: Lab, family: int) -> None:
    web, client = lab.host("web-1"), lab.host("client")
    assert client.run("ip", "route", "get", web.address("inside", family)).exit_code != 0
    route = web.run("ip", "route", "get", client.address("lan", family)).check()
    assert f"via {lab.host('director').address('inside', family)}" in route.stdout


def test_l7proxies_reach_backends_without_the_director(lab: Lab) -> None:
    for proxy in lab.hosts("l7proxy"):
        route = proxy.run("ip", "route", "get", lab.host("web-3").address("inside")).check()
        assert "dev inside" in route.stdout
        assert "via" not in route.stdout


def test_links_have_the_topologys_macs(lab: Lab) -> None:
    shown = lab.host("web-2").run("ip", "-o", "link", "show", "inside").check()
    assert lab.host("web-2").link("inside").mac in shown.stdout


def test_director_forwards_and_sends_no_redirects(lab: Lab) -> None:
    director = lab.host("director")
    assert director.read("/proc/sys/net/ipv4/ip_forward").strip() == "1"
    assert director.read("/proc/sys/net/ipv4/conf/lan/send_redirects").strip() == "0"
    assert lab.host("client").read("/proc/sys/net/ipv4/ip_forward").strip() == "0"


def test_exit_code_and_both_outputs_come_back(lab: Lab) -> None:
    result = lab.host("client").run("sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.exit_code, result.stdout, result.stderr) == (7, "out\n", "err\n")
    with pytest.raises(CommandError, match=r"(?s)exit 7.*out.*err"):
        result.check()


def test_signal_is_a_negative_exit_code(lab: Lab) -> None:
    assert lab.host("client").run("sh", "-c", "kill -TERM $$").exit_code == -signal.SIGTERM


def test_missing_program_is_127(lab: Lab) -> None:
    result = lab.host("client").run("no-such-program")
    assert result.exit_code == 127
    assert "no-such-program: No such file" in result.stderr


def test_standard_input_environment_and_folder_are_given(lab: Lab) -> None:
    result = lab.host("client").run("sh", "-c", "cat; echo $WORD; pwd", stdin="in\n", env={"WORD": "w"}, cwd="/usr")
    assert result.check().stdout == "in\nw\n/usr\n"


def test_python_is_the_projects(lab: Lab) -> None:
    result = lab.host("client").run("python", "-c", "import director, aiohttp; print('here')")
    assert result.check().stdout == "here\n"


def test_a_megabyte_comes_back_whole(lab: Lab) -> None:
    result = lab.host("client").run("sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x").check()
    assert result.stdout == "x" * 1_000_000
    assert result.dropped_bytes == 0


def test_output_over_the_limit_is_cut_and_says_so(lab: Lab) -> None:
    result = lab.host("client").run("sh", "-c", "head -c 9000000 /dev/zero | tr '\\0' x").check()
    assert len(result.stdout) == 8 << 20
    assert result.dropped_bytes == 9_000_000 - (8 << 20)
    assert f"[{result.dropped_bytes} more bytes were dropped]" in str(result)


def test_command_over_its_limit_dies_with_what_it_started(lab: Lab) -> None:
    client = lab.host("client")
    result = client.run("sh", "-c", "sleep 4711 & setsid sleep 4711 & echo before; wait", timeout_s=1.0)
    assert result.timed_out
    assert result.exit_code == -signal.SIGKILL
    assert result.stdout == "before\n"
    assert result.duration_s < 5
    assert wait_until(lambda: not runs(client, "sleep 4711"))


def test_child_that_outlives_its_command_does_not_delay_it(lab: Lab) -> None:
    result = lab.host("client").run("sh", "-c", "sleep 4712 & echo started").check()
    assert result.stdout == "started\n"
    assert result.duration_s < 5
    lab.host("client").run("pkill", "-f", "sleep 4712").check()


def test_background_command_lives_speaks_and_ends(lab: Lab) -> None:
    process = lab.host("web-1").start("sh", "-c", "echo hello; echo oops >&2; trap 'exit 3' TERM; sleep 4713 & wait")
    assert wait_until(lambda: process.output() == "hello\noops\n")
    assert process.alive()
    with pytest.raises(LabError, match="still runs"):
        process.wait(0.01)
    process.kill()
    assert process.wait(10) == 3
    assert not process.alive()
    process.kill()
    assert process.output() == "hello\noops\n"


def test_background_command_that_cannot_start_is_an_error(lab: Lab) -> None:
    with pytest.raises(LabError, match="no-such-program"):
        lab.host("web-1").start("no-such-program")


def test_killing_a_tree_takes_its_children(lab: Lab) -> None:
    host = lab.host("web-1")
    process = host.start("sh", "-c", "sleep 4714 & setsid sleep 4714 & wait")
    assert wait_until(lambda: runs(host, "sleep 4714"))
    process.kill_tree()
    assert process.wait(10) == -signal.SIGKILL
    assert wait_until(lambda: not runs(host, "sleep 4714"))


def test_files_are_private_to_a_host(lab: Lab) -> None:
    web, other = lab.host("web-1"), lab.host("web-2")
    for folder in ("/run", "/tmp", "/var/lib", "/var/log", "/etc/director", "/etc/l7proxy", "/etc/nginx"):
        web.write(f"{folder}/deep/private", "mine\n", mode=0o600)
        assert web.read(f"{folder}/deep/private") == "mine\n"
        assert web.run("stat", "-c%a", f"{folder}/deep/private").stdout == "600\n"
        with pytest.raises(LabError, match="No such file"):
            other.read(f"{folder}/deep/private")


def test_nginx_serves_from_a_private_configuration(lab: Lab) -> None:
    web = lab.host("web-1")
    site = 'server { listen 8080; listen [::]:8080; location / { return 200 "web-1"; } }'
    web.write("/etc/nginx/lab.conf", f"daemon off; events {{}} http {{ access_log off; {site} }}")
    process = web.start("nginx", "-c", "/etc/nginx/lab.conf", name="nginx")
    urls = [f"http://{web.address('inside')}:8080/", f"http://[{web.address('inside', 6)}]:8080/"]
    assert wait_until(lambda: lab.host("l7proxy-1").run("curl", "-sf", *urls).stdout == "web-1web-1"), process.output()
    process.kill(signal.SIGQUIT)
    assert process.wait(10) == 0


def test_ipvs_table_of_the_director_is_its_own(lab: Lab) -> None:
    director = lab.host("director")
    director.run("ipvsadm", "-A", "-t", "10.9.0.100:80", "-s", "sed").check()
    assert "TCP  10.9.0.100:80 sed" in director.run("ipvsadm", "-Ln").check().stdout
    assert "10.9.0.100" not in lab.host("l7proxy-1").run("ipvsadm", "-Ln").check().stdout
    director.run("ipvsadm", "-C").check()


def test_legacy_iptables_and_tunnel_devices_are_there(lab: Lab) -> None:
    director = lab.host("director")
    director.run("iptables-legacy", "-t", "nat", "-S").check()
    for kind in ("dummy", "bridge", "ipip"):
        director.run("ip", "link", "add", f"try-{kind}", "type", kind, *_tunnel(kind)).check()
        director.run("ip", "link", "del", f"try-{kind}").check()


def _tunnel(kind: str) -> list[str]:
    return ["local", "10.9.0.2", "remote", "10.9.0.21"] if kind == "ipip" else []


def test_pulled_cable_cuts_a_host_off_and_it_comes_back(lab: Lab) -> None:
    client, director = lab.host("client"), lab.host("director")
    ping = ("ping", "-c1", "-W1", director.address("lan"))
    client.run(*ping).check()
    director.link("lan").down()
    assert client.run(*ping).exit_code != 0
    assert "NO-CARRIER" in director.run("ip", "link", "show", "lan").stdout
    director.link("lan").up()
    assert wait_until(lambda: client.run(*ping).exit_code == 0)


def test_commands_of_several_threads_run_at_once(lab: Lab) -> None:
    def sleep_and_say(number: int) -> str:
        host = lab.hosts()[number % len(lab.hosts())]
        return host.run("sh", "-c", f"sleep 1; echo {number} $(hostname)").check().stdout

    started_at = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        said = list(pool.map(sleep_and_say, range(16)))
    assert said == [f"{number} {lab.hosts()[number % len(lab.hosts())].name}\n" for number in range(16)]
    assert time.monotonic() - started_at < 8


def test_many_commands_at_once_do_not_stall_the_wire(lab: Lab) -> None:
    with ThreadPoolExecutor(150) as pool:
        results = list(pool.map(lambda n: lab.host("client").run("echo", str(n), timeout_s=90), range(160)))
    assert [result.stdout for result in results] == [f"{n}\n" for n in range(160)]


def test_unknown_host_names_those_there_are(lab: Lab) -> None:
    with pytest.raises(LabError, match=r"no host 'clients'.*client, director"):
        lab.host("clients")


def test_second_layout_needs_the_first_to_go(kernel: Kernel, lab: Lab) -> None:
    with pytest.raises(LabError, match="stands already"):
        kernel.lay_out()
    lab.host("client").run("true").check()
