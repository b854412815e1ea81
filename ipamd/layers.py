"""Layers of settings: which value holds, and where it came from. Pure.

    default < this machine < environment < ConfigMap < profile < annotation

The ConfigMap is a folder with a file per variable, and a file `profile.<name>` per profile,
which holds NAME=VALUE lines. A node's label chooses its profile, and its annotation has the
last word. The rule to keep: the layers of ours above the environment are checked to the
letter, since nothing but settings is in them; the environment is full of what is not our
business.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from ipamd.kinds import Value, is_reserved, shown
from ipamd.settings import (
    InvalidSettingsError,
    RefusedSettingsError,
    Settings,
    contradictions,
    doubts,
    settings_from,
)
from ipamd.settings_table import BY_NAME, FIELDS, SETTINGS, Fate, Setting

PROFILE_LABEL = "enid.dev/profile"
"""The node label that names a profile of the ConfigMap."""
SETTINGS_ANNOTATION = "enid.dev/settings"
"""The node annotation that holds NAME=VALUE, with commas or line ends between."""
PROFILE_PREFIX = "profile."

WAITING_BYTES = 2_400_000
"""What a plugin that waits for its answer costs, measured for the static build."""
WAITING_SHARE = 50
"""A fiftieth of the memory is what waiting plugins may take together."""
WAITING_LEAST, WAITING_MOST = 4, 64

LIKE_A_SLIP = 0.9
"""One letter in ten, or another case."""

BRIEF = 60
"""Characters of a value that a sentence quotes."""


class Origin(StrEnum):
    """Where a value comes from; a later one beats an earlier."""

    DEFAULT = "default"
    MACHINE = "this machine"
    ENVIRONMENT = "environment"
    CONFIG_MAP = "ConfigMap"
    PROFILE = "profile"
    ANNOTATION = "annotation"


@dataclass(frozen=True, slots=True)
class Layer:
    """One origin's texts by name. *where* says which; *complaints* are about its form.

    An empty text in the environment is not set, as for the peer. In a layer of ours it puts
    the default back, whatever lies below.
    """

    origin: Origin
    where: str
    texts: Mapping[str, str]
    complaints: tuple[str, ...] = ()

    @property
    def is_ours(self) -> bool:
        """Whether all that is in it must be settings."""
        return self.origin in {Origin.CONFIG_MAP, Origin.PROFILE, Origin.ANNOTATION}


DEFAULTS = Layer(Origin.DEFAULT, "", MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Sources:
    """What settings are made of, as found. *files* None: no ConfigMap is mounted.

    *memory_bytes* is the machine's; None leaves the default of what depends on it.
    """

    environ: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    files: Mapping[str, str] | None = None
    profile: str | None = None
    annotation: str | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """One setting as it holds. *pending* says what a restart would change; else "" .

    *note* is the end of a sentence about a text that was taken for a value that it is not.
    """

    value: Value
    origin: Origin
    where: str
    text: str = ""
    effect: str = ""
    pending: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Resolved:
    """The settings, and for each variable where it came from."""

    settings: Settings
    chosen: Mapping[str, Chosen]
    warnings: tuple[str, ...]


# Reading layers ------------------------------------------------------------------------
def layers_of(sources: Sources) -> tuple[Layer, ...]:
    """Return the layers of *sources*, lowest first."""
    machine = (
        {}
        if sources.memory_bytes is None
        else {"ADD_WAITING_MAX": str(waiting_max(sources.memory_bytes))}
    )
    layers = [
        Layer(Origin.MACHINE, "this machine's memory", machine),
        Layer(Origin.ENVIRONMENT, "environment", sources.environ),
    ]
    files = sources.files or {}
    texts = {name: text for name, text in files.items() if not name.startswith(PROFILE_PREFIX)}
    if sources.files is not None:
        layers.append(Layer(Origin.CONFIG_MAP, "ConfigMap", texts))
    if sources.profile:
        layers.append(_profile(sources.profile, files))
    if sources.annotation:
        pieces = split_annotation(sources.annotation)
        where = f"annotation {SETTINGS_ANNOTATION}"
        layers.append(_of_pairs(Origin.ANNOTATION, where, pieces))
    return tuple(layers)


def waiting_max(memory_bytes: int) -> int:
    """Return how many ADDs may wait on a machine with so much memory."""
    fits = memory_bytes // WAITING_SHARE // WAITING_BYTES
    return max(WAITING_LEAST, min(WAITING_MOST, fits))


def _profile(name: str, files: Mapping[str, str]) -> Layer:
    where = f"profile {name}"
    text = files.get(PROFILE_PREFIX + name)
    if text is not None:
        return _of_pairs(Origin.PROFILE, where, text.splitlines())
    known = sorted(f.removeprefix(PROFILE_PREFIX) for f in files if f.startswith(PROFILE_PREFIX))
    complaint = (
        f"node label {PROFILE_LABEL}={name} names a profile that the ConfigMap does not have"
        f" (it has: {', '.join(known) or 'none'})"
    )
    return Layer(Origin.PROFILE, where, {}, (complaint,))


def split_annotation(text: str) -> list[str]:
    """Return the NAME=VALUE pieces of *text*; a comma inside a value stays in it."""
    return re.split(r"[,\n](?=\s*(?:[A-Za-z_]\w*\s*=|\Z))", text)


def _of_pairs(origin: Origin, where: str, pieces: Iterable[str]) -> Layer:
    """Return the layer of NAME=VALUE pieces; empty ones and those that begin with # are none."""
    pairs: list[tuple[str, str]] = []
    complaints = []
    for piece in (p.strip() for p in pieces):
        if not piece or piece.startswith("#"):
            continue
        name, equals, text = piece.partition("=")
        if equals:
            pairs.append((name.strip(), text.strip()))
        else:
            complaints.append(f"{where}: {piece[:BRIEF]!r} is not NAME=VALUE")
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    complaints += [f"{where}: {name} is set twice" for name in twice]
    return Layer(origin, where, dict(pairs), tuple(complaints))


