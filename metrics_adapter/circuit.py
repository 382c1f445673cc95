"""When a provider that gives no answers is left alone for a while, and when it is asked again. Pure.

Five requests in a row without a usable answer, and it rests: those who ask meanwhile are refused at once,
rather than kept waiting. After the rest not one of them is sent ahead to see, but our own look at its
discovery. An answer to any of them in between shows that it lives: one metric that always fails takes no
other with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

FAILURES_IN_A_ROW = 5
FIRST_REST_S = 5.0
LONGEST_REST_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """How it fares with a provider; times are of one monotonic clock, in seconds."""

    failures: int = 0
    """Requests in a row that got no usable answer."""
    rests: int = 0
    """Since it last answered a request; each is twice as long as the one before."""
    rests_until: float | None = None

    @property
    def is_closed(self) -> bool:
        """Whether requests are passed on."""
        return self.rests_until is None

    def after_answer(self) -> Circuit:
        return Circuit()

    def after_failure(self, now: float) -> Circuit:
        if not self.is_closed:
            return self  # it was sent before the rest began
        if self.failures + 1 < FAILURES_IN_A_ROW:
            return replace(self, failures=self.failures + 1)
        rest_s: float = min(FIRST_REST_S * 2**self.rests, LONGEST_REST_S)
        return Circuit(rests=min(self.rests + 1, 10), rests_until=now + rest_s)

    def after_look(self, now: float, *, found: bool) -> Circuit:
        """What our own look at its discovery tells; nothing, while requests are passed on."""
        if self.is_closed:
            return self
        # Nobody waits for a look: there may be many, and one that is back is found soon.
        return replace(self, failures=0, rests_until=None if found else now + FIRST_REST_S)
