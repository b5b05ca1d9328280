"""Answers are compressed on their way to the client.

One rule: here it is decided once, at an answer's head; the exchange passes each piece through its `encoder`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from l7proxy.core.compression import Encoder, encoded, judge, varied
from l7proxy.core.head import ResponseHead
from l7proxy.core.lookup import Fields
from l7proxy.core.settings.compression import Compression

if TYPE_CHECKING:
    from l7proxy.http.told import Told


class CompressionStep:
    """Looks at each answer."""

    def __init__(self, compression: Compression) -> None:
        self._compression = compression

    def after(self, exchange: Told, head: ResponseHead) -> None:
        """Have it compressed, or leave it, and say on what that depends."""
        answer = Fields(head.fields)
        may, coding = judge(self._compression, exchange.seen, exchange.head.method, head.status, answer)
        if may:
            head.fields = varied(head.fields, answer)
        if coding is not None:
            head.fields = encoded(head.fields, coding)
            head.length = None
            exchange.encoder = Encoder(coding, self._compression.level)
