"""Two clocks in one value. Pure: whoever needs the time is given it.

A lease on tmpfs outlives the daemon, never the boot, and somebody may set the wall
clock meanwhile; the boot clock cannot be set but starts anew. What must not end
early (a cooldown) ends when both agree.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Instant:
    """A moment, in seconds, on the boot clock and on the wall clock."""

    boot: float
    wall: float

    def elapsed(self, since: Instant) -> float:
        """Return the seconds since *since* on which both clocks agree.

        A wall clock that was set back says nothing, so the boot clock decides alone;
        a boot clock that started anew (reboot) likewise leaves it to the wall clock.
        """
        boot, wall = self.boot - since.boot, self.wall - since.wall
        if boot < 0:
            return max(wall, 0.0)
        if wall < 0:
            return boot
        return min(boot, wall)

    def later(self, seconds: float) -> Instant:
        """Return the moment *seconds* after this one."""
        return Instant(self.boot + seconds, self.wall + seconds)
