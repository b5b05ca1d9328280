"""Checks of Redis, PostgreSQL and MariaDB against these servers themselves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from director.kit.checks.base import Route, Tls
from director.kit.checks.check import Check
from director.kit.checks.mysql import MysqlProbe
from director.kit.checks.postgresql import PostgresqlProbe
from director.kit.checks.redis import RedisProbe
from director.kit.errors import ProbeError
from director.kit.net import Endpoint
from director.kit.probes.run import run_check
from tests.director.kit.probes.asking import LOOPBACK, ask, said
from tests.director.kit.probes.servers import free_ports, needed, opened_to, running

pytestmark = pytest.mark.unit

# Redis


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[tuple[int, int]]:
    """A master's port, and the port of a replica of it that speaks TLS and wants the password `s3cret`."""
    program = needed("redis-server", "redis-server")
    folders = [tmp_path_factory.mktemp("redis"), tmp_path_factory.mktemp("redis")]
    plain, secured = free_ports(2)
    tls = [f"--tls-port {secured} --port 0 --tls-auth-clients no --requirepass s3cret --replicaof 127.0.0.1 {plain}"]
    tls += [f"--tls-cert-file {certificate[0]} --tls-key-file {certificate[1]} --tls-ca-cert-file {certificate[0]}"]
    common = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with (
        running([program, *common, "--port", str(plain)], folders[0], [plain]),
        running([program, *common, *" ".join(tls).split()], folders[1], [secured]),
    ):
        yield plain, secured


def _password(tmp_path: Path, text: str) -> str:
    path = tmp_path / "password"
    path.write_text(text)
    return str(path)


def test_redis_answers_ping(redis: tuple[int, int]) -> None:
    assert said(redis[0], RedisProbe()) == (True, "PONG")
    assert said(redis[0], RedisProbe(role="master")) == (True, "PONG from a master")
    assert said(redis[0], RedisProbe(role="replica")) == (False, "it is a master, expected a replica")


def test_redis_with_a_password_over_tls(redis: tuple[int, int], certificate: tuple[Path, Path], tmp_path: Path) -> None:
    tls = Tls(ca=str(certificate[0]))
    wanted = "the answer to PING is NOAUTH Authentication required.: add password_file"
    assert said(redis[1], RedisProbe(tls)) == (False, wanted)
    right = _password(tmp_path, "s3cret\n")
    assert said(redis[1], RedisProbe(tls, None, right, "replica")) == (True, "PONG from a replica")
    assert said(redis[1], RedisProbe(tls, "default", right)) == (True, "PONG")
    wrong = _password(tmp_path, "guessed")
    ok, reason = said(redis[1], RedisProbe(tls, None, wrong))
    assert not ok
    assert reason.startswith("the answer to AUTH is WRONGPASS")
    assert "guessed" not in reason + str(RedisProbe(tls, None, wrong)) + repr(RedisProbe(tls, None, wrong))


@pytest.mark.parametrize("text", ["", "\n", "x" * 5000])
def test_a_file_without_a_password_is_this_hosts_fault(redis: tuple[int, int], tmp_path: Path, text: str) -> None:
    with pytest.raises(ProbeError, match="has no password: write it on the first line"):
        ask(redis[0], RedisProbe(password_file=_password(tmp_path, text)))


def test_a_file_that_is_not_there_is_this_hosts_fault(redis: tuple[int, int], tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="cannot be read: No such file or directory: put it there"):
        ask(redis[0], RedisProbe(password_file=str(tmp_path / "none")))


