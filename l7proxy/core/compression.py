"""Which answers are compressed for whom, what becomes of their heads, and the compressors.

One rule: what is compressed is another representation (RFC 9110 8.4): its length, its strong ETag, its ranges and its
digests go, and Vary says what chose it. What is compressed, or bound to its bytes, is left alone.

Compressors have small windows, so that a thousand of them have room, and give out all that came in with each piece:
nothing that a backend has sent waits for what it sends later.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

from l7proxy.core.head import ResponseHead
from l7proxy.core.lookup import Fields
from l7proxy.core.settings.compression import Compression, Level

_WINDOW_BITS = 16
"""Of br and zstd: 64 KiB (gzip has 32 KiB). With it a compressor takes 200 to 400 KiB, and text of the web hardly gains
by more."""
_NEVER = frozenset({101, 204, 205, 206, 304})
_DROPPED = frozenset(
    {b"content-length", b"accept-ranges", b"content-md5", b"digest", b"content-digest", b"repr-digest", b"etag"}
)
_NO_TRANSFORM = re.compile(rb"(?i)(?:^|[ \t,])no-transform(?:$|[ \t,])")
_LONGEST_CACHED = 256
_QUALITY = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")
_EVENTS = "text/event-stream"


class Compressor(Protocol):
    """Turns pieces into compressed ones."""

    def encode(self, piece: bytes | memoryview, last: bool) -> bytes:
        """All that can be decoded once `piece` has come."""
        ...


class _Gzip:
    def __init__(self, level: int) -> None:
        self._stream = zlib.compressobj(level, zlib.DEFLATED, 31)

    def encode(self, piece: bytes | memoryview, last: bool) -> bytes:
        return self._stream.compress(piece) + self._stream.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)


class _Brotli:
    def __init__(self, level: int) -> None:
        import brotli

        self._stream = brotli.Compressor(quality=level, lgwin=_WINDOW_BITS)

    def encode(self, piece: bytes | memoryview, last: bool) -> bytes:
        start: bytes = self._stream.process(bytes(piece))
        end: bytes = self._stream.finish() if last else self._stream.flush()
        return start + end


class _Zstd:
    def __init__(self, level: int) -> None:
        import zstandard

        self._flush = zstandard.COMPRESSOBJ_FLUSH_BLOCK
        self._finish = zstandard.COMPRESSOBJ_FLUSH_FINISH
        parameters = zstandard.ZstdCompressionParameters.from_level(level, window_log=_WINDOW_BITS)
        self._stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()

    def encode(self, piece: bytes | memoryview, last: bool) -> bytes:
        return self._stream.compress(piece) + self._stream.flush(self._finish if last else self._flush)


def compressor(coding: str, level: Level) -> Compressor:
    """A new compressor for `coding`."""
    gzip, br, zstd = level.value
    if coding == "zstd":
        return _Zstd(zstd)
    return _Brotli(br) if coding == "br" else _Gzip(gzip)


def choose(accepted: bytes, algorithms: tuple[str, ...]) -> str | None:
    """The one of `algorithms` that a client likes best by its Accept-Encoding; None for none.

    >>> choose(b"gzip;q=1.0, br;q=0.8, *;q=0.1", ("zstd", "br", "gzip")), choose(b"identity", ("gzip",))
    ('gzip', None)
    """
    return (_chosen_before if len(accepted) <= _LONGEST_CACHED else _chosen)(accepted, algorithms)


def _chosen(accepted: bytes, algorithms: tuple[str, ...]) -> str | None:
    liked: dict[str, float] = {}
    for part in accepted.decode("latin-1").lower().split(","):
        coding, *parameters = (each.strip(" \t") for each in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip(" \t") == "q":
                quality = float(value) if _QUALITY.fullmatch(value := value.strip(" \t")) else 0.0
        if coding:
            liked.setdefault(coding.removeprefix("x-") if coding == "x-gzip" else coding, quality)
    others = liked.get("*", 0.0)
    best = max(algorithms, key=lambda name: liked.get(name, others), default=None)
    if best is None:
        return None
    quality = liked.get(best, others)
    return best if quality > 0 and quality >= liked.get("identity", 0.0) else None


_chosen_before = lru_cache(maxsize=1024)(_chosen)


@lru_cache(maxsize=4096)
def _fits(media_type: bytes, types: tuple[str, ...]) -> bool:
    name = media_type.partition(b";")[0].strip(b" \t").lower().decode("latin-1")
    if name == _EVENTS:
        return _EVENTS in types
    return any(_pattern(each).fullmatch(name) for each in types)


@lru_cache(maxsize=1024)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(re.escape(text).replace(r"\*", r"[^/]+"))


def judge(
    compression: Compression, asked: Fields, method: bytes, status: int, answer: Fields
) -> tuple[bool, str | None]:
    """Whether an answer could be compressed for somebody, and the coding in which it is for who asks."""
    media_type = answer.first(b"content-type")
    if media_type is None or not _fits(media_type[:_LONGEST_CACHED], compression.types):
        return False, None
    coded = answer.first(b"content-encoding")
    if coded is not None and coded.lower() != b"identity":
        return False, None
    if any(_NO_TRANSFORM.search(value) for value in answer.all(b"cache-control")):
        return False, None
    length = answer.first(b"content-length")
    if length is not None and length.isdigit() and int(length) < compression.minimum_bytes and status != 304:
        return False, None
    return True, None if status in _NEVER else coding_for(compression, asked, method)


def coding_for(compression: Compression, asked: Fields, method: bytes) -> str | None:
    """The coding in which who asks takes answers; None where it takes none."""
    if method == b"HEAD" or asked.first(b"range") is not None:
        return None
    if any(_NO_TRANSFORM.search(value) for value in asked.all(b"cache-control")):
        return None
    accepted = asked.all(b"accept-encoding")
    return choose(b",".join(accepted), compression.algorithms) if accepted else None


def varied(fields: bytes, answer: Fields) -> bytes:
    """`fields` with a Vary that names Accept-Encoding; `answer` is the same, to be asked.

    >>> varied(b"Vary: Cookie\\r\\n", Fields(b"Vary: Cookie\\r\\n"))
    b'Vary: Cookie\\r\\nVary: Accept-Encoding\\r\\n'
    """
    named = {each.strip(b" \t").lower() for value in answer.all(b"vary") for each in value.split(b",")}
    return fields if named & {b"*", b"accept-encoding"} else fields + b"Vary: Accept-Encoding\r\n"


def encoded(fields: bytes, coding: str) -> bytes:
    """The header lines of an answer whose body is in `coding` from now on.

    >>> encoded(b'ETag: "a"\\r\\nContent-Length: 3\\r\\nX: y\\r\\n', "br")
    b'ETag: W/"a"\\r\\nX: y\\r\\nContent-Encoding: br\\r\\n'
    """
    kept = []
    for line in fields.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        key = name.lower()
        if key == b"etag":
            tag = value.strip(b" \t")
            line = b"%b: %b" % (name, tag if tag.startswith(b"W/") else b"W/" + tag)  # noqa: PLW2901
        elif key in _DROPPED or key == b"content-encoding":
            continue
        kept.append(line)
    return b"".join(line + b"\r\n" for line in kept) + b"Content-Encoding: %b\r\n" % coding.encode("ascii")


class Encoder:
    """Compresses one answer."""

    __slots__ = ("encode",)

    def __init__(self, coding: str, level: Level) -> None:
        self.encode: Callable[[bytes | memoryview, bool], bytes] = compressor(coding, level).encode

    def begin(self, head: ResponseHead, piece: bytes | memoryview, last: bool) -> bytes:
        """The first piece, which may be all there is: then its length is known."""
        if not piece and not last:
            return b""
        made = self.encode(piece, last)
        if last:
            head.length = len(made)
            head.fields += b"Content-Length: %d\r\n" % len(made)
        return made


@lru_cache(maxsize=32)
def _whole(body: bytes, coding: str, level: Level) -> bytes:
    return compressor(coding, level).encode(body, True)


def packed(
    compression: Compression, asked: Fields, method: bytes, status: int, fields: bytes, body: bytes
) -> tuple[bytes, bytes]:
    """The header lines and the body of an answer of our own, compressed if that may be. Those that are the same again
    and again are compressed once."""
    answer = Fields(fields)
    if len(body) < compression.minimum_bytes:
        return fields, body
    may, coding = judge(compression, asked, method, status, answer)
    if may:
        fields = varied(fields, answer)
    if coding is not None:
        fields, body = encoded(fields, coding), _whole(body, coding, compression.level)
    return fields, body
