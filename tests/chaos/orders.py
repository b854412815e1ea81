"""Whether a daemon does what it was told, and leaves alone what is not its own. Shell.

A part of the laws: by the settings that hold, by the tags of an ENI, by who sweeps.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from eni.model import Eni
from ipamd.intents import CLUSTER_TAG, CREATED_TAG, INSTANCE_TAG, UNMANAGED_TAG
from ipamd.settings import Settings
from ipamd.sweep import YOUNG_SECONDS
from ipamd.terms import Mode
from tests.chaos.law import Law
from tests.chaos.told import Places, since
from tests.chaos.world import EPOCH

if TYPE_CHECKING:
    from tests.chaos.draw import Wish
    from tests.chaos.laws import Laws

MUTATIONS = frozenset({"attach", "detach", "delete", "assign", "unassign"})
"""What must not be repeated while nobody knows whether it was done. Setting an attribute twice
is setting it once, and a Create has its token."""

ABOUT_AN_ENI = MUTATIONS | {"delete_on_termination", "set_groups", "tag"}
"""What changes something of an ENI that is there."""

PROVISIONS = ABOUT_AN_ENI | {"create"}
"""What a daemon that is to leave ENIs alone never asks."""

FLIES_SECONDS = 300.0
"""How long what was begun may still be brought to its end, when EC2 is to be asked no more."""

LED_SECONDS = 30.0
"""How long after it has lost the Lease a sweeper's last call may take."""


@dataclass(slots=True)
class Orders:
    """What the daemon of one world was told."""

    _laws: Laws
    placed: Places
    wished: Wish | None = None
    """What the node's annotation says; None: there is none."""
    was_spoiled: bool = False
    """Whether it has ever said what cannot be; a daemon may start with what was noted then."""
    is_clock_sound: bool = True
    """Whether the wall clock is nobody's to set."""

    def on_told(self, before: Settings) -> None:
        """Judge what a daemon makes of its Node's annotation; *before* is what held till then."""
        daemon, wished = self._laws.world.daemon, self.wished
        after = daemon.settings
        expected = before if wished is None or wished.settings is None else wished.settings
        if after != expected:
            self._laws.broke(Law.TOLD, f"{_differing(after, expected)} after {wished}")
        is_kept = wished is not None and wished.settings is None
        if is_kept is not bool(daemon.complaint and Mode.SETTINGS_KEPT in daemon.modes):
            self._laws.broke(Law.TOLD, f"{daemon.complaint!r} is complained after {wished}")

    def at_rest(self) -> Iterator[tuple[Law, str]]:
        """Yield where the daemon works by other settings than hold."""
        daemon, settings = self._laws.world.daemon, self._laws.world.settings
        if daemon.settings != settings:
            yield Law.TOLD, f"{_differing(daemon.settings, settings)} hold"
        works_by = daemon.engine.terms, daemon.attachments.cooldown_seconds
        if works_by != (daemon.outlook.terms, settings.cooldown_seconds):
            yield Law.TOLD, f"the daemon works by {works_by}, and {settings} hold"

    def decided(self, tags: Mapping[str, str]) -> float:
        """Return when an ENI was decided upon, as its tag has it."""
        if not self.is_clock_sound:
            return self._laws.world.now - FLIES_SECONDS
        return dt.datetime.fromisoformat(tags[CREATED_TAG]).timestamp() - EPOCH

    def check_mode(self, name: str) -> None:
        """Judge whether a call may be made at all."""
        settings, now = self._laws.world.settings, self._laws.world.now
        if settings.imds_only:
            self._laws.broke(Law.FORBIDDEN, f"{name}, and EC2 is not to be asked")
        if name not in PROVISIONS:
            return
        if not any(
            s.provisioning for s in since(self._laws.world.settings_held, now - FLIES_SECONDS)
        ):
            self._laws.broke(Law.FORBIDDEN, f"{name}, and nothing is to be provisioned")

    def check_whose(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Judge whether an ENI is ours to change."""
        about = self._laws.account.vpc.eni_of(arguments[0]) if name == "detach" else arguments[0]
        eni = next((eni for eni in self._laws.account.enis() if eni.id == about), None)
        if eni is None:
            return
        owner, mine = eni.tags.get(INSTANCE_TAG), self._laws.world.cloud.identity.instance_id
        is_primary = eni.attachment is not None and eni.attachment.device_index == 0
        is_managed = is_primary or owner == mine or self._laws.world.settings.manage_untagged_eni
        if eni.tags.get(UNMANAGED_TAG) == "true" or (owner is None and not is_managed):
            self._laws.broke(Law.ALONE, f"{name} {eni.id}, whose tags are {dict(eni.tags)}")
        if owner not in {None, mine}:
            self._check_sweep(name, eni)

    def _check_sweep(self, name: str, eni: Eni) -> None:
        """Judge what is done about another node's ENI."""
        cluster, wall = self._laws.world.cluster, EPOCH + self._laws.world.now
        is_elected = cluster is not None and cluster.leads_since(LED_SECONDS)
        ours = self._laws.world.settings.cluster_name
        is_of_cluster = bool(ours) and eni.tags.get(CLUSTER_TAG) == ours
        age = wall - dt.datetime.fromisoformat(eni.tags[CREATED_TAG]).timestamp()
        is_old = age >= YOUNG_SECONDS or not self.is_clock_sound
        if name != "delete" or not (is_elected and is_of_cluster and is_old):
            told = f"elected: {is_elected}, tags: {dict(eni.tags)}, {age:.0f} s old"
            self._laws.broke(Law.ELECTED, f"{name} {eni.id}, {told}")


def _differing(one: Settings, other: Settings) -> str:
    """Return what of *one* is not as in *other*."""
    names = [f.name for f in fields(one) if getattr(one, f.name) != getattr(other, f.name)]
    return ", ".join(f"{n}={getattr(one, n)!r}, not {getattr(other, n)!r}" for n in names)
