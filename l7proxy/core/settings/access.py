"""Who may use a route: the keys, and what they mean.

One rule: what has no findings can be built. What stands in a file is filled in by who reads files.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from director.kit.configfile import Finding, Section
from director.kit.duration import Duration
from director.kit.yamltree import Path
from l7proxy.core.passwords import LONGEST_USER, problem, read_htpasswd
from l7proxy.core.settings.fields import ONE_OR_SEVERAL, FileText, Flag, Networks, header_name

_REALM = re.compile(r"[ !#-\[\]-~]{1,200}")
_NEVER_PASSED = frozenset(
    {
        "connection",
        "content-length",
        "content-type",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
    }
)
"""Of requests: what frames them, and what this proxy itself says in them."""


def _realm(text: str) -> str:
    if not _REALM.fullmatch(text):
        raise ValueError(f"{text!r} cannot be a realm: use ASCII characters without quotes and backslashes")
    return text


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        good = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"{text!r} is not a URL to ask: write one such as http://127.0.0.1:9000/verify")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError(f"{parts.hostname} is asked without user, password and fragment: remove them from the URL")
    return text


def _texts(value: object) -> object:
    """Hashes are text; one that YAML took for something else is told as what it is not, without showing it."""
    if isinstance(value, dict):
        return {name: each if isinstance(each, str) else "" for name, each in value.items()}
    return value


HeaderNames = Annotated[tuple[Annotated[str, AfterValidator(header_name)], ...], ONE_OR_SEVERAL]


class BasicSection(Section):
    """`{realm: shop, file: /etc/l7proxy/users}`"""

    realm: Annotated[str, AfterValidator(_realm)] = Field("restricted", description="what browsers show when they ask")
    users: Annotated[dict[str, str], BeforeValidator(_texts)] = Field(
        {}, description="hashes by user: bcrypt ($2b$, as `htpasswd -nB` makes it) or sha512-crypt ($6$)"
    )
    file: FileText | None = Field(
        None, description="the same as an htpasswd file, user:hash a line; read at the start and on a reload"
    )
    keep: Flag = Field(False, alias="pass", description="the backend sees Authorization too")


class ForwardAuthSection(Section):
    """`{url: "http://127.0.0.1:9000/verify", pass: [X-User]}`"""

    url: Annotated[str, AfterValidator(_url)] = Field(
        description="asked by GET before each request: 2xx lets it pass, every other answer is the client's"
    )
    copy_to_request: HeaderNames = Field(
        (), alias="pass", description="headers of a 2xx that the backend gets; what clients send by these names goes"
    )
    send: HeaderNames = Field(
        ("Cookie", "Authorization"), description="headers of the request that it sees, beside X-Forwarded-*"
    )
    timeout: Duration = Field(3.0, description="for the whole answer; then the client gets 504")
    ca: FileText | None = Field(
        None, description="certificates (PEM) that its own is verified by; default: the system's"
    )


class ClientCertificateSection(Section):
    """`{required: true, subject_header: X-Client-Subject}`"""

    required: Flag = Field(True, description="without a certificate the answer is 403")
    subject_header: Annotated[str, AfterValidator(header_name)] | None = Field(
        None, description="the header that tells the backend its subject; what clients send by that name goes"
    )
    fingerprint_header: Annotated[str, AfterValidator(header_name)] | None = Field(
        None, description="the same for the certificate's SHA-256, in hexadecimal"
    )


class AccessSection(Section):
    """`{allow: 10.0.0.0/8, basic: {users: {ann: "$2b$..."}}}`; all that is named must let a request pass"""

    allow: Networks = Field((), description="networks whose clients may pass")
    deny: Networks = Field((), description="networks whose clients may not; the longer prefix wins")
    others: Literal["allow", "deny"] | None = Field(
        None, description="who is in no network; default: deny where `allow` has any, else allow"
    )
    basic: BasicSection | None = Field(None, description="asks for user and password (RFC 7617)")
    forward_auth: ForwardAuthSection | None = Field(None, description="asks somebody else")
    client_certificate: ClientCertificateSection | None = Field(
        None, description="looks at the certificate that the listener's `tls.clients` has asked for"
    )


@dataclass(frozen=True, slots=True)
class Basic:
    """User and password. `users` are those of the keys, and of the file where it has been read."""

    realm: str = "restricted"
    users: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
    file: str = ""
    keep: bool = False


@dataclass(frozen=True, slots=True)
class ForwardAuth:
    """Who is asked. Names of headers are in lower case in `send`."""

    url: str
    copied: tuple[str, ...] = ()
    send: tuple[str, ...] = ("cookie", "authorization")
    timeout_s: float = 3.0
    ca: str = ""
    ca_pem: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """What is asked of the client's certificate."""

    required: bool = True
    subject_header: str = ""
    fingerprint_header: str = ""


