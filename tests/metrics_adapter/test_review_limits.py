"""Nobody makes us ask without end, and nobody keeps others from asking."""

from __future__ import annotations

from metrics_adapter.review_limits import (
    BURST,
    MOST_AT_ONCE,
    MOST_KNOWN,
    MOST_OF_ONE,
    RATE_PER_S,
    ReviewLimits,
)
from tests.metrics_adapter.builders import Clock


def taken(limits: ReviewLimits, asker: str, count: int, *, is_known: bool = False) -> int:
    """How many of so many questions may be asked."""
    return sum(limits.take(asker, is_known=is_known) for _ in range(count))


def test_one_asker_has_some_questions_open_and_all_have_more() -> None:
    limits = ReviewLimits(clock=Clock())
    assert taken(limits, "a", 100) == MOST_OF_ONE
    assert taken(limits, "b", 100) == MOST_OF_ONE
    assert taken(limits, "c", 100) == MOST_AT_ONCE - 2 * MOST_OF_ONE


def test_an_answer_makes_room() -> None:
    limits = ReviewLimits(clock=Clock())
    taken(limits, "a", 100)
    limits.give_back("a", is_known=False)
    assert taken(limits, "a", 100) == 1


def test_what_was_allowed_before_has_room_of_its_own() -> None:
    """In an outage, many questions of the autoscaler are open: an older answer does for each."""
    limits = ReviewLimits(clock=Clock())
    taken(limits, "a", 100)
    assert taken(limits, "a", 1000, is_known=True) == MOST_KNOWN
    limits.give_back("a", is_known=True)
    assert taken(limits, "a", 1000, is_known=True) == 1


def test_who_asks_fast_has_to_wait() -> None:
    clock = Clock()
    limits = ReviewLimits(clock=clock)

    def asked_in_turn() -> int:
        count = 0
        while limits.take("a", is_known=True):
            limits.give_back("a", is_known=True)
            count += 1
        return count

    assert asked_in_turn() == BURST
    clock.now = 1.0
    assert asked_in_turn() == RATE_PER_S
    clock.now = 100.0
    assert asked_in_turn() == BURST
    assert taken(limits, "b", 1) == 1
