"""From a check's YAML to the value that its probe runs from."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from pydantic import TypeAdapter, ValidationError

from director.kit.checks.agent import AgentProbe
from director.kit.checks.base import Tls
from director.kit.checks.check import AnyCheckSection, CheckSection, Probe, resolve
from director.kit.checks.http import HttpProbe
from director.kit.checks.mail import MailProbe, MailProtocol
from director.kit.checks.mysql import MysqlProbe
from director.kit.checks.postgresql import PostgresqlProbe
from director.kit.checks.redis import RedisProbe
from director.kit.checks.tcp import TcpProbe
from director.kit.net import Endpoint

pytestmark = pytest.mark.unit

SECTION: TypeAdapter[AnyCheckSection] = TypeAdapter(CheckSection)
SHA = "sha256:" + "0123456789ABCDEF" * 4


def _probe(keys: dict[str, object]) -> Probe:
    return resolve(SECTION.validate_python(keys), (), Endpoint(ip_address("10.0.0.1"), 80)).probe


@pytest.mark.parametrize(
    ("keys", "probe", "words"),
    [
        ({"type": "tcp"}, TcpProbe(), "tcp"),
        (
            {"type": "tcp", "send": r"A\r\n\x00", "expect": "^B$", "expect_bytes": "B"},
            TcpProbe(None, b"A\r\n\0", "^B$", b"B"),
            "tcp",
        ),
        ({"type": "tcp", "tls": True}, TcpProbe(Tls()), "tls"),
        (
            {"type": "https", "ca": "/a", "certificate": "/b", "key": "/c", "warn_expiry": "7d", "host": "h:1"},
            HttpProbe(Tls(True, "h", "/a", "/b", "/c", 604800.0, ("http/1.1",)), host="h:1"),
            "https GET /",
        ),
        (
            {"type": "https", "verify": False, "warn_expiry": "never"},
            HttpProbe(Tls(verify=False, warn_s=0.0, alpn=("http/1.1",))),
            "https GET /",
        ),
        (
            {
                "type": "http",
                "method": "POST",
                "headers": {"X-A": "b", "Accept": "c"},
                "body": "ü",
                "max_bytes": 9,
                "follow_redirects": 3,
                "expect": {"headers": {"X-B": "^c"}, "digest": SHA},
            },
            HttpProbe(
                method="POST",
                headers=(("X-A", "b"), ("Accept", "c")),
                content="ü".encode(),
                max_bytes=9,
                redirects=3,
                expect_headers=(("x-b", "^c"),),
                digest=SHA.lower(),
            ),
            "http POST /",
        ),
        ({"type": "smtp", "name": "lb.example"}, MailProbe(MailProtocol.SMTP, name="lb.example"), "smtp"),
        ({"type": "imap", "tls": "tls"}, MailProbe(MailProtocol.IMAP, Tls()), "imap over TLS"),
        (
            {"type": "pop3", "tls": "starttls", "verify": False},
            MailProbe(MailProtocol.POP3, Tls(verify=False), True),
            "pop3 with STARTTLS",
        ),
        (
            {"type": "redis", "tls": True, "role": "replica", "username": "u", "password_file": "/p"},
            RedisProbe(Tls(), "u", "/p", "replica"),
            "redis PING to a replica over TLS",
        ),
        ({"type": "postgresql", "user": "u", "database": "d"}, PostgresqlProbe(None, "u", "d"), "postgresql"),
        ({"type": "mysql"}, MysqlProbe("director"), "mysql"),
        ({"type": "agent", "send": r"web1\n"}, AgentProbe(b"web1\n"), "agent"),
    ],
)
def test_every_key_arrives(keys: dict[str, object], probe: Probe, words: str) -> None:
    assert _probe(keys) == probe
    assert str(probe) == words
    assert {probe: 1}[_probe(keys)] == 1


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"type": "tcp", "send": "x"}, "send shows nothing by itself: add `expect:`"),
        ({"type": "tcp", "expect": "("}, "is not a regular expression"),
        ({"type": "tcp", "verify": False}, "verify belongs to TLS: add `tls: true`, or remove it"),
        ({"type": "smtp", "ca": "/a", "verify": True}, "verify and ca belong to TLS: add `tls: starttls`"),
        ({"type": "smtp", "name": "a b"}, "is not a host name"),
        ({"type": "tcp", "tls": True, "key": "/k"}, "key is of no use alone: add `certificate:`"),
        ({"type": "tcp", "tls": True, "ca": "/c", "verify": False}, "ca has no use with `verify: false`"),
        ({"type": "tcp", "tls": True, "ca": "c.pem"}, "is not the full path of a file: begin with /"),
        ({"type": "tcp", "tls": True, "warn_expiry": 5}, "5 has no unit"),
        ({"type": "tcp", "tls": True, "warn_expiry": "always"}, "is not a duration"),
        ({"type": "redis", "username": "u"}, "username is of no use alone: add `password_file:`"),
        ({"type": "redis", "password_file": "p"}, "is not the full path"),
        ({"type": "redis", "role": "slave"}, "'master' or 'replica'"),
        ({"type": "postgresql", "user": "a\0b"}, "cannot be sent: write 1 to 128 printable characters"),
        ({"type": "postgresql", "database": ""}, "cannot be sent"),
        ({"type": "mysql", "user": "u" * 81}, "at most 80"),
        ({"type": "mysql", "sentinel": True}, "has no connection to keep: remove it"),
        ({"type": "imap", "sentinel": True}, "has no connection to keep: remove it"),
        ({"type": "postgresql", "sentinel": True}, "has no connection to keep: remove it"),
        ({"type": "agent", "sentinel": True}, "has no connection to keep: remove it"),
        ({"type": "agent", "send": r"\q"}, "is not an escape"),
        ({"type": "http", "method": "get"}, "'GET', 'HEAD'"),
        ({"type": "http", "method": "CONNECT"}, "'GET', 'HEAD'"),
        ({"type": "http", "body": "x"}, "body is not sent with GET: add `method: POST`"),
        ({"type": "http", "method": "POST", "body": "\ud800"}, "cannot be sent as UTF-8"),
        ({"type": "http", "method": "POST", "body": "x" * 65537}, "send at most 64 KiB"),
        ({"type": "http", "method": "HEAD", "expect": {"body": "x"}}, "an answer to HEAD has no body"),
        ({"type": "http", "headers": {"Connection": "close"}}, "cannot be set: how long the connection lasts"),
        ({"type": "http", "headers": {"content-length": "5"}}, "cannot be set: it follows from `body:`"),
        ({"type": "http", "headers": {"TRANSFER-ENCODING": "chunked"}}, "cannot be set: the length of the body"),
        ({"type": "http", "headers": {"Host": "x"}}, "has a key of its own: write `host:`"),
        ({"type": "http", "headers": {"X": "a\r\nY: b"}}, "has control characters"),
        ({"type": "http", "headers": {"X": "a\0"}}, "has control characters"),
        ({"type": "http", "headers": {"X Y": "a"}}, "is not the name of a header"),
        ({"type": "http", "headers": {"X-A": "a", "x-a": "b"}}, "stands here twice, in other letters"),
        ({"type": "http", "expect": {"headers": {"X": "("}}}, "is not a regular expression"),
        ({"type": "http", "expect": {"headers": {"X:": "a"}}}, "is not the name of a header"),
        (
            {"type": "http", "expect": {"digest": "sha256:12"}},
            "is not a digest: write sha256: and 64 hexadecimal digits",
        ),
        ({"type": "http", "expect": {"digest": "crc32:12345678"}}, "is not a digest"),
        ({"type": "http", "max_bytes": 0}, "greater than or equal to 1"),
        ({"type": "http", "max_bytes": 2**25}, "less than or equal to"),
        ({"type": "http", "follow_redirects": 11}, "less than or equal to 10"),
    ],
)
def test_what_cannot_work_says_what_to_do(keys: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        _probe(keys)
    assert words in str(caught.value)
