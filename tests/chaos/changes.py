"""What people and controllers of a cluster change around a daemon that is joined to it. Shell.

Each takes the player of a history and an event of it, as the events in `tests.chaos.history` do.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from eni.model import CreateEni
from ipamd.cluster import ENI_CONFIG_LABEL
from ipamd.intents import CLUSTER_TAG, CREATED_TAG, DESCRIPTION, INSTANCE_TAG, INTENT_TAG
from ipamd.layers import SETTINGS_ANNOTATION
from ipamd.settings import ENI_CONFIG_KEY
from tests.chaos.draw import CLUSTER_NAME, NAMES, Event, What, Wish, draw_wish, wish_for
from tests.chaos.world import EPOCH

if TYPE_CHECKING:
    from tests.chaos.cluster_side import ModelCluster
    from tests.chaos.history import Player

MISCOUNT = 20
"""By how many pods a count may be wrong."""

GONE = "i-000000000000000ff"
"""An instance that is gone, and was a node of a cluster."""

OLD_SECONDS, YOUNG_SECONDS = 3600.0, 10.0
"""How long ago an ENI that is left over was made."""


def cluster_of(player: Player) -> ModelCluster:
    """Return the cluster of a history that has one."""
    assert player.world.cluster is not None
    return player.world.cluster


# Settings --------------------------------------------------------------------------------
def change_settings(player: Player, event: Event) -> None:
    """Write other settings into the node's annotation, or what cannot be."""
    wish(player, draw_wish(player.history, event.roll))


def wish(player: Player, wished: Wish) -> None:
    """Let the node's annotation say what is wished."""
    cluster = cluster_of(player)
    player.world.note(f"* annotation: {wished.annotation}")
    player.laws.orders.wished = wished
    player.laws.orders.was_spoiled |= wished.settings is None
    cluster.annotations[SETTINGS_ANNOTATION] = wished.annotation
    cluster.change()


def provision(player: Player) -> None:
    """Let EC2 be asked again, if only for a while it was not to be."""
    base = player.history.settings
    if player.world.cluster is not None and base.provisioning:
        wished = player.laws.orders.wished
        if wished is not None and not (wished.settings and wished.settings.provisioning):
            wish(player, wish_for(base))


# ENIConfigs ------------------------------------------------------------------------------
def name_configs(player: Player, event: Event) -> None:
    """Let the node name other ENIConfigs."""
    key, _ = player.history.named
    names = NAMES if key == "annotation" else NAMES[:2]
    name(player, names[int(event.roll * len(names))])


def name(player: Player, names: str) -> None:
    """Let the node name these ENIConfigs, as it does in this history."""
    cluster, (key, _) = cluster_of(player), player.history.named
    where = cluster.annotations if key == "annotation" else cluster.labels
    where[ENI_CONFIG_LABEL if key == ENI_CONFIG_LABEL else ENI_CONFIG_KEY] = names
    player.laws.orders.placed.name(player.world.now, names, cluster.configs)
    cluster.change()


def change_config(player: Player, event: Event) -> None:
    """Change an ENIConfig for a while, spoil it, or take it away."""
    cluster, history = cluster_of(player), player.history
    names = sorted(history.configs)
    chosen = names[int(event.roll * len(names))]
    spec = history.configs[chosen]
    broken: tuple[Mapping[str, Any] | None, ...] = (
        None,
        {**spec, "subnet": "nowhere"},
        {**spec, "subnet": history.configs["zone-b"]["subnet"]},
        {**spec, "securityGroups": []},
    )
    put(player, chosen, broken[int(event.roll * 997) % len(broken)])
    player.world.later(event.seconds, lambda: put(player, chosen, spec))
    cluster.change()


def put(player: Player, chosen: str, spec: Mapping[str, Any] | None) -> None:
    """Let an ENIConfig say something; None: let it not be there."""
    cluster = cluster_of(player)
    if spec is None:
        cluster.configs.pop(chosen, None)
    else:
        cluster.configs[chosen] = spec
    player.laws.orders.placed.see(player.world.now, cluster.configs)


# Pods that are bound ---------------------------------------------------------------------
def miscount(player: Player, event: Event) -> None:
    """Let the cluster count wrongly for a while: some too many, or too few."""
    player.skew = int((event.roll - 0.3) * MISCOUNT)
    recount(player)

    def count_well() -> None:
        player.skew = 0
        recount(player)

    player.world.later(event.seconds, count_well)


def recount(player: Player) -> None:
    """Let the cluster count the pods that are bound here."""
    cluster = cluster_of(player)
    bound = max(0, len(player.bound) + player.skew)
    if bound != cluster.bound:
        cluster.bound = bound
        cluster.change()


# Who sweeps ------------------------------------------------------------------------------
def elect(player: Player, event: Event) -> None:
    """Let this node be the sweeper for a while; it looks twice, a minute apart."""
    cluster = cluster_of(player)
    cluster.elect(is_elected=True)
    player.world.later(2 * event.seconds, lambda: cluster.elect(is_elected=False))


def leak(player: Player, event: Event) -> None:
    """Let a node that is gone have left an ENI: long ago, just now, or of another cluster."""
    cloud, world = player.account_cloud, player.world
    if cloud.account.census(cloud.subnet_id).free <= 2:
        return
    kinds = ((CLUSTER_NAME, OLD_SECONDS), (CLUSTER_NAME, YOUNG_SECONDS), ("other", OLD_SECONDS))
    cluster, age = kinds[int(event.roll * len(kinds))]
    made = dt.datetime.fromtimestamp(int(EPOCH + world.now - age), dt.UTC)
    token = f"left-{world.next_id()}"
    tags = {
        INSTANCE_TAG: GONE,
        CLUSTER_TAG: cluster,
        CREATED_TAG: made.isoformat().replace("+00:00", "Z"),
        INTENT_TAG: token,
    }
    wished = CreateEni(
        token=token,
        subnet_id=cloud.subnet_id,
        security_groups=(),
        description=f"{DESCRIPTION}{GONE}",
        secondary_count=0,
        prefix_count=0,
        tags=tuple(tags.items()),
    )
    cloud.account.vpc.create(wished)
    player.laws.past.record()


def api_away(player: Player, event: Event) -> None:
    """Let the API server be away for a while."""
    cluster = cluster_of(player)
    cluster.set_away(is_away=True)
    player.world.later(event.seconds, lambda: cluster.set_away(is_away=False))


HAPPENS: Mapping[What, Callable[[Player, Event], None]] = {
    What.CHANGE_SETTINGS: change_settings,
    What.CHANGE_CONFIG: change_config,
    What.NAME_CONFIGS: name_configs,
    What.MISCOUNT: miscount,
    What.ELECT: elect,
    What.LEAK: leak,
    What.API_AWAY: api_away,
}
