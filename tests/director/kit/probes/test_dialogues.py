"""tcp, agent and the refusals of servers that take an effort to provoke, without a network."""

from __future__ import annotations

import pytest

from director.kit.checks.agent import AgentProbe
from director.kit.checks.base import Tls
from director.kit.checks.mail import MailProbe, MailProtocol
from director.kit.checks.mysql import MysqlProbe
from director.kit.checks.postgresql import PostgresqlProbe
from director.kit.checks.redis import RedisProbe
from director.kit.checks.tcp import TcpProbe
from director.kit.health import Asks
from director.kit.probes.agent import AgentDialogue, understand
from director.kit.probes.dialogue import Dialogue
from director.kit.probes.mail import mail_dialogue
from director.kit.probes.mysql import MysqlDialogue
from director.kit.probes.postgresql import PostgresqlDialogue
from director.kit.probes.redis import RedisDialogue
from director.kit.probes.tcp import TCP, tcp_dialogue
from tests.director.kit.probes.talk import talk

pytestmark = pytest.mark.unit

SMTP, IMAP, POP3 = MailProtocol


def _told(dialogue: Dialogue, *script: bytes) -> tuple[bool, str]:
    result, _ = talk(dialogue, *script)
    assert result is not None
    return result.ok, result.reason


GOOD = (True, "the answer is as expected")


@pytest.mark.parametrize(
    ("probe", "heard", "told"),
    [
        (TcpProbe(pattern="PO+NG"), b"+PONG", GOOD),
        (TcpProbe(pattern="^ok$"), b"not ok\r\nok\r\n", GOOD),
        (TcpProbe(pattern="^ok$"), b"no\nok", GOOD),
        (TcpProbe(pattern=r"\bup\b"), b"set\nup-to-date\n", GOOD),
        (TcpProbe(pattern="[$]5"), b"costs $5", GOOD),
        (TcpProbe(begins=b"\x00\xff"), b"\x00\xff\x01", GOOD),
        (TcpProbe(begins=b"+OK", pattern="2"), b"+OK 2", GOOD),
        (TcpProbe(begins=b"220"), b"22", (False, "the answer does not begin with '220': it begins with '22'")),
        (TcpProbe(begins=b"220"), b"421 x", (False, "the answer does not begin with '220': it begins with '421 x'")),
        (TcpProbe(pattern="ok$"), b"okay\n", (False, "the answer does not match 'ok$': it begins with 'okay\\n'")),
        (TcpProbe(pattern="^ok"), b"", (False, "connection closed before an answer")),
        (
            TcpProbe(pattern="y"),
            b"x" * 65536 + b"y",
            (False, f"the answer does not match 'y': it begins with '{'x' * 40}'"),
        ),
    ],
)
def test_tcp_answer_is_judged(probe: TcpProbe, heard: bytes, told: tuple[bool, str]) -> None:
    assert _told(tcp_dialogue(probe), heard) == told


def test_connection_alone_takes_no_dialogue_of_its_own() -> None:
    assert tcp_dialogue(TcpProbe()) is TCP
    assert getattr(tcp_dialogue(TcpProbe(Tls())).opened(), "reason", None) == "connected, TLS stands"


@pytest.mark.parametrize(
    ("line", "ok", "percent", "asks", "reason"),
    [
        (b"75%", True, 75, None, "the agent says 75%"),
        (b"up 50%\r", True, 50, None, "the agent says up 50%"),
        (b"0%", True, None, Asks.DRAIN, "the agent says 0%"),
        (b"250%", True, 100, None, "the agent says 250%"),
        (b"ready", True, None, None, "the agent says ready"),
        (b"drain", True, None, Asks.DRAIN, "the agent says drain"),
        (b"MAINT, 30%", True, 30, Asks.MAINTENANCE, "the agent says maint 30%"),
        (b"maint ready", True, None, None, "the agent says maint ready"),
        (b"down", False, None, None, "the agent says down"),
        (b"down#disk full", False, None, None, "the agent says down: disk full"),
        (b"failed #\x1b[31mno\tdisk", False, None, None, "the agent says failed: ?[31mno disk"),
        (b"fail", False, None, None, "the agent says fail"),
        (b"stopped", False, None, None, "the agent says stopped"),
        (b"down up", True, None, None, "the agent says down up"),
        (b"maxconn:30 up", True, None, None, "the agent says maxconn:30 up (maxconn is ignored)"),
        (b"later 10%", True, 10, None, "the agent says 10%"),
        (b"", False, None, None, "the agent says nothing that is known: ''"),
        (b"HTTP/1.1 200 OK", False, None, None, "the agent says nothing that is known: 'HTTP/1.1 200 OK'"),
        (b"# up", False, None, None, "the agent says nothing that is known: '# up'"),
        (b"5", False, None, None, "the agent says nothing that is known: '5'"),
    ],
)
def test_agents_line(line: bytes, ok: bool, percent: int | None, asks: Asks | None, reason: str) -> None:
    result = understand(line)
    assert (result.ok, result.percent, result.asks, result.reason) == (ok, percent, asks, reason)


