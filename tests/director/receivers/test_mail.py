"""E-mail through a real SMTP server on the loopback address."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from director.core.event import Event, EventKind
from director.core.notifying import Mail, MailTls, Trust
from director.receivers.delivery import deliver
from director.receivers.failure import NotDeliveredError

pytestmark = pytest.mark.unit

EVENTS = [
    Event(1e9, EventKind.HEALTH, "web", "a", "up", "down", "refused"),
    Event(1e9 + 1, EventKind.QUORUM, "web", was="kept", now="lost"),
]


class Relay:
    """Keeps what it takes; `refuses` a recipient, or answers `says` to the content."""

    def __init__(self) -> None:
        self.taken: list[tuple[Envelope, Session]] = []
        self.refuses = ""
        self.says = "250 OK"

    async def handle_RCPT(self, _: SMTP, __: Session, envelope: Envelope, address: str, ___: list[str]) -> str:  # noqa: N802
        if address == self.refuses:
            return "550 unknown"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.taken.append((envelope, session))
        return self.says

    def authenticate(self, _: SMTP, __: Session, ___: Envelope, ____: str, given: Any) -> AuthResult:
        good = isinstance(given, LoginPassword) and (given.login, given.password) == (b"director", b"hidden")
        return AuthResult(success=good, handled=False)


@asynccontextmanager
async def serving(relay: Relay, tls: ssl.SSLContext | None = None, **more: Any) -> AsyncIterator[Mail]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(relay, hostname="relay", loop=loop, authenticator=relay.authenticate, **more),
        "127.0.0.1",
        0,
        ssl=tls,
    )
    async with server:
        yield Mail("127.0.0.1", server.sockets[0].getsockname()[1], "director@example.org", ("ops@example.org",))


@asynccontextmanager
async def raw(answer: bytes) -> AsyncIterator[Mail]:
    """A peer that says `answer` and then nothing."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.CancelledError):
            writer.write(answer)
            await asyncio.sleep(20)
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield Mail("127.0.0.1", server.sockets[0].getsockname()[1], "d@example.org", ("o@example.org",), timeout_s=0.5)


