"""How large a step of a scale-down fits into one review, by what one that was too large has managed. Pure.

Only the records count: one PATCH for each victim, as fast as the Kubernetes API takes them. Commands go to
all workers at once, and are waited for as long for one as for a thousand.
"""

from __future__ import annotations

from dataclasses import dataclass

AFTER_WRITING_S = 2.0
"""To cancel consumers and see that it took effect."""
MARGIN = 0.8
"""A step of so much of what would just fit: the API server is not as fast every time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """How far a round has come with its records."""

    pods: int
    """To be written to."""
    written: int
    """Of these."""
    seconds: float
    """Spent at it."""
    before_s: float
    """Spent before the first one: waiting for a turn, looking, planning."""
    budget_s: float
    """What the review has in all."""


def step_that_fits(writing: Writing) -> int | None:
    """Victims of a scale-down that such a review has time for; None when their number is not what takes it.

    Rounded down to one digit: it goes into sentences that should stay the same from try to try.
    """
    left_s = writing.budget_s - writing.before_s - min(AFTER_WRITING_S, writing.budget_s / 2)
    if not writing.written or writing.seconds <= 0 or left_s < writing.budget_s / 4:
        return None
    fitting = MARGIN * left_s * writing.written / writing.seconds
    return _one_digit(int(fitting)) or None if fitting < writing.pods else None


def is_hopeless(writing: Writing) -> bool:
    """Whether all of them could not be written to in a whole review, were it twice as fast."""
    return writing.pods * writing.seconds > 2 * writing.written * writing.budget_s


def _one_digit(number: int) -> int:
    """83 becomes 80."""
    scale: int = 10 ** (len(str(number)) - 1)
    return number // scale * scale
