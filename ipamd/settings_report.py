"""What `enid settings` shows: the settings, and for each where it came from. Pure."""

from __future__ import annotations

from typing import TypedDict

from eni.limits import InstanceLimits
from ipamd.kinds import shown
from ipamd.layers import Chosen, Origin, Resolved, where_no_prefixes
from ipamd.settings import Settings, on_type
from ipamd.settings_table import SETTINGS, Setting
from ipamd.terms import without_prefixes


class SettingReport(TypedDict):
    """One setting; *where* is empty for a default, *value* and *default* for "not set"."""

    name: str
    section: str
    fate: str
    value: str
    origin: str
    where: str
    effect: str
    pending: str
    default: str
    peer_default: str | None
    is_set: bool


class SettingsReport(TypedDict):
    """What `enid settings -o json` prints.

    *complaint*: the last change was refused, and why. *pool*: demand, fixed, or as it is, which
    means that nothing is provisioned.
    """

    complaint: str | None
    pool: str
    warnings: list[str]
    settings: list[SettingReport]


def settings_report(resolved: Resolved, complaint: str | None) -> SettingsReport:
    """Return what `enid settings` shows."""
    return SettingsReport(
        complaint=complaint,
        pool=_pool(resolved.settings),
        warnings=list(resolved.warnings),
        settings=[_report(setting, resolved.chosen[setting.name]) for setting in SETTINGS],
    )


def for_type(resolved: Resolved, limits: InstanceLimits) -> Resolved:
    """Return *resolved* with what of it has an effect on an instance of that type."""
    why = without_prefixes(resolved.settings, limits)
    if not why:
        return resolved
    held = on_type(resolved.settings, takes_prefixes=limits.prefixes_allowed)
    return where_no_prefixes(resolved, held, why)


def _pool(settings: Settings) -> str:
    if not settings.provisioning:
        return "as it is"
    return "demand" if settings.demand else "fixed"


def _report(setting: Setting, chosen: Chosen) -> SettingReport:
    return SettingReport(
        name=setting.name,
        section=setting.section,
        fate=setting.fate.value,
        value=shown(chosen.value),
        origin=chosen.origin.value,
        where=chosen.where,
        effect=chosen.effect,
        pending=chosen.pending,
        default=shown(setting.default),
        peer_default=setting.peer,
        is_set=chosen.origin not in {Origin.DEFAULT, Origin.MACHINE},
    )
