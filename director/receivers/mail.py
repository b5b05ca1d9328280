"""A notification by e-mail: sentences for people, and the events' JSON as an attachment for programs."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid

import aiosmtplib

from director.core.event import Event, sentence
from director.core.notifying import Mail, MailTls, summary
from director.receivers.failure import NotDeliveredError, one_line, read_secret, reason, tls_context

log = logging.getLogger(__name__)

AT_ONCE = 2000
MOST_LINES = 200
MOST_SUBJECT = 150


async def send(mail: Mail, events: Sequence[Event]) -> None:
    """What the relay takes for at least one recipient is an arrival. Raises: NotDeliveredError."""
    try:
        async with asyncio.timeout(mail.timeout_s):
            await _send(mail, events)
    except TimeoutError as error:
        raise NotDeliveredError(f"not taken within {mail.timeout_s:g}s") from error
    except aiosmtplib.SMTPRecipientsRefused as error:
        said = "; ".join(f"{each.recipient}: {each.code} {each.message}" for each in error.recipients)
        raise NotDeliveredError(f"no recipient was taken: {one_line(said)}") from error
    except aiosmtplib.SMTPResponseException as error:
        raise NotDeliveredError(f"the relay answered {error.code}: {one_line(error.message)}") from error
    except (aiosmtplib.SMTPException, OSError, ValueError) as error:
        raise NotDeliveredError(reason(error)) from error


async def _send(mail: Mail, events: Sequence[Event]) -> None:
    def prepare() -> tuple[EmailMessage, str | None, ssl.SSLContext | None]:
        password = read_secret(mail.password_file) if mail.password_file else None
        return message(mail, events), password, None if mail.tls is MailTls.NONE else tls_context(mail.trust)

    # In a thread: certificates and secrets are on a disk, and thousands of events take their time.
    content, password, context = await asyncio.to_thread(prepare)
    refused, _ = await aiosmtplib.send(
        content,
        sender=mail.sender,
        recipients=list(mail.recipients),
        hostname=mail.host,
        port=mail.port,
        username=mail.username,
        password=password,
        local_hostname=socket.gethostname(),  # its own guess would ask the DNS, and wait
        timeout=mail.timeout_s,
        use_tls=mail.tls is MailTls.TLS,
        start_tls=mail.tls is MailTls.STARTTLS,
        tls_context=context,
    )
    for recipient, answer in refused.items():
        log.warning("the relay refused a recipient", extra={"recipient": recipient, "reason": one_line(answer.message)})


def message(mail: Mail, events: Sequence[Event]) -> EmailMessage:
    """The mail about `events`."""
    host = socket.gethostname()
    made = EmailMessage()
    subject = sentence(events[0]) if len(events) == 1 else f"{len(events)} events: {summary(events)}"
    made["Subject"] = f"[director {host}] {subject}"[:MOST_SUBJECT]
    made["From"] = mail.sender
    made["To"] = ", ".join(mail.recipients)
    made["Date"] = format_datetime(datetime.now().astimezone())
    made["Message-ID"] = make_msgid(domain=mail.sender.rpartition("@")[2])  # without a domain it would ask the DNS
    made["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody is to answer
    lines = [f"{_when(event)}  {sentence(event)}" for event in events[:MOST_LINES]]
    if len(events) > MOST_LINES:
        lines.append(f"and {len(events) - MOST_LINES} more, in the attachment")
    made.set_content("\n".join(lines) + "\n")
    plain = "".join(f"{json.dumps(event.plain())}\n" for event in events)
    made.add_attachment(plain.encode(), maintype="application", subtype="x-ndjson", filename="events.jsonl")
    return made


def _when(event: Event) -> str:
    return datetime.fromtimestamp(event.at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
