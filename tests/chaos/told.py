"""What a daemon was told, and how long it may rightly go by what it was told before. Pure.

Settings and ENIConfigs change while a daemon works, and while none does. A law judges by what
held at some moment since what it judges was decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ipamd.settings import Settings
from ipamd.subnets import ROLE_TAG

Held = Sequence[tuple[float, Settings]]
"""Which settings held, and since when, the present ones last."""

Spot = tuple[str, tuple[str, ...]]
"""Where an ENI goes: a subnet, and security groups."""

CONFIG_SECONDS = 1000.0
"""How long an ENIConfig may be gone by: it is believed for five minutes and a jitter, and longer
while the API server is away."""

DECIDED_SECONDS = 60.0
"""How long after a change something that was decided before may still be asked for."""


def since(held: Held, then: float) -> Iterator[Settings]:
    """Yield all settings that held at *then* or later."""
    for number, (_, settings) in enumerate(held):
        is_last = number + 1 == len(held)
        if is_last or held[number + 1][0] > then:
            yield settings


def has_cooled(held: Held, released: float, now: float) -> bool:
    """Whether an address that was *released* then was free at some moment until *now*."""
    ends = [when for when, _ in held[1:]] + [float("inf")]
    return any(
        max(begin, released + settings.cooldown_seconds) <= min(end, now + 0.001)
        for (begin, settings), end in zip(held, ends, strict=True)
    )


@dataclass(slots=True)
class Places:
    """Where new ENIs may go. *subnets* are the others, with their tags."""

    home: str
    groups: tuple[str, ...]
    subnets: Mapping[str, Mapping[str, str]]
    _names: tuple[str, ...] = ()
    _seen: list[tuple[float, frozenset[Spot]]] = field(default_factory=list)

    def name(self, now: float, names: str, configs: Mapping[str, Mapping[str, Any]]) -> None:
        """Note which ENIConfigs the node names."""
        self._names = tuple(names.split(","))
        self.see(now, configs)

    def see(self, now: float, configs: Mapping[str, Mapping[str, Any]]) -> None:
        """Note what the ENIConfigs say; where none that is named can be used, the former hold."""
        named = [configs[name] for name in self._names if name in configs]
        spots = frozenset(self._spot(spec) for spec in named if spec.get("subnet") != "nowhere")
        if spots:
            self._seen.append((now, spots))

    def _spot(self, spec: Mapping[str, Any]) -> Spot:
        groups = tuple(spec.get("securityGroups", ())) or self.groups
        return spec.get("subnet", self.home), groups

    def allowed(self, held: Held, decided: float) -> frozenset[Spot]:
        """Return where an ENI may go that was *decided* upon then or later."""
        settings = tuple(since(held, decided - DECIDED_SECONDS))
        if settings[-1].custom_networking:
            return frozenset().union(*self._said(decided - CONFIG_SECONDS))
        ids = {subnet_id for each in settings for subnet_id in self._listed(each)}
        return frozenset((subnet_id, self.groups) for subnet_id in ids)

    def _said(self, then: float) -> Iterator[frozenset[Spot]]:
        for number, (_, spots) in enumerate(self._seen):
            if number + 1 == len(self._seen) or self._seen[number + 1][0] > then:
                yield spots

    def _listed(self, settings: Settings) -> Iterable[str]:
        if settings.subnets:
            return settings.subnets
        tagged = (i for i, tags in self.subnets.items() if tags.get(ROLE_TAG, "0") != "0")
        return (self.home, *(tagged if settings.subnet_discovery else ()))
