"""A configuration from its file, with what only this host can fill in.

One rule: what comes out has no gaps: `auto` workers are so many, and certificates and keys are what their files hold.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from director.kit.configfile import Finding, read_text
from director.kit.net import Answer
from director.kit.problem import InvalidConfigError, Problem
from director.kit.yamltree import dotted, parse
from l7proxy.core.capacity import crowding_findings
from l7proxy.core.config import load_config
from l7proxy.core.model import Config, Listener, Upstream
from l7proxy.core.schema import ConfigSection
from l7proxy.core.settings.backside import BackendTls, build_backend_tls
from l7proxy.core.settings.tls import Tls, build_tls
from l7proxy.core.unused import idle_findings, unused_findings
from l7proxy.files import backside, certificates, contents, keyfiles, names

log = logging.getLogger("l7proxy")

NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A file's text, and what it means. `warnings` are what does not keep it from being served; `files` is what the
    files that it names held, by path (as latin-1), for other processes that are to serve the same."""

    source: str
    text: str
    config: Config
    warnings: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict, repr=False)
    left_out: tuple[str, ...] = ()
    """Certificates of folders that cannot be served, at a start."""

    def log_warnings(self) -> None:
        """One line each."""
        for each in self.left_out:
            log.error("certificate left out, the others are served", extra={"problem": each})
        for each in self.warnings:
            log.warning("the configuration is served as it is", extra={"problem": each})


class _Outside:
    """What the files that a configuration names hold. `left_out` are certificates that a start goes without."""

    def __init__(self, files: Mapping[str, str] | None, is_start: bool) -> None:
        self._files = files
        self._is_start = is_start
        self.held: dict[Tls, Tls] = {}
        self.ways: dict[BackendTls, BackendTls] = {}
        self.read: dict[str, bytes] = {}
        self.key_files: dict[str, str] = {}
        self.left_out: list[Finding] = []

    def findings(self, section: ConfigSection) -> Iterator[Finding]:
        """Read them all; what is wrong with them."""
        for name, listener in section.listeners.items():
            if listener.tls is None:
                continue
            named = build_tls(listener.tls)
            self.held[named], problems = certificates.read_all(named, self._files)
            found = [(("listeners", name, "tls", *about), message) for about, message in problems]
            if self._is_start and certificates.can_do_without(self.held[named], problems):
                self.left_out.extend(found)
            else:
                yield from found
        for name, upstream in section.upstreams.items():
            if upstream.sticky is not None and upstream.sticky.key_file is not None:
                key_file = upstream.sticky.key_file
                try:
                    self.key_files[key_file] = keyfiles.read(key_file, self._files)
                except ValueError as error:
                    yield ("upstreams", name, "sticky", "key_file"), str(error)

        for name, upstream in section.upstreams.items():
            if upstream.tls is None:
                continue
            tls = build_backend_tls(upstream.tls)
            known = backside.read(tls, self._files)
            if isinstance(known, BackendTls):
                self.ways[tls] = known
            else:
                yield from ((("upstreams", name, "tls", about), message) for about, message in known)

        for path, file, judge in contents.named(section):
            try:
                self.read[file] = contents.read(file, self._files)
            except ValueError as error:
                yield path, str(error)
            else:
                yield from ((path, message) for message in judge(self.read[file]))

    def filled(self, upstream: Upstream) -> Upstream:
        """`upstream` with its keys and certificates."""
        sticky, tls = upstream.sticky, upstream.tls
        if sticky is not None and (path := sticky.key_file):
            upstream = replace(upstream, sticky=replace(sticky, keys=keyfiles.keys_of(self.key_files[path], path)))
        return replace(upstream, tls=self.ways[tls]) if tls is not None else upstream

    def contents(self) -> dict[str, str]:
        """All of it, by path (as latin-1), for who is to serve the same."""
        found = {file: content.decode("latin-1") for file, content in self.read.items()}
        found.update(pair for each in self.held.values() for pair in certificates.contents(each))
        for tls in self.ways.values():
            found.update((path, pem.decode("latin-1")) for path, pem in backside.files_of(tls))
        return {**found, **self.key_files}


def load_file(path: str, before: Loaded | None = None, *, is_start: bool = False) -> Loaded:
    """Read the file at `path`, and those that it names. `before` is what is served meanwhile: names that it has
    addresses for keep them while nobody can say better. With `is_start` nothing is served yet: a bad certificate among
    good ones of a folder is left out, for one site must not keep all others down.

    Raises: InvalidConfigError.
    """
    return load_text(read_text(path), path, known=before.files if before is not None else {}, is_start=is_start)


