"""TLS towards clients: its keys, and what they mean.

One rule: what files hold is looked at by `certificates.py`; here stands what is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from director.kit.configfile import Finding, Section
from l7proxy.core.settings.fields import FileText, Name
from l7proxy.core.x509 import Facts


class ClientsSection(Section):
    """`{ca: /etc/ssl/clients.pem, mode: required}`"""

    ca: FileText = Field(description="a PEM file: who issues clients' certificates")
    mode: Literal["required", "optional"] = Field(
        "required",
        description="required: no handshake without a certificate; optional: without one clients come in too, with a "
        "wrong one they do not",
    )


_TEXT = BeforeValidator(lambda value: str(value) if isinstance(value, float) else value)
"""YAML reads 1.3 as a number."""
_VERSIONS = WithJsonSchema({"enum": ["1.2", "1.3", 1.2, 1.3]})


class TlsSection(Section):
    """`{certificate: /etc/ssl/shop.pem, key: /etc/ssl/shop.key}` or `{folder: /etc/l7proxy/certs, default: shop}`"""

    certificate: FileText | None = Field(
        None, description="a PEM file: the certificate, then its chain; for every name that no other is for"
    )
    key: FileText | None = Field(None, description="a PEM file with its key, without a passphrase")
    folder: FileText | None = Field(
        None,
        description="a folder of certificates, chosen by the name that clients ask for: NAME.pem (certificate, chain "
        "and key in one), or NAME.pem or NAME.crt beside NAME.key",
    )
    default: Name | None = Field(
        None,
        description="which of `folder` clients get that ask for an unknown name or none; default: the one of "
        "`certificate`, or an alert",
    )
    minimum: Annotated[Literal["1.2", "1.3"], _TEXT, _VERSIONS] = Field(
        "1.2", description="the oldest version of TLS that is spoken"
    )
    clients: ClientsSection | None = Field(None, description="clients are asked for a certificate (mutual TLS)")


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files: the certificate with its chain, and its key; and what they held when they were read. `name` is what
    metrics and logs call it."""

    chain: str
    key: str
    chain_pem: bytes = field(default=b"", repr=False)
    key_pem: bytes = field(default=b"", repr=False)
    name: str = ""
    facts: Facts | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Clients:
    """Clients show a certificate that one in `ca` vouches for, or none where it is not `required`."""

    ca: str
    required: bool
    ca_pem: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Tls:
    """How a listener speaks TLS. `found` are the certificates of `folder`."""

    pair: Certificate | None = None
    folder: str | None = None
    default: str | None = None
    minimum: str = "1.2"
    clients: Clients | None = None
    found: tuple[Certificate, ...] = ()

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """All of them, in a fixed order."""
        return self.found if self.pair is None else (self.pair, *self.found)

    @property
    def fallback(self) -> Certificate | None:
        """The one for unknown names; None where they are refused."""
        for each in self.found:
            if each.name == self.default:
                return each
        return self.pair


def build_tls(section: TlsSection) -> Tls:
    """`section`, whose files are not read yet."""
    pair = None
    if section.certificate is not None and section.key is not None:
        pair = Certificate(section.certificate, section.key, name=section.certificate)
    clients = None
    if section.clients is not None:
        clients = Clients(section.clients.ca, section.clients.mode == "required")
    return Tls(pair, section.folder, section.default, section.minimum, clients)


def tls_findings(section: TlsSection, path: tuple[str | int, ...]) -> Iterator[Finding]:
    """What is wrong about keys that go together."""
    if section.certificate is None and section.key is None and section.folder is None:
        yield path, "no certificate: name `certificate` and `key`, or a `folder` of certificates"
    if section.certificate is not None and section.key is None:
        yield (*path, "certificate"), "its `key` is not named: write the same file again where it holds both"
    if section.key is not None and section.certificate is None:
        yield (*path, "key"), "the `certificate` that it is the key of is not named"
    if section.default is not None and section.folder is None:
        yield (*path, "default"), "it names a certificate of `folder`, and there is none: remove it, or name a folder"
