"""What is remembered for a while: answers, recent DELs, what was said already. Pure.

Every cache has a name, a stated size and an age; all of them are in one `Caches`, so that
metrics can list what each holds and how often it helped. Time and jitter are given: a cache
made at the same moment on a thousand nodes must not be refilled at the same moment.

    subnets = caches.cache("subnets", size=64, age_seconds=60)
    subnet = await subnets.fetch(subnet_id, lambda: line.call(STEADY, ec2.subnet, subnet_id))

    if times := said.due(("SubnetExhausted", subnet_id)):
        log.warning("subnet exhausted", extra={"times": times})

The loop owns them; nothing here is locked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from cachetools import LRUCache, TLRUCache

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

SPREAD = 0.2
"""The part of its age that an entry may lose by jitter. A fleet that asked in the same second
asks again over a fifth of the age; never later than the age, which is a promise."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one cache holds and how often it helped, for metrics."""

    name: str
    size: int
    used: int
    hits: int
    misses: int
    evictions: int


class Counted(Protocol):
    """Whatever tells its usage."""

    @property
    def usage(self) -> Usage:
        """What it holds and how often it helped."""


def steady() -> float:
    """Return no jitter: every entry lives to its age."""
    return 0.0


class Cache(Generic[K, V]):
    """At most *size* entries, each for *age_seconds* less its jitter; the least used goes first.

    *timer* gives seconds that only grow; *jitter* a number in [0, 1) for each entry.
    """

    def __init__(
        self,
        name: str,
        *,
        size: int,
        age_seconds: float,
        timer: Callable[[], float],
        jitter: Callable[[], float] = steady,
    ) -> None:
        self.name, self.size = name, size
        self._hits = self._misses = self._evictions = 0
        self._entries: TLRUCache[K, V, float] = TLRUCache(
            size, lambda _key, _value, now: now + age_seconds * (1 - SPREAD * jitter()), timer
        )

    def get(self, key: K) -> V | None:
        """Return what is remembered of *key*, None if nothing is."""
        found = self._look(key)
        return found[0] if found else None

    def _look(self, key: K) -> tuple[V] | tuple[()]:
        # Not `in` and then `[]`: an entry may end between the two.
        try:
            value = self._entries[key]
        except KeyError:
            self._misses += 1
            return ()
        self._hits += 1
        return (value,)

    def put(self, key: K, value: V) -> None:
        """Remember *value* from now on, for a whole age."""
        self._entries.expire()
        self._evictions += len(self._entries) == self.size and key not in self._entries
        self._entries[key] = value

    def drop(self, key: K) -> None:
        """Forget *key*: what is remembered was seen to be wrong."""
        self._entries.pop(key, None)

    def get_or_make(self, key: K, make: Callable[[], V]) -> V:
        """Return what is remembered of *key*, or make and remember it.

        None is an answer like any other (IMDS has no such key), and an error is none.
        """
        if found := self._look(key):
            return found[0]
        value = make()
        self.put(key, value)
        return value

    async def fetch(self, key: K, make: Callable[[], Awaitable[V]]) -> V:
        """Do as `get_or_make` does, awaiting what is made.

        Two who miss at once both ask: sharing one answer would let the first, when it is
        cancelled, take the second along.
        """
        if found := self._look(key):
            return found[0]
        value = await make()
        self.put(key, value)
        return value

    @property
    def usage(self) -> Usage:
        """What it holds and how often it helped."""
        self._entries.expire()
        used = len(self._entries)
        return Usage(self.name, self.size, used, self._hits, self._misses, self._evictions)


@dataclass(slots=True)
class _Said:
    at: float
    kept_back: int = 0
    kept_since: float = 0.0


class Once(Generic[K]):
    """A gate for what repeats: said at the first, then once an interval with a count.

    A hit is a repetition that was kept back. What falls out of a full gate is said again
    too early: an event too many, never one too few.
    """

    def __init__(
        self, name: str, *, size: int, interval_seconds: float, timer: Callable[[], float]
    ) -> None:
        self.name, self.size = name, size
        self._interval_seconds, self._timer = interval_seconds, timer
        self._hits = self._misses = self._evictions = 0
        self._said: LRUCache[K, _Said] = LRUCache(size)

    def due(self, key: K) -> int:
        """Return how often *key* has come since it was last said; 0 means that it is not due.

        The first time is 1: this one counts, too.
        """
        return self.count(key)[0]

    def count(self, key: K) -> tuple[int, float]:
        """Return what `due` does, and when the first of those came, by the timer."""
        now = self._timer()
        said = self._said.get(key)
        if said is not None and now - said.at < self._interval_seconds:
            said.kept_since = said.kept_since if said.kept_back else now
            said.kept_back += 1
            self._hits += 1
            return 0, said.kept_since
        self._misses += 1
        self._evictions += said is None and len(self._said) == self.size
        self._said[key] = _Said(now)
        if said is None or not said.kept_back:
            return 1, now
        return said.kept_back + 1, said.kept_since

    def over(self, key: K) -> int:
        """Return how often *key* was kept back since it was last said, and forget it.

        For the line that says it is over; the next time is a first time again.
        """
        said = self._said.pop(key, None)
        return 0 if said is None else said.kept_back

    @property
    def usage(self) -> Usage:
        """What it holds and how often it kept something back."""
        used = len(self._said)
        return Usage(self.name, self.size, used, self._hits, self._misses, self._evictions)


class Caches:
    """Every cache of the daemon, by name; makes them with its clock and its jitter."""

    def __init__(self, *, timer: Callable[[], float], jitter: Callable[[], float] = steady) -> None:
        self._timer, self._jitter = timer, jitter
        self._all: dict[str, Counted] = {}

    def cache(self, name: str, *, size: int, age_seconds: float) -> Cache[K, V]:
        """Return a new cache whose entries' ages are jittered."""
        made: Cache[K, V] = Cache(
            name, size=size, age_seconds=age_seconds, timer=self._timer, jitter=self._jitter
        )
        self.add(name, made)
        return made

    def once(self, name: str, *, size: int, interval_seconds: float) -> Once[K]:
        """Return a new gate for what repeats."""
        made: Once[K] = Once(name, size=size, interval_seconds=interval_seconds, timer=self._timer)
        self.add(name, made)
        return made

    def add(self, name: str, cache: Counted) -> None:
        """List a cache that was made elsewhere."""
        assert name not in self._all, f"two caches are called {name}"
        self._all[name] = cache

    def usages(self) -> tuple[Usage, ...]:
        """Return what each holds, by name."""
        return tuple(self._all[name].usage for name in sorted(self._all))
