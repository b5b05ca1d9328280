"""How backends are spoken to: TLS, the PROXY protocol, DSCP; the keys, and what they mean.

One rule: certificates of backends are verified unless somebody has written that they are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import ip_address
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from director.kit.configfile import Finding, Section
from director.kit.yamltree import Path
from l7proxy.core.settings.fields import FileText, Flag

_LABELS = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\.?", re.IGNORECASE)
_CODES = {
    **{f"CS{number}": number << 3 for number in range(8)},
    **{f"AF{queue}{drop}": (queue << 3) + (drop << 1) for queue in range(1, 5) for drop in range(1, 4)},
    "EF": 46,
    "VA": 44,
    "LE": 1,
    "DF": 0,
}
"""RFC 2474, 2597, 3246, 5865, 8622."""


def dscp_of(value: object) -> int:
    """A code point by its name or number.

    Raises: ValueError.

    >>> dscp_of("af41"), dscp_of("EF"), dscp_of(10)
    (34, 46, 10)
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 64:
        return value
    found = _CODES.get(str(value).upper())
    if found is None:
        raise ValueError(f"{value!r} is no code point: write 0 to 63, or a name such as AF41, EF, CS1 or LE")
    return found


def _server_name(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        if not _LABELS.fullmatch(text) or len(text) > 253:
            raise ValueError(
                f"{text!r} is no name of a server: write what its certificate is for, such as app.internal"
            ) from None
    return text.rstrip(".").lower()


def _yes_or_more(value: object) -> object:
    return {} if value is True else value


class BackendTlsSection(Section):
    """`{name: app.internal, ca: /etc/ssl/internal.pem}`"""

    name: Annotated[str, AfterValidator(_server_name)] | None = Field(
        None, description="the name that a backend's certificate must have, and that SNI asks for; default: its address"
    )
    ca: FileText | None = Field(
        None, description="a PEM file with the authorities that are believed; default: the system's"
    )
    certificate: FileText | None = Field(
        None, description="a PEM file: the certificate, then its chain, that we show to backends"
    )
    key: FileText | None = Field(None, description="a PEM file with its key, without a passphrase")
    verify: Flag = Field(True, description="false: whoever answers is believed, and TLS protects from listeners only")


TlsOrNot = Annotated[
    BackendTlsSection | None, BeforeValidator(_yes_or_more, json_schema_input_type=bool | BackendTlsSection)
]
Dscp = Annotated[int, BeforeValidator(dscp_of, json_schema_input_type=str | int)]


@dataclass(frozen=True, slots=True)
class BackendTls:
    """TLS towards backends. PEMs are what files held when the configuration was read; no `ca` is the system's."""

    name: str | None = None
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    verify: bool = True
    ca_pem: bytes = field(default=b"", repr=False)
    chain_pem: bytes = field(default=b"", repr=False)
    key_pem: bytes = field(default=b"", repr=False)


class ProxyVersion(Enum):
    """Which PROXY header begins a connection to a backend."""

    V1 = "v1"
    V2 = "v2"


@dataclass(frozen=True, slots=True)
class Way:
    """How one backend is spoken to. `name` is what its certificate must have, unless `tls` says another."""

    tls: BackendTls | None = None
    name: str = ""
    proxy_protocol: ProxyVersion | None = None
    dscp: int | None = None


def backend_tls_findings(section: BackendTlsSection, path: Path) -> Iterator[Finding]:
    """What is wrong across the keys of `tls`."""
    if (section.certificate is None) != (section.key is None):
        there, missing = ("certificate", "key") if section.key is None else ("key", "certificate")
        yield (*path, there), f"{there} without {missing}: backends are shown both or none"
    if not section.verify and section.ca is not None:
        yield (*path, "ca"), "nothing is verified, so no authority is asked for: remove it, or `verify: false`"


def build_backend_tls(section: BackendTlsSection) -> BackendTls:
    """`section`, which has no findings; without what its files hold."""
    return BackendTls(section.name, section.ca, section.certificate, section.key, section.verify)
