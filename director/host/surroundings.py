"""What a configuration needs around its table: settings of this host, and rules in its packet filter.

One rule: it is made before the table and the addresses that need it, and goes after them; `release` says when.
"""

from __future__ import annotations

from pathlib import Path

from director.core.model import Config, DeadConnections
from director.core.rules import rules_of
from director.core.standing import Correction, KeptSetting, Standing
from director.host import settings, sysctl
from director.host.change import Attempt
from director.host.firewall import Firewall
from director.host.kept import KeptSettings
from director.host.sysctl import Remembered


class Surroundings:
    """Settings, remembered in `directory`, and our chains. One process at a time; the calls block."""

    def __init__(self, directory: Path) -> None:
        self._settings = KeptSettings(directory)
        self._firewall = Firewall()

    def pending(self, config: Config, *, release: bool) -> tuple[Correction, ...]:
        """What `enforce` would change. Raises: HostError when it cannot be looked at."""
        found = self._settings.plan(_requirements(config), release=release)
        rules = self._firewall.differences(rules_of(config), keep_more=not release)
        return (
            *(Correction(f"setting {sysctl.name(each.key)}", each.detail, each.effect) for each in found),
            *(Correction("packet filter", sentence) for sentence in rules),
        )

    def enforce(self, config: Config, *, release: bool) -> Attempt:
        """Make settings and rules what `config` needs; what it does not need goes too where `release` is set.

        Raises: HostError when the state file or a setting cannot be read.
        """
        done = self._settings.enforce(_requirements(config), release=release)
        refused = tuple(f"{each}; or write `settings: report` and set it yourself" for each in done.failures)
        done = Attempt(done.changes, refused)
        return done + self._firewall.enforce(rules_of(config), keep_more=not release)

    def standing(self) -> Standing:
        """What stands now. Raises: HostError."""
        kept = (KeptSetting(sysctl.name(each.key), each.before, each.ours) for each in self._settings.remembered())
        return Standing(tuple(kept), self._firewall.holds())

    def put_back(self, standing: Standing) -> Attempt:
        """Make all as `standing` has it; an empty one takes away all that is ours. Raises: HostError."""
        done = self._firewall.put_back(standing.rules)
        entries = tuple(Remembered(sysctl.key_of(each.name), each.before, each.ours) for each in standing.settings)
        return done + self._settings.put_back(entries)


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


def _requirements(config: Config) -> tuple[settings.Requirement, ...]:
    if not config.manage_settings:
        return ()
    return settings.required(uses(config), settings.all_interfaces(), dead_connections(config))
