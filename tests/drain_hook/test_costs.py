"""What it costs to stop a worker."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drain_hook.costs import untouchable, worker_cost
from shared.workers import Task
from tests.drain_hook.builders import NOW, pool, task, worker

MINUTES = 60.0
TASKS = st.builds(
    task,
    st.sampled_from(["reports.build", "heavy.crunch", "billing.close"]),
    st.none() | st.integers(0, 10**6).map(float),
)


def cost(*tasks: Task, exponent: float = 2, **fields: tuple[Task, ...]) -> float:
    rule = pool(cost={"exponent": exponent, "unitSeconds": 60})
    return worker_cost(worker("w", *tasks, **fields), pool=rule, now=NOW)


def test_an_idle_worker_costs_nothing() -> None:
    """Nobody loses anything when it stops."""
    assert cost() == 0


@pytest.mark.parametrize(
    ("running_s", "expected"), [(0, 1), (60, 2), (180, 10), (3 * 3600, 1 + 180**2), (-5, 1)]
)
def test_a_task_costs_more_the_longer_it_has_run(running_s: float, expected: float) -> None:
    """1 + (running seconds / unitSeconds) ** exponent; a clock ahead of ours counts as just started."""
    assert cost(task(running_s=running_s)) == expected


def test_one_long_task_costs_more_than_many_short_ones() -> None:
    """One of three hours against sixteen of fifteen minutes."""
    assert cost(task(running_s=180 * MINUTES)) > cost(*[task(running_s=15 * MINUTES)] * 16)


def test_a_weight_multiplies() -> None:
    """Labels weigh tasks by name."""
    assert cost(task("heavy.crunch", 120)) == 5 * cost(task(running_s=120))


def test_a_reserved_task_costs_as_one_just_started() -> None:
    """A worker that stops consuming still runs what it has prefetched."""
    assert cost(reserved=(task(running_s=None),)) == cost(task(running_s=0)) == 1


def test_a_task_held_for_later_costs_nothing() -> None:
    """It goes back to the queue when the worker stops."""
    assert cost(eta=(task(running_s=None),)) == 0


def test_no_running_time_is_too_long() -> None:
    """Beyond what a float holds, a cost is infinite, and one of weight 0 still nothing."""
    rule = {"cost": {"exponent": 10, "unitSeconds": 1e-300}}
    weightless = pool(labels=[{"task": "*", "weight": 0}], **rule)
    assert worker_cost(worker("w", task()), pool=pool(**rule), now=NOW) == float("inf")
    assert worker_cost(worker("w", task()), pool=weightless, now=NOW) == 0


@given(tasks=st.lists(TASKS, max_size=5), more=TASKS)
def test_more_tasks_never_cost_less(tasks: list[Task], more: Task) -> None:
    """Whatever else it runs."""
    assert cost(*tasks, more) >= cost(*tasks)


@given(tasks=st.lists(TASKS, max_size=5), running_s=st.integers(0, 10**6), longer_s=st.integers(0, 10**6))
def test_a_longer_task_never_costs_less(tasks: list[Task], running_s: int, longer_s: int) -> None:
    """Whatever else it runs, and for any exponent."""
    short, long = task(running_s=running_s), task(running_s=running_s + longer_s)
    assert all(
        cost(*tasks, long, exponent=exponent) >= cost(*tasks, short, exponent=exponent)
        for exponent in (0, 0.5, 1, 2, 10)
    )


@given(weight=st.floats(0, 1e6), heavier=st.floats(0, 1e6), running_s=st.integers(0, 10**6))
def test_a_heavier_task_never_costs_less(weight: float, heavier: float, running_s: int) -> None:
    """The weight is what its label says."""
    light, heavy = (
        worker_cost(
            worker("w", task(running_s=running_s)),
            pool=pool(labels=[{"task": "*", "weight": of}]),
            now=NOW,
        )
        for of in sorted((weight, heavier))
    )
    assert light <= heavy


@pytest.mark.parametrize("where", ["active", "reserved"])
def test_a_worker_with_a_protected_task_is_protected(where: str) -> None:
    """Running or prefetched: it is going to run here either way."""
    protected, other = task("billing.close"), task()
    snapshot = (
        worker("w", **{"reserved": (protected, other)}) if where == "reserved" else worker("w", protected)
    )
    assert untouchable(snapshot.tasks, pool=pool())


def test_a_worker_without_one_is_not() -> None:
    """Nor one that holds it for later: that goes back to the queue."""
    assert not untouchable(worker("w", task(), eta=(task("billing.close", None),)).tasks, pool=pool())
