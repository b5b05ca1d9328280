"""Which of the director's addresses come, go and wait.

One rule: an address comes when somebody answers behind it, and one that moves is never nowhere.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from director.core.model import Config
from director.core.plan import Plan
from director.core.removal import Removal
from director.core.vip import Vip


def plan_addresses(
    config: Config, ready: AbstractSet[str], present: frozenset[Vip], own: frozenset[Vip], removal: Removal
) -> Plan:
    """A plan for the addresses alone.

    `ready` names the virtual servers whose address may be raised, `present` is what is there, `own` what is the
    director's. Held: none goes. While connected: none but one that moves, because clients come by it.
    """
    wanted = config.vips()
    # Virtual servers that share an address wait for the last of them: raising it serves them all.
    early = {vip for vs in config.virtual_servers if vs.name not in ready for vip in vs.vips}
    missing = [vip for vip in wanted if vip not in present]
    homes = {vip.address: vip for vip in wanted}
    leaving = tuple(sorted((own & present) - set(wanted), key=str))
    gone = tuple(vip for vip in leaving if vip.address not in homes)
    # One that moves leaves its old interface last: where the new one is not there, it goes on being served.
    moved = tuple(vip for vip in leaving if vip.address in homes and homes[vip.address] not in early)
    return Plan(
        vips_remove=gone if removal is Removal.AT_ONCE else (),
        vips_replaced=() if removal is Removal.HELD else moved,
        vips_add=tuple(vip for vip in missing if vip not in early),
        waiting=tuple(vip for vip in missing if vip in early),
        vips_leaving={
            Removal.AT_ONCE: (),
            Removal.HELD: leaving,
            Removal.WHILE_CONNECTED: gone,
        }[removal],
    )