def test_agents_first_line_counts() -> None:
    result, said = talk(AgentDialogue(AgentProbe(b"web1\n")), b"drain\ndown\n")
    assert said == b"web1\n"
    assert result is not None
    assert result.asks is Asks.DRAIN
    assert _told(AgentDialogue(AgentProbe()), b"up") == (True, "the agent says up")
    assert _told(AgentDialogue(AgentProbe()), b"up " * 2000) == (False, "the agent's line does not end within 4 KiB")


@pytest.mark.parametrize(
    ("probe", "heard", "told"),
    [
        (MailProbe(SMTP), b"421 4.3.2 busy\r\n", (False, "the greeting is 421 4.3.2 busy")),
        (MailProbe(SMTP), b"220-a\r\n220 b\r\n", (False, "connection closed before the answer to EHLO")),
        (MailProbe(SMTP), b"220 a\r\n502 b\r\n250 c\r\n", (True, "greeted")),
        (MailProbe(SMTP), b"220 a\r\n550 go away\r\n550 no\r\n", (False, "the answer to HELO is 550 no")),
        (MailProbe(SMTP, Tls(), True), b"220 a\r\n250 b\r\n", (False, "STARTTLS is not offered")),
        (
            MailProbe(SMTP, Tls(), True),
            b"220 a\r\n250-b\r\n250 starttls\r\n454 no key\r\n",
            (False, "the answer to STARTTLS is 454 no key"),
        ),
        (
            MailProbe(SMTP, Tls(), True),
            b"220 a\r\n250 STARTTLS\r\n220 go\r\n250 injected\r\n",
            (False, "more was said in clear text behind the answer to STARTTLS"),
        ),
        (MailProbe(IMAP), b"* BYE full\r\n", (False, "the greeting is BYE full")),
        (MailProbe(IMAP), b"* PREAUTH x\r\n", (True, "greeted")),
        (MailProbe(IMAP, Tls(), True), b"* OK x\r\na BAD what\r\n", (False, "the answer to STARTTLS is BAD what")),
        (MailProbe(POP3), b"-ERR locked\r\n", (False, "the greeting is -ERR locked")),
        (MailProbe(POP3, Tls(), True), b"+OK\r\n-ERR no\r\n", (False, "the answer to STARTTLS is -ERR no")),
        (MailProbe(SMTP), b"SSH-2.0-x\r\n", (False, "the greeting is not SMTP: it begins with 'SSH-2.0-x'")),
        (RedisProbe(), b"-LOADING in memory\r\n", (False, "the answer to PING is LOADING in memory")),
        (RedisProbe(), b"HTTP/1.1 400\r\n", (False, "the answer to PING is not Redis: it begins with 'HTTP/1.1 400'")),
        (
            RedisProbe(role="master"),
            b"+PONG\r\n*5\r\n$5\r\nslave\r\n",
            (False, "it is a replica, expected a master"),
        ),
        (RedisProbe(role="master"), b"+PONG\r\n-NOPERM x\r\n", (False, "the answer to ROLE is NOPERM x")),
        (
            PostgresqlProbe(),
            b"E\x00\x00\x00\x21SFATAL\0C57P03\0Mis starting up\0\0",
            (False, "is starting up (57P03)"),
        ),
        (PostgresqlProbe(), b"EFATAL: out of memory\n\0", (False, "FATAL: out of memory")),
        (PostgresqlProbe(Tls()), b"N", (False, "TLS is not offered")),
        (
            PostgresqlProbe(Tls()),
            b"SR",
            (False, "more was said in clear text behind the answer to SSLRequest"),
        ),
        (
            PostgresqlProbe(),
            b"HTTP/1.1 400",
            (False, "the answer is not PostgreSQL: it begins with 'HTTP/1.1 400'"),
        ),
        (MysqlProbe(), b"\x07\0\0\0\xff\x10\x04full", (False, "full (1040)")),
        (MysqlProbe(), b"\x07\0\0\0\x0a8.4\0xx", (False, "connection closed before the outcome of the login")),
        (MysqlProbe(), b"220 mail\r\n", (False, "the answer is not MySQL: it begins with '220 mail\\r\\n'")),
    ],
)
def test_refusal_is_the_reason(
    probe: MailProbe | RedisProbe | PostgresqlProbe | MysqlProbe, heard: bytes, told: tuple[bool, str]
) -> None:
    dialogue: Dialogue
    match probe:
        case MailProbe():
            dialogue = mail_dialogue(probe)
        case RedisProbe():
            dialogue = RedisDialogue(probe, lambda _: b"")
        case PostgresqlProbe():
            dialogue = PostgresqlDialogue(probe)
        case MysqlProbe():
            dialogue = MysqlDialogue(probe)
    assert _told(dialogue, heard) == told


def test_mysql_is_answered_in_full() -> None:
    """Greeting, a request for another way to log in, OK: each is answered, and the session is ended."""
    greeting, switch, ok = b"\x07\0\0\0\x0a8.4\0xx", b"\x03\0\0\x02\xfex\0", b"\x07\0\0\x04\0\0\0\2\0\0\0"
    result, said = talk(MysqlDialogue(MysqlProbe("me")), greeting + switch + ok)
    assert result is not None
    assert (result.ok, result.reason) == (True, "8.4 takes sessions")
    login, end = said[:4], said[4 + said[0] :]
    assert login[3] == 1
    assert b"me\0\0mysql_native_password\0" in said
    assert end == b"\0\0\0\x03" + b"\x01\0\0\0\x01"