def run(story: Awaitable[None]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await story

    asyncio.run(main())


async def fails(mail: Mail) -> str:
    with pytest.raises(NotDeliveredError) as caught:
        await deliver(mail, EVENTS)
    assert "hidden" not in str(caught.value)
    return str(caught.value)


def content(relay: Relay) -> EmailMessage:
    ((envelope, _),) = relay.taken
    assert isinstance(envelope.content, bytes)
    found = message_from_bytes(envelope.content, policy=policy.default)
    assert isinstance(found, EmailMessage)
    return found


def test_a_mail_has_sentences_and_the_json() -> None:
    relay = Relay()

    async def story() -> None:
        async with serving(relay) as mail:
            await deliver(replace(mail, recipients=("ops@example.org", "boss@example.org")), EVENTS)

    run(story())
    ((envelope, _),) = relay.taken
    assert (envelope.mail_from, envelope.rcpt_tos) == ("director@example.org", ["ops@example.org", "boss@example.org"])
    found = content(relay)
    assert found["To"] == "ops@example.org, boss@example.org"
    assert "] 2 events: 1 health, 1 quorum" in found["Subject"]
    assert found["Auto-Submitted"] == "auto-generated"
    assert found["Date"]
    assert found["Message-ID"].endswith("@example.org>")
    body = found.get_body()
    assert body is not None
    assert [line.partition("  ")[2] for line in body.get_content().splitlines()] == [
        "web/a: health up -> down: refused",
        "web: quorum kept -> lost",
    ]
    (attached,) = found.iter_attachments()
    assert attached.get_filename() == "events.jsonl"
    assert [json.loads(line) for line in attached.get_content().splitlines()] == [event.plain() for event in EVENTS]


def test_the_subject_of_one_event_is_its_sentence_and_holds_no_header() -> None:
    relay = Relay()
    odd = replace(EVENTS[0], reason="no\r\nBcc: all@example.org\r\n\r\nä" + "x" * 500)

    async def story() -> None:
        async with serving(relay) as mail:
            await deliver(mail, [odd])

    run(story())
    found = content(relay)
    assert "web/a: health up -> down: no\\r\\nBcc:" in found["Subject"]
    assert found["Bcc"] is None


def test_thousands_of_events_are_one_mail_of_bounded_text() -> None:
    relay = Relay()

    async def story() -> None:
        async with serving(relay) as mail:
            await deliver(mail, EVENTS * 1000)

    run(story())
    body = content(relay).get_body()
    assert body is not None
    assert len(body.get_content().splitlines()) == 201
    (attached,) = content(relay).iter_attachments()
    assert len(attached.get_content().splitlines()) == 2000


def test_tls_from_the_start_and_later_and_whom_it_trusts(certificate: str, server_tls: ssl.SSLContext) -> None:
    async def story() -> None:
        for tls in (MailTls.TLS, MailTls.STARTTLS):
            relay = Relay()
            more = {"tls_context": server_tls} if tls is MailTls.STARTTLS else {}
            async with serving(relay, server_tls if tls is MailTls.TLS else None, **more) as plain:
                mail = replace(plain, tls=tls)
                assert "certificate verify failed" in await fails(mail)
                await deliver(replace(mail, trust=Trust(ca_file=certificate)), EVENTS)
                await deliver(replace(mail, trust=Trust(verify=False)), EVENTS)
            assert len(relay.taken) == 2

    run(story())


def test_starttls_that_the_relay_does_not_know_is_no_mail_in_clear() -> None:
    relay = Relay()

    async def story() -> None:
        async with serving(relay) as mail:
            assert "STARTTLS" in await fails(replace(mail, tls=MailTls.STARTTLS))

    run(story())
    assert not relay.taken


def test_a_login_is_made_with_the_password_of_its_file(tmp_path: Path, server_tls: ssl.SSLContext) -> None:
    relay = Relay()
    secret = tmp_path / "password"

    async def story() -> None:
        async with serving(relay, tls_context=server_tls, auth_required=True) as plain:
            mail = replace(plain, tls=MailTls.STARTTLS, trust=Trust(verify=False))
            assert "Authentication required" in await fails(mail)
            mail = replace(mail, username="director", password_file=str(secret))
            assert "No such file" in await fails(mail)
            secret.write_text("hidden too\n")
            assert "Authentication credentials invalid" in await fails(mail)
            secret.write_text("hidden\n")
            await deliver(mail, EVENTS)

    run(story())
    assert len(relay.taken) == 1


def test_what_the_relay_does_not_take_is_told(caplog: pytest.LogCaptureFixture) -> None:
    relay = Relay()

    async def story() -> None:
        async with serving(relay) as mail:
            relay.says = "451 later\x1b"
            assert await fails(mail) == "the relay answered 451: later\\x1b"
            relay.says, relay.refuses = "250 OK", "ops@example.org"
            assert await fails(mail) == "no recipient was taken: ops@example.org: 550 unknown"
            await deliver(replace(mail, recipients=("ops@example.org", "boss@example.org")), EVENTS)

    run(story())
    assert [record.getMessage() for record in caplog.records] == ["the relay refused a recipient"]


@pytest.mark.parametrize(
    "answer",
    [b"", b"220-x\r\n" * 100_000, b"x" * 1_000_000, b"HTTP/1.1 400 Bad\r\n\r\n", b"554 no\r\n", b"\xff\xff\r\n"],
)
def test_a_hostile_relay_is_a_bounded_sentence_in_time(answer: bytes) -> None:
    async def story() -> None:
        async with raw(answer) as mail:
            began = time.monotonic()
            error = await fails(mail)
            assert time.monotonic() - began < 3
        assert 0 < len(error) <= 300
        assert error.isprintable()

    run(story())


def test_nobody_there_is_told() -> None:
    async def story() -> None:
        async with raw(b"") as mail:
            pass
        assert "onnect" in await fails(mail)

    run(story())