@dataclass(frozen=True, slots=True)
class Access:
    """What that means. `others` is whether who is in no network may pass."""

    allow: tuple[IPv4Network | IPv6Network, ...] = ()
    deny: tuple[IPv4Network | IPv6Network, ...] = ()
    others: bool = True
    basic: Basic | None = None
    forward_auth: ForwardAuth | None = None
    client_certificate: ClientCertificate | None = None


def access_findings(section: AccessSection, path: Path) -> Iterator[Finding]:
    """What is wrong about who may pass."""
    allowed = {ip_network(text) for text in section.allow}
    for place, text in enumerate(section.deny):
        if ip_network(text) in allowed:
            yield (*path, "deny", place), f"{text} is in `allow` too: remove it from one of them"
    if section.others is not None and not section.allow and not section.deny:
        yield (*path, "others"), "there are no others: name networks in `allow` or `deny`, or remove it"
    if section.basic is not None:
        yield from _basic_findings(section.basic, (*path, "basic"))
        if section.forward_auth is not None and "authorization" in {each.lower() for each in section.forward_auth.send}:
            yield (
                (*path, "forward_auth"),
                "would be told the passwords of `basic`: remove one of them, or write `send: [Cookie]`",
            )
    if section.forward_auth is not None:
        for place, name in enumerate(section.forward_auth.copy_to_request):
            if name.lower() in _NEVER_PASSED:
                yield (*path, "forward_auth", "pass", place), f"{name} is this proxy's own to say: remove it"
    if section.client_certificate is not None:
        for key in ("subject_header", "fingerprint_header"):
            name = getattr(section.client_certificate, key) or ""
            if name.lower() in _NEVER_PASSED:
                yield (*path, "client_certificate", key), f"{name} is this proxy's own to say: use another name"


def _basic_findings(section: BasicSection, path: Path) -> Iterator[Finding]:
    if not section.users and section.file is None:
        yield path, "nobody could pass: name `users`, or a `file`"
    for user, text in section.users.items():
        if said := _user_problem(user):
            yield (*path, "users", user), said
        if said := problem(text):
            yield (*path, "users", user), f"what stands here {said}"


def _user_problem(user: str) -> str:
    if not user or ":" in user or not user.isprintable() or len(user) > LONGEST_USER:
        return "cannot be a user: use printable characters without `:`"
    return ""


def file_findings(content: bytes, file: str, users: Collection[str]) -> Iterator[str]:
    """What is wrong with an htpasswd file; `users` are those that stand elsewhere."""
    seen = set(users)
    count = 0
    for number, user, text in read_htpasswd(content):
        count += 1
        if said := _user_problem(user):
            yield f"{file}:{number} {said}"
        elif user in seen:
            yield f"{file}:{number}: {user} has a hash already: remove one of them"
        elif said := problem(text):
            yield f"{file}:{number}: what stands for {user} {said}"
        seen.add(user)
    if not count and not users:
        yield f"{file} has no user: nobody could pass"


def build_access(section: AccessSection) -> Access:
    """`section`, which has no findings."""
    basic, asked, shown = section.basic, section.forward_auth, section.client_certificate
    return Access(
        tuple(ip_network(text) for text in section.allow),
        tuple(ip_network(text) for text in section.deny),
        section.others == "allow" if section.others is not None else not section.allow,
        Basic(basic.realm, dict(basic.users), basic.file or "", basic.keep) if basic is not None else None,
        ForwardAuth(
            asked.url,
            asked.copy_to_request,
            tuple(name.lower() for name in asked.send),
            asked.timeout,
            asked.ca or "",
        )
        if asked is not None
        else None,
        ClientCertificate(shown.required, shown.subject_header or "", shown.fingerprint_header or "")
        if shown is not None
        else None,
    )
