"""What was mended and undone again: when it may be mended once more. Pure.

Somebody who undoes a repair may do so for ever, as a network daemon does that thinks a route
its own. To mend at once each time would be a fight at full speed, and to give up would leave
pods without a way. So each repair of the same object that did not stand waits twice as long.
"""

from __future__ import annotations

from dataclasses import dataclass, field

FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 300.0
"""Between two repairs of one object that was undone again, and when that has doubled enough."""

STOOD_SECONDS = 60.0
"""What stood this long, and twice as long as was waited for it, was not undone: the next who
breaks it is somebody else."""


@dataclass(frozen=True, slots=True)
class Mended:
    """When an object was mended last, and how often in a row."""

    at: float
    times: int

    @property
    def wait(self) -> float:
        """How long until it may be mended again."""
        return min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** min(self.times - 1, 60))

    def stood(self, now: float) -> bool:
        """Whether the repair has held."""
        return now - self.at >= max(STOOD_SECONDS, 2 * self.wait)


@dataclass(slots=True)
class Undone:
    """What was mended of late, by the name of the object."""

    mended: dict[str, Mended] = field(default_factory=dict)

    def wait(self, what: str, now: float) -> float:
        """Return how many seconds *what* has to wait still; 0 if it may be mended now."""
        last = self.mended.get(what)
        if last is None or last.stood(now):
            return 0.0
        return max(0.0, last.at + last.wait - now)

    def note(self, what: str, now: float) -> int:
        """Note that *what* was mended; return how often in a row that was."""
        last = self.mended.get(what)
        times = 1 if last is None or last.stood(now) else last.times + 1
        self.mended[what] = Mended(now, times)
        return times

    def forget(self, now: float) -> None:
        """Forget what has stood."""
        self.mended = {what: m for what, m in self.mended.items() if not m.stood(now)}

    def fights(self) -> dict[str, Mended]:
        """Return what was mended more than once in a row."""
        return {what: mended for what, mended in self.mended.items() if mended.times > 1}
