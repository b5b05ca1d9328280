"""Whether the program that is installed now, and the file as it is now, could start.

One rule: it is another process that tries, so that neither a broken program nor its output hurts this one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from l7proxy import commands

WITHIN_S = 60.0
MOST_LINES = 20


async def rehearse(program: Sequence[str], path: str) -> list[str]:
    """What keeps `program` from running the file at `path`; nothing where it can."""
    words = [*program, commands.REHEARSE, path]
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        return [f"{words[0]} cannot be run: {error.strerror}"]
    try:
        async with asyncio.timeout(WITHIN_S):
            _, said = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return [f"{' '.join(words)} did not end within {WITHIN_S:g}s"]
    if process.returncode == 0:
        return []
    lines = said.decode(errors="replace").strip().splitlines()[-MOST_LINES:]
    return lines or [f"{' '.join(words)} ended with {process.returncode}"]
