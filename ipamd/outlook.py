"""What the node was told, by whom ever, and the modes that come of it. Shell (the loop's).

The settings, AWS and the cluster each tell their part; the engine works by what all of it
comes to, and hears of it whole, again and again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from eni.limits import InstanceLimits
from eni.model import Notices
from ipamd.settings import Settings
from ipamd.terms import Mode, Terms, Told, terms_of, without_prefixes

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Outlook:
    """What decides how the node works, as it was told last. Owned by the loop."""

    settings: Settings
    limits: InstanceLimits = field(init=False)
    """Known when the daemon knows its instance."""
    told: Told = field(default_factory=lambda: Told(notices=Notices()))
    modes: set[Mode] = field(default_factory=set)
    """Those that the engine's troubles and terms do not tell of."""
    on_change: Callable[[Terms], None] = field(default=lambda _: None)
    _said: str = ""
    """Why prefixes are not had, as it was said last."""

    @property
    def terms(self) -> Terms:
        """What the engine is to work by."""
        return terms_of(self.settings, self.limits, self.told)

    def hear(self, told: Told) -> None:
        """Take over what was told."""
        self.told = told
        self.retell()

    def retell(self) -> None:
        """Let the engine know what has changed."""
        self.say_effects()
        self.on_change(self.terms)

    def say_effects(self) -> None:
        """Say once what of the settings has no effect on an instance of this type."""
        why = without_prefixes(self.settings, self.limits)
        if why and why != self._said:
            reason = f"ENABLE_PREFIX_DELEGATION=true has no effect: {why}"
            log.warning("settings", extra={"reason": reason})
        self._said = why

    def enter(self, mode: Mode, reason: object) -> None:
        """Say once that *mode* holds, and why."""
        if mode not in self.modes:
            log.warning("mode", extra={"mode": mode.value, "reason": str(reason)})
        self.modes.add(mode)

    def leave(self, mode: Mode) -> None:
        """Note that *mode* holds no longer."""
        self.modes.discard(mode)
