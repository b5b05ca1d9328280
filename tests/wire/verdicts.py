"""What is wrong with how requests were dealt with; nothing is what tests want to hear.

A refusal is one final status, whole, with `Connection: close`, the end of the connection, and a backend that has
heard nothing of it, nor of what came behind.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from tests.wire.corpus import PLAIN, SMUGGLED, Bad
from tests.wire.harness import Message, Origin, Running, fields_of, statuses_of

LEFT_OPEN_S = 3.0


def fault_of_answer(got: bytes, wanted: Sequence[int] | frozenset[int]) -> str:
    """What `got`, all that a connection brought, lacks of one refusal with a status in `wanted`."""
    shown = f"got {got[:80]!r}{'...' if len(got) > 80 else ''}, wanted {' or '.join(map(str, sorted(wanted)))}"
    statuses = statuses_of(got)
    head, _, body = got.partition(b"\r\n\r\n")
    if not got.startswith(b"HTTP/1.1 ") or len(statuses) != 1:
        return f"not one answer: {shown}"
    if statuses[0] not in wanted:
        return f"status: {shown}"
    if body.endswith((b"<OPEN>", b"<RST>")):
        return f"no clean end: got {got[-60:]!r}"
    if [value.lower() for value in fields_of(head, b"connection")] != [b"close"]:
        return f"does not say Connection: close: {head!r}"
    if fields_of(head, b"content-length") != [b"%d" % len(body)]:
        return f"length is not that of the body: {got!r}"
    return ""


async def fault_of_refusal(
    proxy: Running, origin: Origin, case: Bad, *, before: bytes = b"", after: bytes = SMUGGLED, heard: bool = False
) -> str:
    """What is wrong with the refusal of `case`; `before` is answered 200, and `heard` is whether its head may go on."""
    count, size = len(origin.messages), len(origin.received)
    got = await proxy.send(before + case.request + after, patience_s=LEFT_OPEN_S)
    if before:
        first, _, got = got.partition(b"ok")
        if statuses_of(first) != [200]:
            return f"the request before it: {first!r}"
    fault = fault_of_answer(got, case.statuses)
    received, messages = bytes(origin.received[size:]), origin.messages[count:]
    if b"smuggled" in received:
        fault += f"; a second request reached the backend: {received[-300:]!r}"
    if len(messages) != bool(before):
        fault += f"; the backend took {messages[-1]}"
    if not before and not heard and received:
        fault += f"; the backend heard {received[:200]!r}"
    return fault.removeprefix("; ")


async def faults_of_refusals(
    proxy: Running, origin: Origin, cases: Mapping[str, Bad], *, before: bytes = b"", heard: bool = False
) -> dict[str, str]:
    """The faults of each case that has one. A good request behind all of them must go through."""
    faults = {}
    for name, case in cases.items():
        fault = await fault_of_refusal(proxy, origin, case, before=before, heard=heard)
        if fault:
            faults[name] = f"{fault} (sent {case.request[:160]!r})"
    got = await proxy.send(PLAIN, PLAIN.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), patience_s=LEFT_OPEN_S)
    if statuses_of(got) != [200, 200]:
        faults["a good request behind them"] = f"got {got[:80]!r}"
    return faults


def expect_none(faults: Mapping[str, str]) -> None:
    """Raises: AssertionError, with each fault on a line of its own."""
    if faults:
        raise AssertionError(
            "\n".join([f"{len(faults)} faults", *(f"{name}: {what}" for name, what in faults.items())])
        )


def gist_of(message: Message) -> tuple[bytes, bytes, bytes]:
    """Method, target and body."""
    method, target, _ = message.head.split(b" ", 2)
    return method, target, message.body


class _Bad(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(f"{record.name}: {record.getMessage()} {record.exc_info or ''}")


@contextmanager
def no_errors_logged() -> Iterator[None]:
    """Nothing at ERROR and no traceback is logged: whatever a peer sends is no defect of ours."""
    handler = _Bad()
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
    assert not handler.records, handler.records
