"""Scale-downs that are too large for one review: the refusal names a step that is not."""

import asyncio
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drain_hook.admission import Verdict
from drain_hook.cordon import Pace
from drain_hook.steps import AFTER_WRITING_S, Writing, is_hopeless, step_that_fits
from drain_hook.write_tally import BELIEVED_S, KnownPaces
from tests.drain_hook.stages import Stage, stage
from tests.drain_hook.test_budgets import LoopClock, SlowCluster
from tests.model.virtual_time import VirtualLoop

HALF_WAY = Writing(pods=200, written=100, seconds=8.0, before_s=1.0, budget_s=9.0)
"""12.5 a second: in the 6 s that are neither before nor after the records there is time for 75."""
WORKLOAD = ("apps", "worker")
MANY, BUDGET_S, SLOW_S = 200, 9.0, 2.9


# The step, as a value


def test_a_step_is_what_there_was_time_for_with_a_margin() -> None:
    """Four fifths of 75."""
    assert step_that_fits(HALF_WAY) == 60


@pytest.mark.parametrize(("written", "step"), [(1, None), (3, 1), (14, 8), (20, 10), (33, 10), (199, 100)])
def test_it_is_rounded_down_to_one_digit(written: int, step: int | None) -> None:
    """So that a sentence with it is the same at the next try."""
    assert step_that_fits(replace(HALF_WAY, written=written)) == step


@pytest.mark.parametrize(
    "writing",
    [
        pytest.param(replace(HALF_WAY, written=0), id="not one was written"),
        pytest.param(replace(HALF_WAY, pods=0, written=0, seconds=0.0), id="there was nothing to write"),
        pytest.param(replace(HALF_WAY, before_s=6.0, seconds=3.0), id="the time went before"),
        pytest.param(replace(HALF_WAY, written=200, seconds=1.0), id="the time went afterwards"),
        pytest.param(replace(HALF_WAY, pods=250, written=250, seconds=4.6), id="there was just the time"),
    ],
)
def test_no_step_is_named_where_a_smaller_one_would_not_help(writing: Writing) -> None:
    assert step_that_fits(writing) is None


@given(
    st.builds(
        Writing,
        pods=st.integers(1, 5000),
        written=st.integers(0, 5000),
        seconds=st.floats(0, 30),
        before_s=st.floats(0, 30),
        budget_s=st.floats(0.5, 30),
    )
)
def test_a_step_is_smaller_and_would_have_fitted(writing: Writing) -> None:
    step = step_that_fits(writing)
    if step is not None:
        assert 0 < step < writing.pods
        takes_s = step * writing.seconds / writing.written
        assert (
            writing.before_s + takes_s + min(AFTER_WRITING_S, writing.budget_s / 2) <= writing.budget_s + 1e-6
        )
        assert not is_hopeless(replace(writing, pods=step))


def test_hopeless_is_what_twice_the_pace_would_not_do() -> None:
    """12.5 a second, and nine seconds."""
    assert not is_hopeless(replace(HALF_WAY, pods=225))
    assert is_hopeless(replace(HALF_WAY, pods=226))


def test_a_pace_is_forgotten_after_a_minute() -> None:
    """Nobody would find out that the API server is well again, if nobody tried."""
    paces = KnownPaces()
    paces.learn(WORKLOAD, HALF_WAY, now=0.0)
    assert paces.of(WORKLOAD, now=BELIEVED_S - 1) == HALF_WAY
    assert paces.of(("apps", "other"), now=1.0) is None
    assert paces.of(WORKLOAD, now=BELIEVED_S) is None


# A round whose PATCHes are slow


@pytest.fixture
def slow() -> tuple[Stage, VirtualLoop]:
    """Many idle workers; each PATCH takes 2.9 s, so there is time for 64 in a review."""
    loop = VirtualLoop()
    scene = stage(
        MANY,
        cluster=lambda: SlowCluster(delays={"patch_pod": SLOW_S}),
        clock=LoopClock(loop=loop),
        pace=Pace(),
    )
    return scene, loop


async def ask(scene: Stage, to_replicas: int) -> Verdict:
    return await scene.ask(MANY, to_replicas, within_s=BUDGET_S)


def patches(scene: Stage) -> int:
    return len(scene.cluster.calls_of("patch_pod"))


def named_step(verdict: Verdict) -> int:
    found = re.search(r"scale down by at most (\d+) at a time", verdict.message)
    assert found, verdict.message
    return int(found[1])


def test_the_step_that_is_named_does_fit(slow: tuple[Stage, VirtualLoop]) -> None:
    """What was begun is taken back, and the smaller one is let through by the same slow API server."""
    scene, loop = slow
    try:
        refused = loop.run(ask(scene, 0))
        assert (refused.allowed, refused.reason) == (False, "OutOfTime")
        assert scene.marked == scene.draining == set()
        step = named_step(refused)
        assert f"a scaleDown policy of {step} Pods" in refused.message
        assert loop.run(ask(scene, MANY - step)).reason == "Drained"
        assert len(scene.marked) == step
    finally:
        loop.end()


def test_the_next_try_is_refused_before_anything_is_touched(slow: tuple[Stage, VirtualLoop]) -> None:
    """The HPA asks every 15 s: 64 records each time, and 64 to take back, would slow it down further."""
    scene, loop = slow
    try:
        first = loop.run(ask(scene, 0))
        before = patches(scene)
        second = loop.run(ask(scene, 0))
        assert (second.allowed, second.reason, patches(scene)) == (False, "OutOfTime", before)
        assert "Nothing was touched" in second.message
        assert named_step(second) == named_step(first)
    finally:
        loop.end()


def test_a_caller_with_less_time_does_not_have_that_of_others_refused() -> None:
    """What one could not do in less than a second is judged by the time that the next one has."""
    loop = VirtualLoop()
    try:
        cluster = SlowCluster(delays={"patch_pod": 0.4})
        scene = stage(MANY, cluster=lambda: cluster, clock=LoopClock(loop=loop), pace=Pace())
        assert loop.run(scene.ask(MANY, 50, within_s=0.9)).reason == "OutOfTime"
        assert loop.run(scene.ask(MANY, 50, within_s=BUDGET_S)).reason == "Drained"
    finally:
        loop.end()


def test_an_api_server_that_is_well_again_is_found_out(slow: tuple[Stage, VirtualLoop]) -> None:
    scene, loop = slow
    try:
        loop.run(ask(scene, 0))
        assert isinstance(scene.cluster, SlowCluster)
        scene.cluster.delays.clear()

        async def later() -> Verdict:
            await asyncio.sleep(BELIEVED_S)
            return await ask(scene, 0)

        assert loop.run(later()).reason == "Drained"
    finally:
        loop.end()


def test_no_step_is_named_when_something_else_is_slow() -> None:
    """Fewer workers would take as long."""
    loop = VirtualLoop()
    try:
        scene = stage(
            4,
            cluster=lambda: SlowCluster(delays={"workload": 2.9, "read_lease": 2.9}),
            clock=LoopClock(loop=loop),
            pace=Pace(),
        )
        verdict = loop.run(scene.ask(4, 0, within_s=3.0))
        assert verdict.reason in ("OutOfTime", "Locked")
        assert "at a time" not in verdict.message
    finally:
        loop.end()
