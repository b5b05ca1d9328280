"""ACME's HTTP-01 challenges (RFC 8555 8.3): the keys, and what they mean.

One rule: what has no findings can be built.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydantic import Field

from director.kit.configfile import Finding, Section
from director.kit.schemawalk import suggestion
from l7proxy.core.settings.fields import FileText, Name

CHALLENGES = "/.well-known/acme-challenge/"
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")


class AcmeSection(Section):
    """`{folder: /var/lib/acme/challenges}` or `{upstream: certbot}`"""

    folder: FileText | None = Field(
        None, description="where the ACME client puts a file for each token (its webroot's .well-known/acme-challenge)"
    )
    upstream: Name | None = Field(None, description="the upstream that answers challenges")


@dataclass(frozen=True, slots=True)
class Acme:
    """Challenges are answered from `folder`, or else by `upstream`."""

    folder: str | None = None
    upstream: str | None = None


def build_acme(section: AcmeSection) -> Acme:
    """`section`, which has no findings."""
    return Acme(section.folder, section.upstream)


def acme_findings(section: AcmeSection, upstreams: Iterable[str], path: tuple[str | int, ...]) -> Iterator[Finding]:
    """What is wrong: exactly one must answer, and exist."""
    if section.folder is None and section.upstream is None:
        yield path, "nobody answers: name a `folder` or an `upstream`"
    elif section.folder is not None and section.upstream is not None:
        yield (*path, "upstream"), "`folder` answers already: remove one of them"
    known = list(upstreams)
    if section.upstream is not None and section.upstream not in known:
        yield (
            (*path, "upstream"),
            f"there is no upstream {section.upstream!r}{suggestion(section.upstream, known)}",
        )


def token_of(path: str) -> str | None:
    """The token of a challenge that `path` asks for; None where it is no token.

    >>> token_of("/.well-known/acme-challenge/a-B_9"), token_of("/.well-known/acme-challenge/../x")
    ('a-B_9', None)
    """
    token = path.removeprefix(CHALLENGES)
    return token if _TOKEN.fullmatch(token) else None
