"""Certificates for clients: their files, and what is wrong with them.

One rule: what cannot be served is told when the configuration is read, of the key that names it. What is served is
what was read then, whatever becomes of the files; where they are read anew meanwhile, a bad one leaves what was.
"""

from __future__ import annotations

import errno
import os
import re
import ssl
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import PurePath

from director.kit.schemawalk import suggestion
from l7proxy.core.settings.tls import Certificate, Clients, Tls
from l7proxy.core.x509 import Facts, facts_of
from l7proxy.files.contexts import PassphraseWantedError, context_of, kind_of, later, plan_of

LARGEST_BYTES = 1 << 20
MOST_PAIRS = 5000
"""In one folder."""
MOST_TOLD = 10
ENDS_SOON = timedelta(days=14)
SHORTEST_RSA_BITS = 2048

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_KEY = b"PRIVATE KEY-----"
_ADVICE = {
    errno.ENOENT: "is not there: write its right path, or put it there",
    errno.EACCES: "may not be read by this user: run as root, or let its group read it (chgrp, chmod g+r)",
    errno.EISDIR: "is a directory: name a file in it",
}

About = str
"""Which key of `tls` is meant: `certificate` or `key`."""


def read(named: Certificate, held: Mapping[str, str] | None = None) -> Certificate | list[tuple[About, str]]:
    """`named` with what its files hold, or what keeps it from being served. `held` is what they held for who read them
    before, by path (as latin-1)."""
    pems: dict[About, bytes] = {}
    wrong: list[tuple[About, str]] = []
    for about, path in (("certificate", named.chain), ("key", named.key)):
        try:
            pems[about] = content(path, held)
        except OSError as error:
            wrong.append((about, unreadable(path, error)))
    wrong += _not_pem(named, pems)
    if wrong:
        return wrong
    found = replace(
        named,
        chain_pem=pems["certificate"],
        key_pem=pems["key"],
        name=named.name or named.chain,
        facts=_facts(pems["certificate"]),
    )
    try:
        context_of(found)
    except PassphraseWantedError:
        return [
            ("key", f"{named.key} has a passphrase: write it without one, `openssl pkey -in {named.key} -out FILE`")
        ]
    except OSError as error:  # ssl.SSLError is one
        return [_refused(found, error)]
    return found


def read_all(
    named: Tls, held: Mapping[str, str] | None = None, before: Tls | None = None
) -> tuple[Tls, list[tuple[tuple[str, ...], str]]]:
    """`named` with what its files hold, and what is wrong with each that is bad: the keys below `tls`, and why.

    With `before`, what is bad is left as it was there, and so is a folder that nothing would be left of.
    """
    problems: list[tuple[tuple[str, ...], str]] = []
    pair, clients, found = named.pair, named.clients, list[Certificate]()
    if pair is not None:
        got = read(Certificate(pair.chain, pair.key, name=pair.name), held)
        if isinstance(got, list):
            problems += [((about,), said) for about, said in got]
        pair = got if isinstance(got, Certificate) else (before.pair if before is not None else None)
    if clients is not None:
        authorities = _read_authorities(clients, held)
        if isinstance(authorities, str):
            problems.append((("clients", "ca"), authorities))
        clients = (before.clients if before is not None else None) if isinstance(authorities, str) else authorities
    if named.folder is not None:
        found, wrong = _read_folder(named.folder, held, before)
        problems += [((about,), said) for about, said in wrong]
        names = [each.name for each in found]
        if named.default is not None and named.default not in names and (not wrong or before is not None):
            said = f"{named.folder} has no certificate {named.default!r}{suggestion(named.default, names)}"
            problems.append((("default",), said))
            found += [each for each in before.found if each.name == named.default] if before is not None else []
    tls = replace(named, pair=pair, clients=clients, found=tuple(sorted(found, key=lambda each: each.name)))
    if not problems or before is not None:
        plan_of(tls)  # what takes time is done here, and kept
    return tls, problems


def can_do_without(tls: Tls, problems: Sequence[tuple[tuple[str, ...], str]]) -> bool:
    """Whether what is left of `tls` can be served: `problems` are about single certificates of its folder."""
    known = {each.name for each in tls.certificates}
    return (
        all(about == ("folder",) for about, _ in problems)
        and bool(tls.certificates)
        and (tls.default is None or tls.default in known)
    )


def contents(tls: Tls) -> Iterator[tuple[str, str]]:
    """Path and content of every file of `tls`, for `held`."""
    for each in tls.certificates:
        yield each.chain, each.chain_pem.decode("latin-1")
        yield each.key, each.key_pem.decode("latin-1")
    if tls.clients is not None:
        yield tls.clients.ca, tls.clients.ca_pem.decode("latin-1")


