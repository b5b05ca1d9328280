"""Decoders of content codings: of whole bodies, and of pieces."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import brotli
import zstandard

Decode = Callable[[bytes], bytes]


def pieces_of(coding: str) -> Decode:
    """A decoder that gives out what can be known after each piece."""
    match coding:
        case "gzip":
            return zlib.decompressobj(31).decompress
        case "br":
            stream = brotli.Decompressor()

            def decode(data: bytes) -> bytes:
                found: bytes = stream.process(data)
                while more := stream.process(b""):  # it gives out a buffer's worth at a time
                    found += more
                return found

            return decode
        case _:
            return zstandard.ZstdDecompressor().decompressobj().decompress


def _unzstd(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


WHOLE: dict[str, Decode] = {"gzip": gzip.decompress, "br": brotli.decompress, "zstd": _unzstd}
