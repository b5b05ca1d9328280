"""Which answers are compressed, and how: the keys, and what they mean.

One rule: what has no findings can be built.
"""

from __future__ import annotations

from dataclasses import dataclass

from director.kit.configfile import Section


class CompressionSection(Section):
    """`{algorithms: [zstd, br, gzip], minimum_bytes: 1024}`"""


@dataclass(frozen=True, slots=True)
class Compression:
    """What that means."""


def build_compression(section: CompressionSection) -> Compression:
    """`section`, which has no findings."""
    return Compression()
