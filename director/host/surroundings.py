"""What a configuration needs around its table: settings of this host, and rules in its packet filter.

One rule: it is made before the table and the addresses that need it, and goes after them; `release` says when.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from director.core.model import Config, DeadConnections
from director.core.rules import Rules, rules_of
from director.core.standing import Correction, KeptSetting, Standing
from director.host import addresses, probepath, routing, settings, sysctl
from director.host.change import Attempt
from director.host.firewall import Firewall
from director.host.kept import KeptSettings
from director.host.sysctl import Key, Remembered

GUARDED = "raw"  # the table of the guard's chain


class Surroundings:
    """Settings, remembered in `directory`, and our chains. One process at a time; the calls block."""

    def __init__(self, directory: Path) -> None:
        self._settings = KeptSettings(directory)
        self._firewall = Firewall()

    def pending(self, config: Config, *, release: bool) -> tuple[Correction, ...]:
        """What `enforce` would change. Raises: HostError when it cannot be looked at."""
        needs = self._needs(config)
        wanted = (*_requirements(config), *needs.requirements)
        found = self._settings.plan(wanted, release=release)
        rules = self._firewall.differences(_rules(config, needs), keep_more=not release)
        return (
            *(Correction(f"setting {sysctl.name(each.key)}", each.detail, each.effect) for each in found),
            *(Correction("packet filter", sentence) for sentence in rules),
        )

    def enforce(self, config: Config, *, release: bool) -> Attempt:
        """Make settings and rules what `config` needs; what it does not need goes too where `release` is set.

        Raises: HostError when the state file or a setting cannot be read.
        """
        needs = self._needs(config)
        guarded = Attempt()
        if needs.guards:  # before what they guard is opened
            guarded = self._firewall.enforce(_rules(config, needs), keep_more=not release)
        wanted = (*_requirements(config), *(() if guarded.failures else needs.requirements))
        done = self._settings.enforce(wanted, release=release)
        refused = tuple(f"{each}; or write `settings: report` and set it yourself" for each in done.failures)
        done = guarded + Attempt(done.changes, refused)
        return done if needs.guards else done + self._firewall.enforce(_rules(config, needs), keep_more=not release)

    def standing(self) -> Standing:
        """What stands now. Raises: HostError."""
        kept = (KeptSetting(sysctl.name(each.key), each.before, each.ours) for each in self._settings.remembered())
        return Standing(tuple(kept), self._firewall.holds())

    def put_back(self, standing: Standing) -> Attempt:
        """Make all as `standing` has it; an empty one takes away all that is ours. Raises: HostError."""
        entries = tuple(Remembered(sysctl.key_of(each.name), each.before, each.ours) for each in standing.settings)
        # What a guard is for opens after it, and closes before it goes.
        if any(each.table == GUARDED for each in standing.rules):
            done = self._firewall.put_back(standing.rules)
            return done + self._settings.put_back(entries)
        done = self._settings.put_back(entries)
        return done + self._firewall.put_back(standing.rules)

    def _needs(self, config: Config) -> probepath.Needs:
        if not (config.steerings and config.manage_settings):
            return probepath.NOTHING
        return path_needs(config, [each.key for each in self._settings.remembered()])


def uses(config: Config) -> tuple[settings.Use, ...]:
    """What of `config` asks for settings of this host."""
    return tuple(
        settings.Use(
            virtual.name,
            method.value,
            family,
            persistent=virtual.row.persistence_s > 0,
            resumes=config.sync is not None and virtual.row.scheduler == "mh",
        )
        for virtual in config.virtual_servers
        for method in virtual.methods()
        for family in sorted({key.family for key in virtual.keys})
    )


def dead_connections(config: Config) -> settings.DeadConnections | None:
    """The wish of `config`; None for what is the kernel's default anyway, so that a choice made by hand stands."""
    return "expire" if config.dead_connections is DeadConnections.EXPIRE else None


def path_needs(config: Config, ours: Collection[Key] = ()) -> probepath.Needs:
    """What the probes of `config` through the forwarding path need; `ours` are settings that the director has made.

    Raises: HostError.
    """
    if not config.steerings:
        return probepath.NOTHING
    # An address that is still to come is where the file has it.
    held = addresses.held() | frozenset(config.vips())
    return probepath.needs(config.steerings, held, routing.interfaces(each.real for each in config.steerings), ours)


def _rules(config: Config, needs: probepath.Needs) -> Rules:
    return replace(rules_of(config), guards=needs.guards)


def _requirements(config: Config) -> tuple[settings.Requirement, ...]:
    if not config.manage_settings:
        return ()
    return settings.required(uses(config), settings.all_interfaces(), dead_connections(config))
