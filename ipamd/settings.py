"""The daemon's settings, under the peer's names. Pure.

One table, `SETTINGS`, is what is read, what `docs/settings.md` is made from, and what a
complaint quotes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Setting:
    """One environment variable; *default* None means "not set"."""

    name: str
    field: str
    default: int | None
    unit: str
    least: int
    meaning: str


SETTINGS = (
    Setting(
        "WARM_ENI_TARGET", "warm_eni_target", 1, "ENIs", 0,
        "Keep this many ENIs' worth of addresses free. Ignored when one of the two IP"
        " targets is set.",
    ),
    Setting(
        "WARM_IP_TARGET", "warm_ip_target", None, "addresses", 0,
        "Keep this many addresses free; more are asked for, and surplus given back, one by one.",
    ),
    Setting(
        "MINIMUM_IP_TARGET", "minimum_ip_target", None, "addresses", 0,
        "Hold at least this many addresses, used or not.",
    ),
    Setting(
        "MAX_ENI", "max_eni", None, "ENIs", 1,
        "Attach at most this many ENIs, the primary included; the instance type's limit holds"
        " as well.",
    ),
    Setting(
        "IP_COOLDOWN_PERIOD", "cooldown_seconds", 30, "seconds", 0,
        "A released address goes to no other pod for this long, so that peers forget it.",
    ),
)  # fmt: skip
"""Every setting there is, in the order of the documentation."""


class SettingsError(Exception):
    """The environment asks for something that cannot be; the text has one line a complaint."""

    id = "SETTINGS-INVALID"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the daemon was told, checked. Units as in `SETTINGS`; 0 IP targets mean unset."""

    warm_eni_target: int = 1
    warm_ip_target: int = 0
    minimum_ip_target: int = 0
    max_eni: int | None = None
    cooldown_seconds: int = 30


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Return the settings in *environ*; an empty value counts as not set.

    Raises SettingsError naming every value that cannot be used, at once.
    """
    values: dict[str, int] = {}
    complaints = []
    for setting in SETTINGS:
        text = environ.get(setting.name, "").strip()
        if not text:
            continue
        try:
            value = int(text)
        except ValueError:
            complaints.append(f"{setting.name}={text!r} is not a whole number of {setting.unit}")
            continue
        if value < setting.least:
            complaints.append(f"{setting.name}={value} is below {setting.least} {setting.unit}")
        values[setting.field] = value
    if complaints:
        raise SettingsError("\n".join(complaints))
    return Settings(**values)


def render_settings() -> Iterator[str]:
    """Yield the lines of `docs/settings.md`."""
    yield "# Settings"
    yield ""
    yield "Environment variables of `ipamd`, read once at start; the names are the AWS VPC CNI's."
    yield "This page is made from `ipamd/settings.py` by `python -m tests.tools.references`."
    yield ""
    yield "| variable | default | unit | least | meaning |"
    yield "| --- | --- | --- | --- | --- |"
    for s in SETTINGS:
        default = "not set" if s.default is None else str(s.default)
        yield f"| `{s.name}` | {default} | {s.unit} | {s.least} | {s.meaning} |"