def tried(pieces: Iterable[str]) -> Layer:
    """Return the layer of NAME=VALUE pieces that somebody tries on the command line."""
    return _of_pairs(Origin.ANNOTATION, "--set", pieces)


# Resolving -----------------------------------------------------------------------------
def read_settings(environ: Mapping[str, str]) -> Settings:
    """Return what *environ* alone makes. Raises SettingsError."""
    return resolve(layers_of(Sources(environ))).settings


def resolve(layers: Sequence[Layer], running: Resolved | None = None) -> Resolved:
    """Return the settings of *layers*, lowest first, the defaults below them.

    What is read at start only keeps the value that *running* has; what waits for a restart
    must be able to hold then. Raises SettingsError with every complaint, about whatever layer,
    at once.
    """
    if running is not None:
        resolve(layers)
    complaints = [c for layer in layers for c in (*layer.complaints, *_strange(layer))]
    refusals: list[str] = []
    chosen: dict[str, Chosen] = {}
    for setting in SETTINGS:
        found = Chosen(setting.default, Origin.DEFAULT, "")
        for layer in layers:
            try:
                found = _choose(setting, layer, found)
            except ValueError as error:
                complaints.append(f"{layer.where}: {error}")
        if _is_refused(setting, found):
            refusals.append(_sentence(setting, found, f"is refused: {setting.why}"))
        chosen[setting.name] = _keep(setting, found, running)
    settings = settings_from({name: c.value for name, c in chosen.items()}, FIELDS)
    if not complaints:
        complaints.extend(contradictions(settings))
    if complaints or refusals:
        family = RefusedSettingsError if refusals else InvalidSettingsError
        raise family("\n".join((*refusals, *complaints)))
    return _with_effects(settings, chosen, layers)


def _strange(layer: Layer) -> Iterator[str]:
    """Yield a complaint for each name in a layer of ours that is no setting of its."""
    for name in layer.texts if layer.is_ours else ():
        setting = BY_NAME.get(name)
        if setting is None:
            meant = nearest(name)
            hint = f"; is {meant} meant?" if meant else ""
            yield f"{layer.where}: {name} is no setting{hint}"
        elif setting.pinned:
            yield f"{layer.where}: {name} belongs to one node: only the environment may set it"


def nearest(name: str, likeness: float = 0.85) -> str | None:
    """Return the setting that somebody who wrote *name* may have meant; at 1.0 all are alike."""
    folded = {known.casefold(): known for known in BY_NAME}
    found = difflib.get_close_matches(name.casefold(), folded, 1, likeness)
    return folded[found[0]] if found else None


def _choose(setting: Setting, layer: Layer, below: Chosen) -> Chosen:
    """Return what holds after *layer* has spoken. Raises ValueError."""
    text = layer.texts.get(setting.name)
    if text is None or not (text.strip() or layer.is_ours):
        return below
    text = text.strip()
    if not text:
        return Chosen(setting.default, layer.origin, layer.where)
    try:
        value = setting.kind.read(text)
    except ValueError as error:
        way = None if layer.is_ours else setting.taken(text)
        if way is not None:
            note = f"{error}: {way.words}"
            return Chosen(way.value, layer.origin, layer.where, text, note=note)
        if setting.fate is not Fate.NO_EFFECT or setting.field:
            raise ValueError(f"{setting.name}={_brief(text)} {error}") from None
        value = text
    return Chosen(value, layer.origin, layer.where, text)


def _brief(text: str) -> str:
    """Return *text* so that it fits in a sentence."""
    if len(text) > BRIEF:
        return repr(text[:BRIEF] + "…")
    return text if re.fullmatch(r"[\w./:,-]+", text) else repr(text)


