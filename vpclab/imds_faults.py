"""What can be wrong with IMDS's answers: late, stale, cut off, missing, refused. Shell (a lock).

    imds.faults.stale("network/interfaces/macs/*/local-ipv4s", 30)
    imds.faults.burst(503, 3)

Tests and `enid lab fault imds-...` write it while the service reads it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from vpclab.faults import check_seconds, check_status, check_times, times_left


@dataclass(frozen=True, slots=True)
class Rule:
    """A fault of the keys that *pattern* fits, of one instance or of all (None)."""

    pattern: str
    instance_id: str | None
    amount: float = 0

    def fits(self, key: str, instance_id: str) -> bool:
        """Return whether an instance's key has the fault."""
        return self.instance_id in {None, instance_id} and fnmatchcase(key, self.pattern)


@dataclass(slots=True)
class Burst:
    """A status that the next *left* answers have."""

    rule: Rule
    status: int
    left: int


@dataclass
class ImdsFaults:
    """What is wrong with the answers.

    A key is what `key_of` says: `mac`, `api/token`, `dynamic/instance-identity/document`. A
    folder's list is a key of its own: `network/interfaces/macs`. Patterns are a shell's, but *
    crosses slashes.
    """

    delay_seconds: float = 0.0
    """How long ago was true what every answer tells: at least."""
    _stale: list[Rule] = field(default_factory=list)
    _short: list[Rule] = field(default_factory=list)
    _missing: list[Rule] = field(default_factory=list)
    _bursts: list[Burst] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def stale(self, pattern: str, seconds: float, instance_id: str | None = None) -> None:
        """Let keys tell what was true *seconds* ago, or when the instance was new.

        It goes no further back than what is kept (`imds.KEPT_SECONDS`). Raises ValueError for what
        is no time.
        """
        check_seconds("a lag of IMDS", seconds)
        with self._lock:
            self._stale.append(Rule(pattern, instance_id, seconds))

    def short(self, pattern: str, lines: int, instance_id: str | None = None) -> None:
        """Let keys tell their first *lines* lines only. Raises ValueError for a negative number."""
        if lines < 0:
            raise ValueError(f"a list has 0 lines or more; {lines} is not")
        with self._lock:
            self._short.append(Rule(pattern, instance_id, lines))

    def missing(self, pattern: str, instance_id: str | None = None) -> None:
        """Let keys not be there; a list that names them still does."""
        with self._lock:
            self._missing.append(Rule(pattern, instance_id))

    def burst(
        self, status: int, count: int, instance_id: str | None = None, pattern: str = "*"
    ) -> None:
        """Let the next *count* answers be *status*: 503 or 429; tokens' as well.

        Raises ValueError for a status that does not refuse, and for fewer answers than one.
        """
        check_status(status)
        check_times(count)
        with self._lock:
            self._bursts.append(Burst(Rule(pattern, instance_id), status, count))

    def clear(self) -> None:
        """Take every fault back."""
        with self._lock:
            self.delay_seconds = 0.0
            for rules in (self._stale, self._short, self._missing, self._bursts):
                rules.clear()

    def lines(self, names: Mapping[str, str]) -> list[str]:
        """Return each fault that is on, as a sentence; *names* has nodes' names by instance."""
        with self._lock:
            late = [f"IMDS is {self.delay_seconds:g} s late"] if self.delay_seconds else []
            said = [(f"tells {r.pattern} as {r.amount:g} s ago", r) for r in self._stale]
            said += [(f"tells {r.amount:g} lines of {r.pattern}", r) for r in self._short]
            said += [(f"knows nothing of {r.pattern}", r) for r in self._missing]
            said += [
                (f"answers {burst.status}, {times_left(burst.left)}", burst.rule)
                for burst in self._bursts
                if burst.left
            ]
        ends = [
            f" to {names.get(r.instance_id, r.instance_id)}" if r.instance_id else ""
            for _, r in said
        ]
        return [*late, *(f"IMDS {what}{end}" for (what, _), end in zip(said, ends, strict=True))]

    def status(self, key: str, instance_id: str) -> int | None:
        """Return the status that a burst has for this answer, and count it."""
        with self._lock:
            for burst in self._bursts:
                if burst.left and burst.rule.fits(key, instance_id):
                    burst.left -= 1
                    return burst.status
        return None

    def age_seconds(self, key: str, instance_id: str) -> float:
        """Return how old the answer is."""
        with self._lock:
            ages = [rule.amount for rule in self._stale if rule.fits(key, instance_id)]
            return max([self.delay_seconds, *ages])

    def left_of(self, text: str, key: str, instance_id: str) -> str | None:
        """Return what is told of *text*; None: nothing, 404."""
        with self._lock:
            if any(rule.fits(key, instance_id) for rule in self._missing):
                return None
            limits = [int(rule.amount) for rule in self._short if rule.fits(key, instance_id)]
        return "\n".join(text.split("\n")[: min(limits)]) if limits else text
