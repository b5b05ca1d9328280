"""Asks a running director over its admin socket.

One rule: it imports nothing heavy (the CLI's start-up is its users' waiting time), and every failure is a sentence.
"""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from director.api import NAMESPACE_HEADER, SOCKET
from director.host.lockfile import namespace_inode
from director.kit.errors import ConfigError, DirectorError, HostError
from director.kit.rights import in_group

if TYPE_CHECKING:
    from http.client import HTTPResponse

    from director.core.answers import AppliedAnswer, PlannedAnswer
    from director.core.driftlines import DriftLine
    from director.core.event import EventAnswer
    from director.core.explain import Explanation
    from director.core.status import Status

TIMEOUT_S = 60.0
RELOAD_S = 300.0
"""A reload may wait for names and for the lock of iptables, and goes on when nobody waits for it any more: a unit's
ExecReload= would have failed, and the file be in force all the same."""


class NotRunningError(HostError):
    """No director answers on the socket."""


class Client:
    """A director's operations, from outside. Each raises NotRunningError, ConfigError or DirectorError."""

    def __init__(self, path: Path = SOCKET, timeout_s: float = TIMEOUT_S) -> None:
        self._path = path
        self._timeout_s = timeout_s

    def is_running(self) -> bool:
        """Whether somebody answers; a socket that may not be opened counts as running."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(self._timeout_s)
            try:
                peer.connect(str(self._path))
            except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
                return False
            except OSError:  # not permitted, or too busy to accept: asking it will say so
                return True
        return True

    def status(self) -> Status:
        return cast("Status", self._ask("GET", "/v1/status"))

    def drift(self) -> list[DriftLine]:
        """What somebody else has changed."""
        return cast("list[DriftLine]", self._ask("GET", "/v1/drift")["drift"])

    def plan(self, text: str, source: str) -> PlannedAnswer:
        return cast("PlannedAnswer", self._ask("POST", "/v1/plan", text=text, source=source))

    def apply(
        self, text: str, source: str, confirm_s: float | None = None, drain_s: float | None = None
    ) -> AppliedAnswer:
        """What was made, and what is still to come."""
        options = {"confirm_s": confirm_s, "drain_s": drain_s}
        given = {key: value for key, value in options.items() if value is not None}
        return cast("AppliedAnswer", self._ask("POST", "/v1/apply", text=text, source=source, **given))

    def reload(self) -> AppliedAnswer:
        """What the director's own file, taken anew, has changed."""
        patient = Client(self._path, max(self._timeout_s, RELOAD_S))
        return cast("AppliedAnswer", patient._ask("POST", "/v1/reload"))

    def confirm(self) -> AppliedAnswer:
        """What was removed, or will be when it has drained; what failed is in `failures`."""
        return cast("AppliedAnswer", self._ask("POST", "/v1/confirm"))

    def undo(self) -> AppliedAnswer:
        """What was put back; what could not be is in `failures`."""
        return cast("AppliedAnswer", self._ask("POST", "/v1/undo"))

    def drain(self, virtual_server: str, real_server: str) -> list[str]:
        return self._operate("/v1/drain", virtual_server=virtual_server, real_server=real_server)

    def enable(self, virtual_server: str, real_server: str) -> list[str]:
        return self._operate("/v1/enable", virtual_server=virtual_server, real_server=real_server)

    def maintenance(self, virtual_server: str, real_server: str, reason: str, for_s: float | None) -> list[str]:
        given: dict[str, object] = {} if for_s is None else {"for_s": for_s}
        return self._operate(
            "/v1/maintenance", virtual_server=virtual_server, real_server=real_server, reason=reason, **given
        )

    def explain(self, virtual_server: str, real_server: str | None = None) -> Explanation:
        """Why every weight is what it is."""
        from urllib.parse import urlencode

        names = {"virtual_server": virtual_server, **({} if real_server is None else {"real_server": real_server})}
        return cast("Explanation", self._ask("GET", "/v1/explain?" + urlencode(names)))

    def weight(self, virtual_server: str, real_server: str, weight: int) -> list[str]:
        return self._operate("/v1/weight", virtual_server=virtual_server, real_server=real_server, weight=weight)

    def events(
        self,
        since: float | None = None,
        virtual_server: str = "",
        real_server: str = "",
        limit: int | None = None,
        *,
        follow: bool = False,
    ) -> Iterator[EventAnswer]:
        """What happened since a unix time, oldest first, with `limit` the last so many; `follow`: and what happens."""
        from urllib.parse import urlencode

        asked = {"since": since, "vs": virtual_server, "rs": real_server, "limit": limit, "follow": int(follow)}
        query = urlencode({key: value for key, value in asked.items() if value})
        with self._asked("GET", f"/v1/events?{query}") as response:
            for line in response if response.status == 200 else ():
                if line.strip():
                    answer = json.loads(line)
                    if "error" in answer:
                        raise DirectorError(str(answer["error"]))
                    yield cast("EventAnswer", answer)
            if response.status != 200:
                raise self._refusal(response.status, json.loads(response.read()))

    def _operate(self, path: str, **fields: object) -> list[str]:
        """What is worth knowing of what was done, in sentences."""
        return list(self._ask("POST", path, **fields).get("notes", ()))

    def _ask(self, method: str, path: str, **fields: object) -> dict[str, Any]:
        with self._asked(method, path, **fields) as response:
            answer = json.loads(response.read())
        if not isinstance(answer, dict) or response.status != 200:
            if isinstance(answer, dict) and "error" in answer and "steps" in answer:
                return answer
            raise self._refusal(response.status, answer)
        return answer

    def _refusal(self, status: int, answer: object) -> DirectorError:
        if not isinstance(answer, dict) or "error" not in answer:
            return HostError(f"what answers on {self._path} is no director: status {status}")
        return (ConfigError if status == 400 else DirectorError)(str(answer["error"]))

    @contextmanager
    def _asked(self, method: str, path: str, **fields: object) -> Iterator[HTTPResponse]:
        """The answer to one request; what goes wrong in the block is told as its failure."""
        from director.kit.unixhttp import HTTPException, UnixConnection

        connection = UnixConnection(self._path, self._timeout_s)
        try:
            body = json.dumps(fields) if fields else None
            headers = {NAMESPACE_HEADER: str(namespace_inode())}
            connection.request(method, path, body, {**headers, "Content-Type": "application/json"} if body else headers)
            yield connection.getresponse()
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotRunningError(
                f"no director is running (nothing answers on {self._path}): start one with `director run FILE`"
            ) from error
        except OSError as error:
            advice = f": {in_group(self._path)}" if error.errno in {errno.EACCES, errno.EPERM} else ""
            raise HostError(f"could not ask the director on {self._path}: {error.strerror or error}{advice}") from error
        except (HTTPException, ValueError) as error:
            raise HostError(f"what answers on {self._path} is no director: {error}") from error
        finally:
            connection.close()