def load_text(
    text: str,
    source: str,
    files: Mapping[str, str] | None = None,
    known: Mapping[str, str] = NOTHING,
    *,
    is_start: bool = False,
) -> Loaded:
    """The same for a text that is there already, and with `files` for what the files that it names held; `known` is
    what names were before.

    Raises: InvalidConfigError.
    """
    answers: dict[str, Answer] = {}
    unsaid: dict[str, str] = {}
    outside = _Outside(files, is_start)

    def look_up(hosts: Iterable[str]) -> Mapping[str, Answer]:
        answers.update(names.remembered(said := names.look_up(hosts, files), known))
        unsaid.update({host: why for host, why in said.items() if isinstance(why, str)})
        return answers

    config = contents.filled(load_config(text, source, outside.findings, look_up), outside.read)
    if crowded := list(crowding_findings(config)):
        raise _refused(text, source, crowded)
    listeners = tuple(
        replace(listener, tls=outside.held[listener.tls]) if listener.tls is not None else listener
        for listener in config.listeners
    )
    warnings = [
        *unused_findings(config),
        *idle_findings(config),
        *_doubts(listeners),
        *_no_folders(listeners),
        *_no_addresses(config, unsaid),
    ]
    upstreams = {name: outside.filled(upstream) for name, upstream in config.upstreams.items()}
    workers = config.workers or len(os.sched_getaffinity(0))
    return Loaded(
        source,
        text,
        replace(config, workers=workers, listeners=listeners, upstreams=upstreams),
        _placed(text, source, warnings),
        {**outside.contents(), **names.kept(answers)},
        _placed(text, source, outside.left_out),
    )


@dataclass(frozen=True, slots=True)
class Renewal:
    """`loaded` with the certificates that are in its files now. `changed` says of each listener which are other ones;
    `problems` are what could not be taken, and was left as it was."""

    loaded: Loaded
    changed: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    moved: Mapping[str, str] = field(default_factory=dict)
    """Names of backends that have other addresses."""


def renewed(loaded: Loaded) -> Renewal:
    """Read the files of certificates again, look names up again, and nothing else."""
    changed: list[tuple[str, str]] = []
    problems: list[Finding] = []
    listeners = []
    moved = names.news(loaded.files)
    if moved:
        loaded = load_text(loaded.text, loaded.source, {**loaded.files, **moved})
    files = dict(loaded.files)
    for listener in loaded.config.listeners:
        before = listener.tls
        if before is not None:
            after, wrong = certificates.read_all(before, None, before)
            problems += [(("listeners", listener.name, "tls", *about), said) for about, said in wrong]
            if after != before:
                changed.append((listener.name, certificates.difference(before, after)))
                listener = replace(listener, tls=after)  # noqa: PLW2901 -- the same with other certificates
        listeners.append(listener)
    if changed:
        olds = [listener.tls for listener in loaded.config.listeners if listener.tls is not None]
        news = [listener.tls for listener in listeners if listener.tls is not None]
        for path in {path for each in olds for path, _ in certificates.contents(each)}:
            files.pop(path, None)
        files.update(pair for each in news for pair in certificates.contents(each))
    text, source = loaded.text, loaded.source
    # As workers read it: two listeners may have a folder in common, and one of them have kept what is gone from it.
    config = load_text(text, source, files).config if changed else loaded.config
    known = set(_doubts(loaded.config.listeners)) if changed else set()
    doubts = [doubt for doubt in _doubts(config.listeners) if doubt not in known] if changed else []
    return Renewal(
        replace(loaded, config=config, files=files),
        tuple(changed),
        _placed(text, source, problems),
        _placed(text, source, doubts),
        {host.removeprefix("name:"): said for host, said in moved.items()},
    )


def _doubts(listeners: Sequence[Listener]) -> Iterator[Finding]:
    """What is wrong with certificates that are served all the same."""
    for listener in listeners:
        if listener.tls is not None:
            yield from (
                (("listeners", listener.name, "tls", *about), said)
                for about, said in certificates.warnings(listener.tls)
            )


def _no_addresses(config: Config, unsaid: Mapping[str, str]) -> Iterator[Finding]:
    for name, upstream in config.upstreams.items():
        for backend in upstream.backends:
            path = ("upstreams", name, "backends", backend.name, "address")
            if backend.unresolved:
                why = f"{backend.unresolved}; the backend is down until it has one"
                yield path, f"{backend.host} has no address: {why}"
            elif backend.host in unsaid:
                keeps = f"the backend keeps {backend.endpoint.address}"
                yield path, f"{backend.host} cannot be looked up: {unsaid[backend.host]}; {keeps}"


def _no_folders(listeners: Sequence[Listener]) -> Iterator[Finding]:
    for listener in listeners:
        folder = listener.acme.folder if listener.acme is not None else None
        if folder is not None and not os.path.isdir(folder):  # noqa: PTH112 -- it never raises
            yield ("listeners", listener.name, "acme", "folder"), f"{folder} is no folder yet: no challenge is answered"


def _placed(text: str, source: str, findings: Sequence[Finding]) -> tuple[str, ...]:
    """The lines of `findings`, with places as errors have them. Only for them is the text read again."""
    if not findings:
        return ()
    if not text:
        return tuple(f"{source}: {dotted(path)}: {message}" for path, message in findings)
    return tuple(_refused(text, source, findings).lines())


def _refused(text: str, source: str, findings: Sequence[Finding]) -> InvalidConfigError:
    tree = parse(text)
    problems = sorted(Problem(tree.mark(path), f"{dotted(path)}: {message}") for path, message in findings)
    return InvalidConfigError(source, problems)