def stamps(tls: Tls) -> dict[str, tuple[int, int, int]]:
    """What tells whether a file of `tls` has changed, without reading any: time, size and inode of each."""
    paths = {tls.clients.ca} if tls.clients is not None else set()
    if tls.pair is not None:
        paths |= {tls.pair.chain, tls.pair.key}
    if tls.folder is not None:
        try:
            paths |= {entry.path for entry in os.scandir(tls.folder) if _may_count(entry.name)}
        except OSError:
            paths.add(tls.folder)
    found = {}
    for path in paths:
        try:
            status = os.stat(path)  # noqa: PTH116 -- hundreds of them, every second
        except OSError:
            found[path] = (0, 0, 0)
        else:
            found[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return found


def difference(before: Tls, after: Tls) -> str:
    """Which certificates are other ones, in a few words for a log line."""
    olds = {each.name: each for each in before.certificates}
    news = {each.name: each for each in after.certificates}
    words = [_told(each) for name, each in news.items() if olds.get(name) != each]
    words += [f"{name} is gone" for name in olds if name not in news]
    if before.clients != after.clients and after.clients is not None:
        words.append(f"{after.clients.ca} for clients")
    more = f"; and {len(words) - MOST_TOLD} more" if len(words) > MOST_TOLD else ""
    return "; ".join(words[:MOST_TOLD]) + more


def _told(certificate: Certificate) -> str:
    facts = certificate.facts
    if facts is None:
        return certificate.name
    names = [*facts.names, *facts.others]
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{certificate.name} ({shown or 'no name'}) until {facts.ends:%Y-%m-%d}"


def expiry(certificate: Certificate) -> datetime | None:
    """When it ends; None where that cannot be told."""
    facts = certificate.facts or _facts(certificate.chain_pem)
    return facts.ends if facts is not None else None


def soonest(tls: Tls) -> datetime | None:
    """When the first of them ends."""
    return min((ends for each in tls.certificates if (ends := expiry(each)) is not None), default=None)


def warnings(tls: Tls, now: datetime | None = None) -> Iterator[tuple[tuple[str, ...], str]]:
    """What is wrong with certificates that can be served: the key below `tls`, and what."""
    for each in tls.certificates:
        about = ("certificate",) if each is tls.pair else ("folder",)
        yield from ((about, f"{each.chain} {said}") for said in _doubts(each, now or datetime.now(UTC)))
        if each is not tls.pair and each.name != tls.default and each.facts is not None and not each.facts.names:
            yield about, f"{each.chain} names no host, so nobody gets it: have one with subjectAltName made"
    yield from ((("folder",), said) for said in _twins(tls))


def _doubts(certificate: Certificate, now: datetime) -> Iterator[str]:
    facts = certificate.facts or _facts(certificate.chain_pem)
    if facts is None:
        return
    if facts.ends <= now:
        yield f"expired at {facts.ends:%Y-%m-%d %H:%M} UTC, and clients refuse it: renew it"
    elif facts.begins > now:
        yield f"is not valid before {facts.begins:%Y-%m-%d %H:%M} UTC, and clients refuse it: is the clock right?"
    elif facts.ends - now < ENDS_SOON:
        yield f"ends in {(facts.ends - now).days} days, at {facts.ends:%Y-%m-%d %H:%M} UTC: renew it"
    if facts.weak_digest:
        yield f"is signed with {facts.weak_digest}, which clients refuse: have one made with SHA-256"
    if facts.bits and facts.bits < SHORTEST_RSA_BITS:
        yield f"has a key of {facts.bits} bits, which clients refuse: have one with {SHORTEST_RSA_BITS} or more made"


def _twins(tls: Tls) -> Iterator[str]:
    """Two for the same name with the same kind of key: one of them is never shown for it."""
    taken: dict[tuple[str, str], Certificate] = {}
    told: set[tuple[str, str]] = set()
    for each in tls.certificates:
        for name in each.facts.names if each.facts is not None else ():
            other = taken.setdefault((name, kind_of(each)), each)
            if other is each:
                continue
            served = later(other, each)
            taken[name, kind_of(each)] = served
            if (other.name, each.name) not in told:
                told.add((other.name, each.name))
                yield f"{other.chain} and {each.chain} are both for {name}: {served.chain} is shown, it ends later"


def _facts(chain_pem: bytes) -> Facts | None:
    first = _CERTIFICATE.search(chain_pem)
    if first is None:
        return None
    try:
        return facts_of(ssl.PEM_cert_to_DER_cert(first[0].decode("ascii")))
    except ValueError:
        return None


def _may_count(name: str) -> bool:
    return name.endswith((".pem", ".crt", ".key")) and not name.startswith(".")


def _read_folder(
    folder: str, held: Mapping[str, str] | None, before: Tls | None
) -> tuple[list[Certificate], list[tuple[str, str]]]:
    """The certificates in `folder`, and what is wrong with others."""
    old = {each.name: each for each in before.found} if before is not None else {}
    try:
        if held is not None:
            names = [PurePath(path).name for path in held if str(PurePath(path).parent) == str(PurePath(folder))]
        else:
            names = os.listdir(folder)  # noqa: PTH208 -- names are what is wanted
    except NotADirectoryError:
        return list(old.values()), [("folder", f"{folder} is a file: name the folder that it is in")]
    except OSError as error:
        return list(old.values()), [("folder", unreadable(folder, error))]
    there = sorted(name for name in names if _may_count(name))
    if len(there) > 2 * MOST_PAIRS:
        return list(old.values()), [("folder", f"{folder} holds {len(there)} files: at most {MOST_PAIRS} certificates")]
    found: list[Certificate] = []
    problems: list[tuple[str, str]] = []
    for stem in dict.fromkeys(name.rpartition(".")[0] for name in there):
        named = _in_folder(folder, stem, there)
        got = read(named, held) if isinstance(named, Certificate) else named
        if isinstance(got, str):
            got = [("folder", got)]
        if isinstance(got, Certificate):
            found.append(got)
        else:
            problems += [("folder", said) for _, said in got]
            found += [old[stem]] if stem in old else []
    if not found and not problems:
        problems.append(("folder", f"{folder} holds no certificate: put NAME.pem there, or NAME.crt and NAME.key"))
        found = list(old.values())
    return found, problems


def _in_folder(folder: str, stem: str, there: Iterable[str]) -> Certificate | str:
    """Which files are meant by `stem`, or what is wrong with them."""
    path = str(PurePath(folder) / stem)
    known = set(there)
    has_pem, has_crt, has_key = (f"{stem}.{ending}" in known for ending in ("pem", "crt", "key"))
    if has_pem and has_crt:
        return f"{path}.pem and {path}.crt are both there: remove one"
    if not has_pem and not has_crt:
        return f"{path}.key has no certificate beside it: put {stem}.crt there, or remove the key"
    chain = f"{path}.pem" if has_pem else f"{path}.crt"
    return Certificate(chain, f"{path}.key" if has_key else chain, name=stem)


def _read_authorities(clients: Clients, held: Mapping[str, str] | None) -> Clients | str:
    path = clients.ca
    try:
        pem = content(path, held)
    except OSError as error:
        return unreadable(path, error)
    if not _CERTIFICATE.search(pem):
        return f"{path} holds no certificate in PEM: `openssl x509 -inform DER` writes one"
    if not _holds_certificates(pem):
        return f"{path} cannot be used: put it there again"
    return replace(clients, ca_pem=pem)


def content(path: str, held: Mapping[str, str] | None = None) -> bytes:
    """What the file at `path` holds, or did for who has read it before (`held`, by path, as latin-1).

    Raises: OSError.
    """
    return held[path].encode("latin-1") if held is not None and path in held else whole_file(path)


def unreadable(path: str, error: OSError) -> str:
    """Why the file at `path` cannot be read, and what to do."""
    return f"{path} {_ADVICE.get(error.errno or 0, f'cannot be read: {error.strerror or error}')}"


def whole_file(path: str, largest_bytes: int = LARGEST_BYTES) -> bytes:
    """What the file at `path` holds. Raises: OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise OSError(errno.EISDIR, "")
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no file")
        content = file.read(largest_bytes + 1)
    if len(content) > largest_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {largest_bytes >> 20} MiB")
    return content


def _not_pem(named: Certificate, pems: dict[About, bytes]) -> Iterator[tuple[About, str]]:
    chain, key = pems.get("certificate"), pems.get("key")
    if chain is not None and not _CERTIFICATE.search(chain):
        if _KEY in chain:
            yield "certificate", f"{named.chain} holds a key and no certificate: is it meant for `key`?"
        else:
            yield "certificate", f"{named.chain} holds no certificate in PEM: `openssl x509 -inform DER` writes one"
    if key is not None and _KEY not in key:
        if named.key == named.chain and named.name not in {"", named.chain}:
            yield "key", f"{named.chain} holds no key, and {named.name}.key is not beside it: put it there"
        elif _CERTIFICATE.search(key):
            yield "key", f"{named.key} holds a certificate and no key: is it meant for `certificate`?"
        else:
            yield "key", f"{named.key} holds no key in PEM: `openssl pkey -inform DER` writes one"


def _refused(found: Certificate, error: OSError) -> tuple[About, str]:
    """What OpenSSL says, as far as it says anything, in words that help."""
    reason = getattr(error, "reason", None) or ""
    said = reason.lower().replace("_", " ")
    if reason in {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}:
        return "key", (
            f"{found.key} is not the key of the first certificate in {found.chain}: name the pair that was made "
            "together; the certificate stands before its chain"
        )
    if reason.endswith(("_TOO_SMALL", "_TOO_WEAK")):
        return "certificate", f"{found.chain} is too weak for OpenSSL ({said}): have one with a longer key made"
    if _holds_certificates(found.chain_pem):
        return "key", f"{found.key} cannot be used ({said or 'it is no whole key'}): put the key there again"
    return "certificate", f"{found.chain} cannot be used ({said or 'it is no whole certificate'}): put it there again"


def _holds_certificates(pem: bytes) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(
            cadata="\n".join(each.decode("ascii") for each in _CERTIFICATE.findall(pem))
        )
    except (OSError, ValueError):
        return False
    return True
