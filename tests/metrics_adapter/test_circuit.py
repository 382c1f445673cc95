"""When a provider is left alone; all on a clock that goes when the test says so."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_adapter.circuit import FAILURES_IN_A_ROW, FIRST_REST_S, LONGEST_REST_S, Circuit


def failed(circuit: Circuit, times: int = FAILURES_IN_A_ROW, *, now: float = 0.0) -> Circuit:
    for _ in range(times):
        circuit = circuit.after_failure(now)
    return circuit


def test_five_failures_in_a_row_are_enough() -> None:
    assert failed(Circuit(), FAILURES_IN_A_ROW - 1).is_closed
    assert failed(Circuit(), now=100.0).rests_until == 100.0 + FIRST_REST_S


def test_an_answer_in_between_shows_that_it_lives() -> None:
    """A metric that always fails, beside one that does not, never takes that with it."""
    circuit = Circuit()
    for _ in range(1000):
        circuit = failed(circuit, FAILURES_IN_A_ROW - 1).after_answer()
    assert circuit == Circuit()


def test_rests_grow_until_a_request_is_answered() -> None:
    """Discovery that answers while values do not ends a rest, and makes the next one no shorter."""
    circuit, rests, now = Circuit(), [], 0.0
    for _ in range(7):
        circuit = failed(circuit, now=now)
        assert circuit.rests_until is not None
        rests.append(circuit.rests_until - now)
        now = circuit.rests_until
        circuit = circuit.after_look(now, found=True)
        assert circuit.is_closed
    assert rests == [5, 10, 20, 40, 60, 60, 60]
    assert failed(circuit.after_answer(), now=now).rests_until == now + FIRST_REST_S


def test_a_look_that_finds_nothing_prolongs_the_rest() -> None:
    """By no more than at first: one that is back is soon found."""
    circuit = failed(Circuit())
    for now in (5.0, 10.0, 15.0):
        circuit = circuit.after_look(now, found=False)
        assert circuit.rests_until == now + FIRST_REST_S


def test_a_look_tells_nothing_while_requests_are_passed_on() -> None:
    """Discovery may be forbidden, or slow, where values are served."""
    circuit = failed(Circuit(), 3)
    assert circuit.after_look(1.0, found=False) == circuit.after_look(1.0, found=True) == circuit


def test_late_failures_do_not_prolong_a_rest() -> None:
    """Requests that were on their way when it began."""
    circuit = failed(Circuit())
    assert failed(circuit, 20, now=4.0) == circuit


STEPS = st.lists(
    st.tuples(st.sampled_from(["answer", "failure", "look", "nothing"]), st.floats(0, 30)), max_size=60
)


@given(steps=STEPS)
def test_a_flapping_provider_is_never_left_alone_for_long(steps: Sequence[tuple[str, float]]) -> None:
    """Whatever it does: no rest is longer than a minute, and one look that finds it ends any."""
    circuit, now = Circuit(), 0.0
    for what, passed in steps:
        now += passed
        if what == "answer":
            circuit = circuit.after_answer()
        elif what == "failure":
            circuit = circuit.after_failure(now)
        else:
            circuit = circuit.after_look(now, found=what == "look")
        assert circuit.rests_until is None or circuit.rests_until <= now + LONGEST_REST_S
        assert circuit.failures < FAILURES_IN_A_ROW
    assert circuit.after_look(now, found=True).is_closed


@pytest.mark.parametrize("period_s", [0.1, 1.0, 15.0])
def test_how_many_requests_wait_for_one_that_is_dead(period_s: float) -> None:
    """Of an hour's requests only the first five, for our own looks find nothing."""
    circuit, waited, now = Circuit(), 0, 0.0
    while now < 3600:
        now += period_s
        if circuit.rests_until is not None and now >= circuit.rests_until:
            circuit = circuit.after_look(now, found=False)
        if circuit.is_closed:
            waited += 1
            circuit = circuit.after_failure(now)
    assert waited == FAILURES_IN_A_ROW
