"""The dns probe: a question over UDP or TCP, and whether its answer is as expected.

One rule: messages are made and read by dnspython; the socket is ours. What is no answer to this question is ignored
over UDP, where anybody may send it, and a failure over TCP, where only the server can.
"""

from __future__ import annotations

import errno
import struct
from functools import lru_cache
from typing import TYPE_CHECKING

from director.kit.checks.check import Check
from director.kit.checks.dns import DnsProbe
from director.kit.checks.payload import shown_bytes
from director.kit.health import ProbeResult
from director.kit.probes.datagrams import Asked, open_datagram
from director.kit.probes.dialogue import MOST_HEARD_BYTES, Step

if TYPE_CHECKING:
    from dns.message import Message

MOST_ANSWER_BYTES = 4096
MOST_RECORDS = 64
"""A longer answer is not read: names that point to the longest name there is take a millisecond each."""
MOST_SHOWN = 3
_HEADER_BYTES = 12


async def probe_dns(check: Check, probe: DnsProbe) -> ProbeResult:
    """Ask over UDP.

    Raises: OSError, ProbeError.
    """
    question = make_question(probe)
    with open_datagram(check) as peer:
        asked = Asked(
            peer, question.to_wire(), lambda packet: judge_packet(probe, question, packet), check.timing.timeout_s
        )
        answer = await asked.answer()
    return answer or ProbeResult(False, asked.silence(), errno=errno.ETIMEDOUT)


class DnsDialogue:
    """The same question over TCP: each message behind its length (RFC 1035 4.2.2)."""

    most_heard_bytes = MOST_HEARD_BYTES

    def __init__(self, probe: DnsProbe) -> None:
        self._probe = probe
        self._question = make_question(probe)
        self._heard = b""

    def opened(self) -> Step:
        wire = self._question.to_wire()
        return struct.pack("!H", len(wire)) + wire

    def heard(self, data: bytes) -> Step:
        self._heard += data
        if len(self._heard) < 2:
            return b""
        length = int.from_bytes(self._heard[:2])
        if _HEADER_BYTES <= length <= MOST_ANSWER_BYTES and len(self._heard) < 2 + length:
            return b""
        judged = judge_packet(self._probe, self._question, self._heard[2 : 2 + length], length)
        return judged if isinstance(judged, ProbeResult) else ProbeResult(False, f"answered with {judged}")

    def secured(self) -> Step:
        return b""

    def ended(self) -> ProbeResult:
        return ProbeResult(False, "connection closed before an answer")


def make_question(probe: DnsProbe) -> Message:
    """A new message, with an id of its own."""
    import dns.flags
    import dns.message

    return dns.message.make_query(
        probe.name, probe.record, use_edns=False, flags=int(dns.flags.RD) if probe.recursion else 0
    )


def judge_packet(probe: DnsProbe, question: Message, packet: bytes, length: int | None = None) -> ProbeResult | str:
    """What a packet of `length` bytes amounts to; a string says why it is no answer to `question`."""
    import dns.exception
    import dns.message

    length = len(packet) if length is None else length
    if length < _HEADER_BYTES:
        return f"{shown_bytes(packet)}, which is no DNS message"
    if int.from_bytes(packet[:2]) != question.id:
        return "a message with another id"
    if length > MOST_ANSWER_BYTES:
        return f"a message of {length} bytes, more than {MOST_ANSWER_BYTES}"
    questions, records = struct.unpack_from("!HH", packet, 4)
    if questions > 1:
        return f"a message of {questions} questions"
    if records > MOST_RECORDS:
        return f"a message of {records} records, more than {MOST_RECORDS}"
    # Only the answer section is of interest: the other ones are left out.
    cut = packet[:8] + bytes(4) + packet[_HEADER_BYTES:]
    try:
        answer = dns.message.from_wire(cut, ignore_trailing=True, raise_on_truncation=False)
    except (dns.exception.DNSException, ValueError, struct.error) as error:
        return f"{shown_bytes(packet)}, which is no DNS message ({str(error) or type(error).__name__})"
    if not question.is_response(answer):
        return "a message that answers another question"
    return _judged(probe, answer)


def _judged(probe: DnsProbe, answer: Message) -> ProbeResult:
    import dns.flags
    import dns.rcode

    rcode = dns.rcode.to_text(answer.rcode())
    if rcode not in probe.rcodes:
        return ProbeResult(False, f"{rcode}, expected {' or '.join(probe.rcodes)}")
    found = _records(answer)
    texts = sorted(found.values())
    said = f"{rcode}, {_listed(texts) or 'no'} {probe.record}" if texts or probe.some else rcode
    cut = " (truncated: use `transport: tcp`)" if answer.flags & dns.flags.TC and not probe.tcp else ""
    if probe.answers:
        lacking = [text for text in probe.answers if _digest(probe.record, text) not in found]
        if lacking and (probe.every or len(lacking) == len(probe.answers)):
            which = "" if len(probe.answers) == 1 else "all of " if probe.every else "one of "
            return ProbeResult(False, f"{said}, expected {which}{_listed(probe.answers)}{cut}")
    elif probe.some and not texts:
        return ProbeResult(False, f"{rcode}, but no {probe.record} record of {probe.name}{cut}")
    return ProbeResult(True, said)


def _records(answer: Message) -> dict[bytes, str]:
    """The answer's records of the asked type, at the end of its chain of aliases: what they mean, and their text."""
    import dns.exception
    import dns.message

    try:
        chained = answer.resolve_chaining().answer if isinstance(answer, dns.message.QueryMessage) else None
        return {data.to_digestable(): data.to_text() for data in chained or ()}
    except (dns.exception.DNSException, ValueError):
        return {}


@lru_cache(maxsize=1024)
def _digest(record: str, text: str) -> bytes:
    """What a record means: its names are the same in any case."""
    import dns.rdata
    import dns.rdataclass

    return dns.rdata.from_text(dns.rdataclass.IN, record, text).to_digestable()


def _listed(texts: list[str] | tuple[str, ...]) -> str:
    shown = [text if len(text) <= 60 else text[:57] + "..." for text in texts[:MOST_SHOWN]]
    return ", ".join(shown) + (f" and {len(texts) - MOST_SHOWN} more" if len(texts) > MOST_SHOWN else "")
