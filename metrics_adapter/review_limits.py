"""How many reviews may be asked for: nobody makes the API server work, or us, without end.

Its priority for our questions is that of its own controllers, so it would not stop them for us.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable

MOST_AT_ONCE = 50
MOST_OF_ONE = 20
"""Questions of one asker that are open at once: the autoscaler has five workers."""
MOST_KNOWN = 128
"""Open questions whose last answer was yes, apart from the others: in an outage they pile up."""
RATE_PER_S = 50.0
BURST = 200.0
"""What one asker may ask at once after a pause, and then RATE_PER_S of them."""
MOST_ASKERS = 4096


class ReviewLimits:
    """Counts open questions, and how fast each asker asks."""

    def __init__(self, *, clock: Callable[[], float], most_of_one: int = MOST_OF_ONE) -> None:
        self._clock = clock
        self._most_of_one = most_of_one
        self._open: Counter[str] = Counter()
        self._known = 0
        self._asked: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """How much of BURST each has used up, and when that was so."""

    def take(self, asker: str, *, is_known: bool) -> bool:
        """Whether one more may be asked; `is_known` when its last answer was yes. Then give it back."""
        if is_known:
            has_room = self._known < MOST_KNOWN
        else:
            has_room = self._open[asker] < self._most_of_one and self._open.total() < MOST_AT_ONCE
        if not has_room or not self._pay(asker):
            return False
        if is_known:
            self._known += 1
        else:
            self._open[asker] += 1
        return True

    def give_back(self, asker: str, *, is_known: bool) -> None:
        if is_known:
            self._known -= 1
        else:
            self._open[asker] -= 1
            if not self._open[asker]:
                del self._open[asker]

    def _pay(self, asker: str) -> bool:
        now = self._clock()
        used, at = self._asked.get(asker, (0.0, now))
        used = max(used - RATE_PER_S * (now - at), 0.0) + 1
        if used > BURST:
            return False
        self._asked[asker] = (used, now)
        self._asked.move_to_end(asker)
        if len(self._asked) > MOST_ASKERS:
            self._asked.popitem(last=False)
        return True