# PostgreSQL


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[tuple[int, Path]]:
    """A server's port and its log: `anyone` needs a password, `friend` none, and nobody else may come."""
    program = needed("postgres", "postgresql")
    folder = tmp_path_factory.mktemp("postgresql")
    user = "postgres" if os.getuid() == 0 else None  # it refuses to run as root
    if user:
        opened_to(user, folder)
    data = folder / "data"
    keys = [folder / "server.crt", folder / "server.key"]
    for source, copy in zip(certificate, keys, strict=True):
        shutil.copy(source, copy)
        copy.chmod(0o600)
    if user:
        for path in keys:
            shutil.chown(path, user)
    init = [needed("initdb", "postgresql"), "-D", str(data), "-U", "friend", "--no-sync", "-A", "trust"]
    subprocess.run(init, check=True, capture_output=True, user=user, cwd=folder)
    (data / "pg_hba.conf").write_text("host all anyone all scram-sha-256\nhost all friend all trust\n")
    (port,) = free_ports(1)
    options = {"port": str(port), "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
    options |= {"ssl": "on", "ssl_cert_file": str(keys[0]), "ssl_key_file": str(keys[1]), "max_connections": "10"}
    command = [program, "-D", str(data), *(f"-c{name}={value}" for name, value in options.items())]
    with running(command, folder, [port], user) as log:
        yield port, log


def test_postgresql_takes_sessions(postgresql: tuple[int, Path], certificate: tuple[Path, Path]) -> None:
    port, log = postgresql
    _wait_until_ready(port)
    before = log.read_text()
    tls = Tls(ca=str(certificate[0]))
    assert said(port, PostgresqlProbe(user="friend")) == (True, "takes sessions")
    assert said(port, PostgresqlProbe(tls, user="friend")) == (True, "takes sessions")
    assert said(port, PostgresqlProbe(user="anyone")) == (True, "takes sessions, asks for a password")
    assert log.read_text() == before  # it would tell of clients that vanish
    assert said(port, PostgresqlProbe(tls, user="anyone")) == (True, "takes sessions, asks for a password")
    ok, reason = said(port, PostgresqlProbe())
    assert ok
    assert reason.startswith('takes sessions, though not this one: no pg_hba.conf entry for host "127.0.0.1"')
    assert said(port, PostgresqlProbe(user="friend", database="none"))[1].endswith('database "none" does not exist')
    ok, reason = said(port, PostgresqlProbe(Tls()))
    assert (ok, reason) == (False, "certificate: self-signed certificate")


def _wait_until_ready(port: int) -> None:
    ends_at = time.monotonic() + 10
    while not (result := ask(port, PostgresqlProbe(user="friend"))).ok:
        assert "57P03" in result.reason  # the database system is starting up
        assert time.monotonic() < ends_at
        time.sleep(0.02)


def test_postgresql_that_is_full_is_not_ready(postgresql: tuple[int, Path]) -> None:
    _wait_until_ready(postgresql[0])
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            session = stack.enter_context(socket.create_connection(("127.0.0.1", postgresql[0]), timeout=5))
            body = struct.pack(">I", 196608) + b"user\0friend\0database\0postgres\0\0"
            session.sendall(struct.pack(">I", 4 + len(body)) + body)
            assert session.recv(1) == b"R"
        ok, reason = said(postgresql[0], PostgresqlProbe(user="friend"))
    assert not ok
    assert reason.endswith("(53300)")


# MariaDB

_SMALL = ("--innodb-log-file-size=4M", "--innodb-data-file-path=ibdata1:12M:autoextend", "--innodb-buffer-pool-size=8M")


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """A server's port and its log. `friend` may come without a password."""
    program = needed("mariadbd", "mariadb-server-core")
    folder = tmp_path_factory.mktemp("mariadb")
    user = ["--user=root"] if os.getuid() == 0 else []
    data = folder / "data"
    (data / "mysql").mkdir(parents=True)
    # What mariadb-install-db does; that needs the client's package.
    tables = ["system_tables", "performance_tables", "system_tables_data"]
    script = ["use mysql;\n", *(Path(f"/usr/share/mysql/mysql_{name}.sql").read_text() for name in tables)]
    making = [program, "--no-defaults", "--bootstrap", f"--datadir={data}", *_SMALL, *user]
    subprocess.run(making, check=True, capture_output=True, input="".join(script).encode())
    (port,) = free_ports(1)
    (folder / "init.sql").write_text("CREATE USER friend@'%';\nSET GLOBAL max_connect_errors = 3;\n")
    options = [f"--datadir={data}", f"--port={port}", "--bind-address=*", "--max-connections=10", *user]
    options += [
        f"--socket={folder}/socket",
        f"--init-file={folder}/init.sql",
        "--innodb-flush-log-at-trx-commit=0",
        *_SMALL,
    ]
    with running([program, "--no-defaults", *options], folder, [port]) as log:
        yield port, log


def test_mariadb_takes_sessions(mariadb: tuple[int, Path]) -> None:
    ok, reason = said(mariadb[0], MysqlProbe("friend"))
    assert ok
    assert reason.endswith("takes sessions")
    assert reason.startswith("10.")
    ok, reason = said(mariadb[0], MysqlProbe())
    assert ok
    assert "takes sessions, though not this one: Access denied for user 'director'@" in reason


def test_mariadb_does_not_block_who_checks_it(mariadb: tuple[int, Path]) -> None:
    """Refused logins do not count; handshakes that break off do, which is why none does here."""
    source = ip_address("127.0.0.2")  # 127.0.0.1 is never blocked
    check = Check(Endpoint(LOOPBACK, mariadb[0]), MysqlProbe(), route=Route(source))
    for _ in range(10):
        assert asyncio.run(run_check(check)).ok
    for _ in range(4):
        with socket.create_connection(("127.0.0.1", mariadb[0]), 5, (str(source), 0)) as other:
            assert other.recv(1)
            other.shutdown(socket.SHUT_RDWR)
    ends_at = time.monotonic() + 10
    while (result := asyncio.run(run_check(check))).ok:  # it counts them when it notices
        assert time.monotonic() < ends_at
    assert result.reason.startswith("Host '127.0.0.2' is blocked because of many connection errors")
    assert result.reason.endswith("(1129)")


def test_mariadb_that_is_full_is_not_ready(mariadb: tuple[int, Path]) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(11):  # one more than max_connections is for an administrator
            session = stack.enter_context(socket.create_connection(("127.0.0.1", mariadb[0]), timeout=5))
            assert session.recv(1)
        assert said(mariadb[0], MysqlProbe("friend")) == (False, "Too many connections (1040)")
