"""`l7proxy reload` for a process that may have no admin socket.

One rule: a file with problems is not even shown to it: they are told, and nothing has happened.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from director.kit.errors import HostError
from l7proxy.cli.client import Client, NotRunningError
from l7proxy.files.loading import load_file


def reload_process(file: str, pid: int) -> list[str]:
    """Have the l7proxy with `pid` read `file`. Sentences worth knowing.

    Raises: InvalidConfigError, DirectorError: it goes on as before.
    """
    loaded = load_file(file)
    notes = [f"warning: {each}" for each in loaded.warnings]
    if path := loaded.config.admin_socket:
        try:
            return [*notes, *Client(Path(path)).post("/v1/reload")]
        except NotRunningError:  # it was not there, or elsewhere, in the file that is served until now
            pass
    try:
        os.kill(pid, signal.SIGHUP)
    except OSError as error:
        raise HostError(f"process {pid} cannot be sent SIGHUP: {error.strerror}") from error
    why = "nobody answers on its admin socket yet" if path else "it has no `admin: {socket: ...}`"
    return [*notes, f"{file} has no problems, and process {pid} got SIGHUP: its log says whether it took it ({why})"]
