"""What ENIs were like some seconds ago, for descriptions that lag. Shell."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from vpclab.ec2.model import Eni


class History:
    """Every state of a region's ENIs, back to what may still be asked for."""

    def __init__(self) -> None:
        self._states: deque[tuple[float, Mapping[str, Eni]]] = deque()

    def note(self, now: float, changed: Iterable[Eni], there: Mapping[str, Eni]) -> None:
        """Note at *now* what was *changed*; an ENI that is not *there* is gone."""
        last = self._states[-1][1] if self._states else {}
        state = {eni_id: eni for eni_id, eni in last.items() if eni_id in there}
        fresh = {eni.id for eni in changed} | (there.keys() - state.keys())
        state |= {eni_id: there[eni_id].seen(now) for eni_id in fresh if eni_id in there}
        self._states.append((now, state))

    def at(self, then: float, there: Mapping[str, Eni]) -> Mapping[str, Eni]:
        """Return the ENIs as they were at *then*, or at the first time that is known.

        Before anything is noted they are those that are *there*.
        """
        while len(self._states) > 1 and self._states[1][0] <= then:
            self._states.popleft()
        return self._states[0][1] if self._states else there

    def clear(self) -> None:
        """Forget."""
        self._states.clear()
