"""Asks a running l7proxy over its admin socket.

One rule: it imports nothing heavy (a command's start-up is its users' waiting time), and every failure is a sentence.
"""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from director.kit.errors import ConfigError, DirectorError, HostError

SOCKET = Path("/run/l7proxy/admin.sock")
VARIABLE = "L7PROXY_SOCKET"
TIMEOUT_S = 60.0
GONE = {errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE}


class NotRunningError(HostError):
    """No l7proxy answers on the socket."""


class RefusedError(DirectorError):
    """It was asked, and did not do it. `problems` are the lines of a configuration that it refused."""

    def __init__(self, sentence: str, problems: list[str]) -> None:
        super().__init__("\n".join([*problems, sentence]) if problems else sentence)
        self.problems = problems


class Client:
    """An l7proxy's operations, from outside. Each raises NotRunningError, ConfigError or DirectorError."""

    def __init__(self, path: Path = SOCKET, timeout_s: float = TIMEOUT_S) -> None:
        self._path = path
        self._timeout_s = timeout_s

    def get(self, path: str) -> dict[str, Any]:
        """What is there."""
        return self._ask("GET", path, None)

    def post(self, path: str, **fields: object) -> list[str]:
        """Have something done. Sentences worth knowing."""
        notes = self._ask("POST", path, fields).get("notes", [])
        return [str(note) for note in notes]

    def ask(self, path: str, **fields: object) -> dict[str, Any]:
        """Ask what takes more words than a path has."""
        return self._ask("POST", path, fields)

    def wish(self, upstream: str, backend: str, **fields: object) -> list[str]:
        """Have something done with one backend."""
        return self.post(f"/v1/backends/{quote(upstream, safe='')}/{quote(backend, safe='')}", **fields)

    def _ask(self, method: str, path: str, fields: dict[str, object] | None) -> dict[str, Any]:
        from director.kit.unixhttp import HTTPException, UnixConnection

        connection = UnixConnection(self._path, self._timeout_s, "l7proxy")
        try:
            body = json.dumps(fields) if fields is not None else None
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            answer = json.loads(response.read())
        except OSError as error:
            raise self._unreached(error) from error
        except (HTTPException, ValueError) as error:
            raise HostError(f"what answers on {self._path} is no l7proxy: {error}") from error
        finally:
            connection.close()
        if not isinstance(answer, dict) or (response.status != 200 and "error" not in answer):
            raise HostError(f"what answers on {self._path} is no l7proxy: status {response.status}")
        if response.status != 200:
            sentence, problems = str(answer["error"]), [str(line) for line in answer.get("problems", ())]
            if response.status == 400:
                raise ConfigError(sentence)
            raise RefusedError(sentence, problems)
        return answer

    def _unreached(self, error: OSError) -> HostError:
        if isinstance(error, TimeoutError):
            return HostError(
                f"the l7proxy on {self._path} gave no answer within {self._timeout_s:g}s: is it stopped, or very busy?"
            )
        if error.errno in GONE:
            return NotRunningError(
                f"no l7proxy is running (nothing answers on {self._path}): start one whose configuration has "
                f"`admin: {{socket: {self._path}}}`, or name its socket with --socket"
            )
        if error.errno in {errno.EACCES, errno.EPERM}:
            return HostError(
                f"{self._path} may not be opened by this user: run as root, or as one of the socket's group "
                f"(`ls -l {self._path}`)"
            )
        return HostError(f"could not ask the l7proxy on {self._path}: {error.strerror or error}")