def _sentence(setting: Setting, chosen: Chosen, end: str) -> str:
    return f"{chosen.where}: {setting.name}={_brief(chosen.text)} {end}"


def _is_refused(setting: Setting, chosen: Chosen) -> bool:
    return (
        setting.fate is Fate.REFUSED
        and chosen.value != setting.default
        and chosen.value not in setting.accepted
    )


def _keep(setting: Setting, found: Chosen, running: Resolved | None) -> Chosen:
    """Return *found*, or what runs if that can only change at start."""
    if running is None or not setting.restart:
        return found
    held = running.chosen[setting.name]
    if held.value == found.value:
        return found
    pending = f"{found.where or found.origin}: {shown(found.value) or 'not set'}"
    return replace(held, pending=pending)


def _with_effects(
    settings: Settings, chosen: Mapping[str, Chosen], layers: Sequence[Layer]
) -> Resolved:
    """Return it all, with the reason beside each value that has no effect."""
    told = {
        setting.name: replace(
            chosen[setting.name], effect=_effect(setting, chosen[setting.name], settings)
        )
        for setting in SETTINGS
    }
    warnings = (
        *(w for setting in SETTINGS for w in _warnings(setting, told[setting.name])),
        *doubts(settings),
        *(w for layer in layers if layer.origin is Origin.ENVIRONMENT for w in _near_misses(layer)),
    )
    return Resolved(settings, MappingProxyType(told), warnings)


def where_no_prefixes(resolved: Resolved, settings: Settings, why: str) -> Resolved:
    """Return *resolved* with *settings*, which are what holds where there are no prefixes."""
    lost = dict.fromkeys(("ENABLE_PREFIX_DELEGATION", "WARM_PREFIX_TARGET"), why)
    former = resolved.chosen
    told = {
        s.name: replace(
            former[s.name], effect=lost.get(s.name) or _effect(s, former[s.name], settings)
        )
        for s in SETTINGS
    }
    said = {w for s in SETTINGS for w in _warnings(s, former[s.name])}
    warnings = (
        *(w for s in SETTINGS for w in _warnings(s, told[s.name])),
        *(w for w in resolved.warnings if w not in said),
    )
    return Resolved(settings, MappingProxyType(told), warnings)


def _effect(setting: Setting, chosen: Chosen, settings: Settings) -> str:
    """Return why a value has no effect; "" if it has one, or there is nothing to have one."""
    if setting.fate is Fate.NO_EFFECT or chosen.value in setting.accepted:
        return setting.why
    if not chosen.text and not chosen.value:
        return ""
    return setting.idle_reason(settings, chosen.value)


def _warnings(setting: Setting, chosen: Chosen) -> Iterator[str]:
    """Yield what should be said, once, about a value that somebody set."""
    if chosen.pending:
        yield f"{setting.name} is read at start only; waiting for a restart: {chosen.pending}"
    if chosen.note:
        yield _sentence(setting, chosen, chosen.note)
    elif chosen.effect and _is_wish(setting, chosen):
        yield _sentence(setting, chosen, f"has no effect: {chosen.effect}")
    if isinstance(chosen.value, Mapping):
        dropped = ", ".join(key for key in chosen.value if is_reserved(key))
        if dropped:
            yield f"{chosen.where}: {setting.name}: reserved keys are dropped: {dropped}"


def _is_wish(setting: Setting, chosen: Chosen) -> bool:
    """Return whether somebody set what they would not have got anyway."""
    if not chosen.text or setting.silent:
        return False
    if chosen.value == setting.default:
        return False
    return chosen.text != setting.peer or chosen.value in setting.accepted


def _near_misses(layer: Layer) -> Iterator[str]:
    """Yield a warning for each name in the environment that looks like a slip.

    Closer than in layers of ours: a node's agents share names such as NODE_NAME.
    """
    for name in sorted(layer.texts):
        meant = None if name in BY_NAME else nearest(name, LIKE_A_SLIP)
        if meant is not None:
            yield f"{layer.where}: {name} is no setting; is {meant} meant?"


def resolve_at_start(layers: Sequence[Layer]) -> tuple[Resolved, str | None]:
    """Return what to start with, and the complaint about what had to be left out.

    A mistake in the cluster's layers must not keep a node from starting: they are left out
    from the highest down until the rest can be. What the environment says, and whatever is
    refused for the sake of isolation, stands: then it raises SettingsError.
    """
    complaint: str | None = None
    kept = list(layers)
    while True:
        try:
            return resolve(kept), complaint
        except RefusedSettingsError:
            raise
        except InvalidSettingsError as error:
            if not kept or not kept[-1].is_ours:
                raise
            complaint = complaint or str(error)
            kept.pop()
