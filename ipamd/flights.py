"""What is in flight: tasks by name, their failures, and when each may be tried again. Shell.

Two flights of one name are never in the air at once; that is all the locking there is. A
flight that fails says so in `troubles` until one of its name succeeds, and waits longer each
time, with full jitter.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from cni.kernel import NodeError
from eni.errors import EniError
from ipamd import budget
from ipamd.caches import Once
from ipamd.clock import Instant
from ipamd.journal import JournalError
from ipamd.reactions import Reaction, befalls_all, reaction_to

log = logging.getLogger(__name__)

Trouble = EniError | JournalError | NodeError
"""What a flight may end with and the next one try again: EC2, the disk or the kernel refused."""

TROUBLES = (EniError, JournalError, NodeError)

FIRST_BACKOFF_SECONDS = 2.0
MAX_BACKOFF_SECONDS = 60.0
REFUSED_BACKOFF_SECONDS = 300.0
"""The longest wait after what only a person can change."""


SAID = 64
"""Kinds of flights times errors that are told apart in the log."""

SAY_SECONDS = 300.0
"""Between two lines of one failure, the second with its count."""


@dataclass(slots=True)
class Backoff:
    """How often something failed in a row, and until when it is left alone.

    *own* failures are those that would not have befallen any other as well.
    """

    failures: int
    until: Instant
    own: int


@dataclass(slots=True)
class Flights:
    """Tasks by name. Owned by the loop."""

    clock: Callable[[], Instant]
    random: Callable[[], float]
    on_landed: Callable[[], None] = lambda: None
    """Told when a flight has ended, however."""
    on_trouble: Callable[[Trouble], None] = lambda _: None
    on_broken: Callable[[], None] = lambda: None
    """Told when a flight ended with what nobody foresaw: what it has done is not known."""
    troubles: dict[str, Trouble] = field(default_factory=dict)
    """What went wrong last and is not right yet, by flight; the latest last."""
    backoffs: dict[str, Backoff] = field(default_factory=dict)
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _said: Once[tuple[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        self._said = Once(
            "failures said",
            size=SAID,
            interval_seconds=SAY_SECONDS,
            timer=lambda: self.clock().boot,
        )

    @property
    def said(self) -> Once[tuple[str, str]]:
        """The gate of repeated log lines, for metrics."""
        return self._said

    def __contains__(self, name: str) -> bool:
        """Return whether *name* is in flight."""
        return name in self._tasks

    @property
    def names(self) -> frozenset[str]:
        """What is in flight."""
        return frozenset(self._tasks)

    def start(self, name: str, work: Coroutine[None, None, None]) -> None:
        """Let *work* fly as *name*, which `may_start`."""
        assert name not in self._tasks, name
        task = asyncio.get_running_loop().create_task(self._fly(name, work), name=name)
        self._tasks[name] = task

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in flight."""
        return not self._tasks

    def may_start(self, name: str) -> bool:
        """Whether *name* is neither in flight nor to be left alone for now."""
        if name in self._tasks:
            return False
        backoff = self.backoffs.get(name)
        return backoff is None or self.clock().boot >= backoff.until.boot

    def failures(self, name: str) -> int:
        """Return how often *name* failed in a row."""
        backoff = self.backoffs.get(name)
        return 0 if backoff is None else backoff.failures

    def own_failures(self, name: str) -> int:
        """Return how many of them were its own, and would have befallen no other."""
        backoff = self.backoffs.get(name)
        return 0 if backoff is None else backoff.own

    def cancel(self) -> None:
        """Cancel all that is in flight; what a thread does is done all the same."""
        for task in self._tasks.values():
            task.cancel()

    async def _fly(self, name: str, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except TROUBLES as error:
            self.stumble(name, error)
        except Exception:
            # Every flight can be taken up again from the journal, so the daemon lives on: pods
            # that run must not pay for a fault of ours.
            log.critical("flight broken", exc_info=True, extra={"flight": name})
            self._back_off(name, REFUSED_BACKOFF_SECONDS, is_own=True)
            self.on_broken()
        else:
            self.recovered(name)
        finally:
            del self._tasks[name]
            self.on_landed()

    def stumble(self, name: str, error: Trouble) -> None:
        """Note that *name* failed."""
        self.troubles.pop(name, None)
        self.troubles[name] = error
        # One line for one kind of flight and error: a hundred retries are a count in it.
        if times := self._said.due((name.partition(" ")[0], error.id)):
            told = {"flight": name, "id": error.id, "reason": str(error), "times": times}
            log.warning("flight failed", extra=told)
        self.on_trouble(error)
        is_refused = reaction_to(error) is Reaction.STOP_GROWING or isinstance(error, JournalError)
        longest = REFUSED_BACKOFF_SECONDS if is_refused else MAX_BACKOFF_SECONDS
        self._back_off(name, longest, is_own=not befalls_all(error))

    def recovered(self, name: str) -> None:
        """Note that *name* works."""
        self.backoffs.pop(name, None)
        if self.troubles.pop(name, None) is not None:
            log.info("flight works again", extra={"flight": name})

    def hurry(self) -> None:
        """Let all that was put off be tried at once: there may be no later."""
        for backoff in self.backoffs.values():
            backoff.until = self.clock()

    def forget_unwanted(self, wish: str | None = None) -> None:
        """Forget the failures of what could be tried again now and is not: the wish has gone.

        Call it when everything that is wanted has been started, except *wish*, which waits.
        """
        now = self.clock().boot
        for name, backoff in tuple(self.backoffs.items()):
            if name not in self._tasks and name != wish and now >= backoff.until.boot:
                self.troubles.pop(name, None)
                if now >= backoff.until.boot + MAX_BACKOFF_SECONDS:
                    del self.backoffs[name]

    def _back_off(self, name: str, longest: float, *, is_own: bool) -> None:
        failures = self.failures(name) + 1
        wait = budget.backoff_seconds(failures, FIRST_BACKOFF_SECONDS, longest, self.random())
        own = self.own_failures(name) + is_own
        self.backoffs[name] = Backoff(failures, self.clock().later(wait), own)
