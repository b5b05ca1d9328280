"""Who may pass: networks, user and password, client certificates; and whoever else is asked (`forwardauth.py`).

One rule: nothing here ever opens because something failed. A header that tells a backend who somebody is comes from
here alone: what the client sent by its name is gone.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from l7proxy.core.access import NetworkRules, line_of
from l7proxy.core.passwords import get_ready, read_login
from l7proxy.core.proxystatus import Cause
from l7proxy.core.settings.access import Access, Basic, ClientCertificate
from l7proxy.http.forwardauth import ForwardAuthStep
from l7proxy.http.steps import GO_ON, OVER, WAIT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from l7proxy.http.exchange import Exchange
    from l7proxy.http.steps import Before

_AUTHORIZATION = (b"authorization",)
_NOBODY = "$2b$10$mWutT4xLQwnRwdmMwt0FweFCVkpJc/uzaAYeAZqbVU8BKmDAGCOVW"
"""A hash for users that are not known, where there is none to take for it."""


def access_steps(access: Access) -> Iterator[Before]:
    """The steps that `access` asks for, the cheapest first."""
    if access.allow or access.deny:
        yield NetworkStep(access)
    if access.client_certificate is not None:
        yield CertificateStep(access.client_certificate)
    if access.basic is not None:
        yield BasicStep(access.basic)
    if access.forward_auth is not None:
        yield ForwardAuthStep(access.forward_auth)


class NetworkStep:
    """Lets networks pass."""

    def __init__(self, access: Access) -> None:
        self._rules = NetworkRules(access.allow, access.deny, access.others)

    def before(self, exchange: Exchange) -> int:
        """By the client's address, as trusted proxies say it."""
        if self._rules.let_pass(exchange.asker):
            return GO_ON
        exchange.deny(Cause.ACCESS_DENIED, "its network may not pass: `access` of the route")
        return OVER


class CertificateStep:
    """Looks at a client's certificate, and tells the backend whose it is."""

    def __init__(self, wanted: ClientCertificate) -> None:
        self._wanted = wanted
        names = (wanted.subject_header, wanted.fingerprint_header)
        self._names = tuple(name.lower().replace("_", "-").encode("ascii") for name in names if name)

    def before(self, exchange: Exchange) -> int:
        """The handshake has verified it."""
        wanted = self._wanted
        certificate = exchange.client.certificate
        if self._names:
            exchange.vouch(self._names)
        if certificate is None:
            if not wanted.required:
                return GO_ON
            exchange.deny(Cause.CERTIFICATE_WANTED, "it has shown no certificate")
            return OVER
        if wanted.subject_header:
            exchange.vouch((), line_of(wanted.subject_header, certificate.subject.encode()))
        if wanted.fingerprint_header and certificate.fingerprint:
            exchange.vouch((), line_of(wanted.fingerprint_header, certificate.fingerprint.encode()))
        return GO_ON


class BasicStep:
    """Asks for user and password (RFC 7617)."""

    def __init__(self, basic: Basic) -> None:
        self._users = basic.users
        self._keep = basic.keep
        self._nobody = next(iter(basic.users.values()), _NOBODY)
        get_ready(basic.users.values())
        self._challenge = f'WWW-Authenticate: Basic realm="{basic.realm}", charset="UTF-8"\r\n'.encode("ascii")

    def before(self, exchange: Exchange) -> int:
        """Go on for who is known already; wait where a password has to be tried."""
        values = exchange.seen.all(b"authorization")
        login = read_login(values[0]) if len(values) == 1 else None
        if login is None:
            exchange.deny(Cause.UNAUTHORIZED, "", self._challenge)
            return OVER
        user, password = login
        text = self._users.get(user)
        logins = exchange.proxy.logins
        key = logins.key_of(user, password, text)
        right = logins.verdict(key)
        if right is None:
            heard = partial(self._heard, exchange, user)
            if logins.attempt(key, password, text or self._nobody, text is not None, heard):
                return WAIT
            exchange.deny(Cause.TOO_MANY_LOGINS, "too many logins wait to be tried")
            return OVER
        if right:
            self._admit(exchange, user)
            return GO_ON
        self._refuse(exchange, user)
        return OVER

    def _heard(self, exchange: Exchange, user: str, right: bool | None) -> None:
        if exchange.over:
            return
        try:
            if right:
                self._admit(exchange, user)
                exchange.go_on()
            elif right is None:
                exchange.deny(Cause.INTERNAL_ERROR, f"the hash of {user!r} could not be tried")
            else:
                self._refuse(exchange, user)
        except Exception as error:  # noqa: BLE001 -- logged with its traceback
            exchange.crashed(error)

    def _admit(self, exchange: Exchange, user: str) -> None:
        exchange.user = user
        if not self._keep:
            exchange.strip(_AUTHORIZATION)

    def _refuse(self, exchange: Exchange, user: str) -> None:
        exchange.deny(Cause.UNAUTHORIZED, f"wrong user or password: {user!r}", self._challenge)
