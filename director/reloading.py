"""Takes the director's file anew: at a SIGHUP, or when somebody asks for it.

One rule: all of the file or nothing of it; what was wrong with it is kept for whoever asks later. One reload after the
other: each reads the file when its turn comes, so that what was read first never takes the place of what came later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from director.api.asking import ask_as
from director.control import Control
from director.core.answers import Applied
from director.core.config import parse_config
from director.core.event import Event
from director.core.naming import Lookup
from director.core.notifying import REFUSED
from director.heartbeat import Heartbeat
from director.kit.configfile import read_text
from director.kit.errors import ConfigError, DirectorError
from director.undertaking import NotAppliedError, configuration_event

log = logging.getLogger(__name__)


class Reloading:
    """Reloads `path`. `look_up` resolves names, `backoff_s` is the pause after so many failures in a row."""

    def __init__(
        self,
        path: Path,
        control: Control,
        look_up: Lookup,
        heartbeat: Heartbeat,
        tell: Callable[[Event], None],
        backoff_s: Callable[[int], float],
    ) -> None:
        self._path = path
        self._control = control
        self._look_up = look_up
        self._heartbeat = heartbeat
        self._tell = tell
        self._backoff_s = backoff_s
        self._hung_up = asyncio.Event()
        self._alone = asyncio.Lock()
        self.refused: tuple[str, ...] = ()
        """The problems of the file that the last reload met."""

    def hang_up(self) -> None:
        """Reload soon: a SIGHUP has come."""
        self._hung_up.set()

    async def run(self) -> None:
        """Reload at every `hang_up` until cancelled. While the kernel does not answer, try again."""
        tries = 0
        ask_as("SIGHUP")
        while True:
            await self._hung_up.wait()
            self._hung_up.clear()
            try:
                await self.reload()
            except (ConfigError, NotAppliedError):
                pass  # told
            except DirectorError as error:
                log.error("could not reload, trying again", extra={"reason": str(error)})
                tries += 1
                await asyncio.sleep(self._backoff_s(tries))
                self._hung_up.set()
                continue
            except Exception:
                log.exception("reload failed in itself, the old configuration stays")
            tries = 0

    async def reload(self) -> Applied:
        """Take the file as it is now.

        Raises: ConfigError with every problem of it, NotAppliedError when a part failed, and then the old configuration
        stays; KernelError or HostError when the kernel cannot be asked.
        """
        async with self._alone:
            return await self._reload(str(self._path))

    async def _reload(self, source: str) -> Applied:
        self._heartbeat.reloading()
        try:
            text = await asyncio.to_thread(read_text, self._path)
            config = await asyncio.to_thread(parse_config, text, source, self._look_up)
            applied = await self._control.change(config, source, text)
            self.refused = ()
        except (ConfigError, NotAppliedError) as error:
            self.refused = tuple(str(error).splitlines())
            for line in self.refused:
                log.error("reload refused, the old configuration stays", extra={"problem": line})
            if isinstance(error, ConfigError):  # what failed in a part was told already
                self._tell(configuration_event(REFUSED, source, "; ".join(self.refused)))
            raise
        finally:
            self._heartbeat.ready(self.standing())
        log.info("reloaded", extra={"config": source})
        return applied

    def standing(self) -> str:
        """How the director is, in a line for the service manager."""
        parts = [self._control.standing()]
        if self.refused:
            more = f" (and {len(self.refused) - 1} more)" if len(self.refused) > 1 else ""
            parts.append(f"reload refused, the old configuration stays: {self.refused[0]}{more}")
        return "; ".join(parts)
