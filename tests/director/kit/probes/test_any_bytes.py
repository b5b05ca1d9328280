"""Whatever a peer says, in whatever pieces: a dialogue ends or waits, and says the same of it."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from director.kit.checks.agent import AgentProbe
from director.kit.checks.base import Tls
from director.kit.checks.http import HttpProbe
from director.kit.checks.mail import MailProbe, MailProtocol
from director.kit.checks.mysql import MysqlProbe
from director.kit.checks.postgresql import PostgresqlProbe
from director.kit.checks.redis import RedisProbe
from director.kit.checks.tcp import TcpProbe
from director.kit.health import ProbeResult
from director.kit.probes.agent import AgentDialogue
from director.kit.probes.dialogue import Dialogue, StartTls
from director.kit.probes.http import HttpDialogue
from director.kit.probes.mail import mail_dialogue
from director.kit.probes.mysql import MysqlDialogue
from director.kit.probes.postgresql import PostgresqlDialogue
from director.kit.probes.redis import RedisDialogue
from director.kit.probes.tcp import tcp_dialogue
from tests.director.kit.probes.talk import TARGET, cut

pytestmark = pytest.mark.unit

SHA = "sha256:" + "0" * 64
ROUTES = (("content-type", "html"),)
DIALOGUES: dict[str, Callable[[], Dialogue]] = {
    "http": lambda: HttpDialogue(HttpProbe(), TARGET),
    "http kept": lambda: HttpDialogue(HttpProbe(max_bytes=30), TARGET, lasting=True),
    "http HEAD": lambda: HttpDialogue(HttpProbe(method="HEAD"), TARGET),
    "http body": lambda: HttpDialogue(HttpProbe(body="ok$", max_bytes=30), TARGET),
    "http digest": lambda: HttpDialogue(HttpProbe(digest=SHA, expect_headers=ROUTES, max_bytes=30), TARGET),
    "http redirects": lambda: HttpDialogue(HttpProbe(redirects=2), TARGET),
    "tcp": lambda: tcp_dialogue(TcpProbe(pattern="ok")),
    "tcp lines": lambda: tcp_dialogue(TcpProbe(send=b"x", pattern="^ok$")),
    "tcp begins": lambda: tcp_dialogue(TcpProbe(begins=b"+OK", pattern="2")),
    "smtp": lambda: mail_dialogue(MailProbe(MailProtocol.SMTP)),
    "smtp tls": lambda: mail_dialogue(MailProbe(MailProtocol.SMTP, Tls(), True)),
    "imap": lambda: mail_dialogue(MailProbe(MailProtocol.IMAP)),
    "imap tls": lambda: mail_dialogue(MailProbe(MailProtocol.IMAP, Tls(), True)),
    "pop3": lambda: mail_dialogue(MailProbe(MailProtocol.POP3)),
    "pop3 tls": lambda: mail_dialogue(MailProbe(MailProtocol.POP3, Tls(), True)),
    "redis": lambda: RedisDialogue(RedisProbe(role="master"), lambda _: b"secret"),
    "redis auth": lambda: RedisDialogue(RedisProbe(password_file="/x"), lambda _: b"secret"),
    "postgresql": lambda: PostgresqlDialogue(PostgresqlProbe()),
    "postgresql tls": lambda: PostgresqlDialogue(PostgresqlProbe(Tls())),
    "mysql": lambda: MysqlDialogue(MysqlProbe()),
    "agent": lambda: AgentDialogue(AgentProbe()),
}
WORDS = [
    *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 302 Found\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"\r\n", b"\n", b"\r"),
    *(b"Content-Length: 2\r\n", b"Content-Length: 9", b"Transfer-Encoding: chunked\r\n", b"Location: /x\r\n"),
    *(b"Location: ", b"Content-Type: text/html\r\n", b"Connection: close\r\n", b"2\r\nok\r\n", b"0\r\n\r\n"),
    *(b"0\r\n", b";x", b"A: b\r\n", b"220 mail ESMTP\r\n", b"250-x\r\n", b"250 STARTTLS\r\n", b"250-STARTTLS\r\n"),
    *(
        b"221 bye\r\n",
        b"421 no\r\n",
        b"502 x\r\n",
        b"* OK x\r\n",
        b"* BYE\r\n",
        b"a OK\r\n",
        b"b OK\r\n",
        b"a NO x\r\n",
    ),
    *(b"* PREAUTH\r\n", b"+OK\r\n", b"-ERR x\r\n", b"+PONG\r\n", b"-NOAUTH x\r\n", b"*3\r\n", b"$6\r\n", b"master\r\n"),
    *(b"slave\r\n", b"ok", b"ok\n", b"75%", b"drain", b"#", b"R\0\0\0\x08\0\0\0\0", b"R\0\0\0\x08\0\0\0\x0a"),
    *(b"E\0\0\0\x0cC28000\0\0", b"E\0\0\0\x0cC57P03\0\0", b"Z\0\0\0\x05I", b"S", b"N", b"E"),
    *(b"\x0b\0\0\0\x0a10.11\0xxxx", b"\x07\0\0\x02\0\0\0\0\0\0\0", b"\x05\0\0\x00\xff\x10\x04no"),
    b"\x01\0\0\x02\xfe",
]
PEER = st.lists(st.sampled_from(WORDS) | st.binary(max_size=6), max_size=14).map(b"".join) | st.binary(max_size=80)


def outcome(dialogue: Dialogue, pieces: list[bytes]) -> str:
    """What comes of a peer that says `pieces` and closes; TLS that is asked for is as if it stood."""
    step = dialogue.opened()
    for number, piece in enumerate(pieces):
        step = dialogue.heard(piece)
        if isinstance(step, StartTls) and number + 1 < len(pieces):
            return "more was said in clear text"
        if not isinstance(step, bytes):
            break
    return told(dialogue.ended() if isinstance(step, bytes) else step)


def told(step: object) -> str:
    if not isinstance(step, ProbeResult):
        return str(step)
    assert len(step.reason) < 400
    assert step.reason.isprintable()
    if "in clear text" in step.reason:
        return "more was said in clear text"
    # How much of a wrong answer there is to be quoted depends on how much of it came at once.
    return f"{step.ok} {step.percent} {step.asks} {step.reason.partition(': it begins with')[0]}"


@pytest.mark.parametrize("name", DIALOGUES)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PEER, st.lists(st.integers(0, 200), max_size=8))
@example(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", list(range(200)))
@example(b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", [40])
@example(b"+OK 1\n2", [1, 2])
def test_any_bytes_in_any_pieces_have_one_outcome(name: str, said: bytes, places: list[int]) -> None:
    make = DIALOGUES[name]
    whole = outcome(make(), [said] if said else [])
    assert outcome(make(), cut(said, places)) == whole
    assert outcome(make(), [bytes([byte]) for byte in said]) == whole


ENDLESS = [
    b"x",
    b"\n",
    b"\r\n",
    b"220-x\r\n",
    b"* OK x\r\n",
    b"HTTP/1.1 100 x\r\n\r\n",
    b"*1\r\n",
    b"N\0\0\0\4",
    b"\1\0\0\1\xfe",
]
BEGINNINGS = [
    b"",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: html\r\nTransfer-Encoding: chunked\r\n\r\n1;",
    b"* OK x\r\n",
    b"220 x\r\n",
]


@pytest.mark.parametrize("name", DIALOGUES)
def test_what_never_ends_is_not_kept(name: str) -> None:
    """At most twice what a check reads, and 64 KiB around it; the driver's own bound is beyond that."""
    for beginning in BEGINNINGS:
        for endless in ENDLESS:
            dialogue = DIALOGUES[name]()
            step = dialogue.opened()
            pieces = [beginning] if beginning else []
            for piece in [*pieces, *[endless * (4096 // len(endless))] * 400]:
                step = dialogue.heard(piece)
                if not isinstance(step, bytes):
                    break
            assert held_bytes(dialogue) < 200_000
            told(step if not isinstance(step, bytes) else dialogue.ended())


def held_bytes(value: object, depth: int = 4) -> int:
    """The size of all bytes that `value` holds on to."""
    if isinstance(value, bytes | bytearray):
        return sys.getsizeof(value)
    if isinstance(value, list | tuple):
        return sum(held_bytes(each, depth) for each in value)
    if not depth or isinstance(value, HttpProbe):
        return 0
    names = {name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())} | set(
        getattr(value, "__dict__", ())
    )
    return sum(held_bytes(getattr(value, name, None), depth - 1) for name in names)
