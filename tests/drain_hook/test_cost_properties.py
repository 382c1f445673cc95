"""What holds of the cost of any worker, whoever labelled its tasks: rules of ours or people in Airflow."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from drain_hook.costs import worker_cost
from shared.airflow_fleet import with_metadata
from shared.airflow_tasks import Metadata, TaskInstance
from shared.pools import Pool
from shared.workers import NO_LABEL, Fleet, Label, Task, TaskKey
from tests.drain_hook.builders import NOW, pool, task, worker

SECONDS = st.integers(0, 10**6)
WEIGHTS = st.floats(0, 1e6)
LABELS = st.none() | st.builds(Label, protect=st.booleans(), weight=st.none() | WEIGHTS)
DAGS = st.sampled_from(["nightly", "hourly"])
COSTS = st.fixed_dictionaries(
    {"exponent": st.sampled_from([0, 0.5, 1, 2, 10]), "unitSeconds": st.sampled_from([0.001, 1, 60, 3600])}
)
RULES = st.lists(
    st.fixed_dictionaries(
        {"dag": st.sampled_from(["*", "nightly"])}, optional={"weight": WEIGHTS, "protect": st.booleans()}
    ),
    max_size=3,
)
POOLS = st.builds(lambda labels, cost: pool(labels=labels, cost=cost), RULES, COSTS)


def airflow_task(
    dag_id: str = "nightly", running_s: float | None = 60, label: Label | None = NO_LABEL
) -> Task:
    key = TaskKey(dag_id=dag_id, task_id="t", run_id="r")
    return replace(task(running_s=running_s), key=key, label=label)


TASKS = st.builds(airflow_task, DAGS, st.none() | SECONDS.map(float), LABELS)


def cost(*tasks: Task, by: Pool) -> float:
    return worker_cost(worker("w", *tasks), pool=by, now=NOW)


@given(by=POOLS, tasks=st.lists(TASKS, max_size=5), more=TASKS)
def test_more_tasks_never_cost_less(by: Pool, tasks: list[Task], more: Task) -> None:
    """Whatever they weigh, for any rules, and in any order."""
    assert cost(*tasks, more, by=by) >= cost(*tasks, by=by)
    assert math.isclose(cost(*tasks, more, by=by), cost(more, *reversed(tasks), by=by))


@given(by=POOLS, tasks=st.lists(TASKS, max_size=5), one=TASKS, running_s=SECONDS, longer_s=SECONDS)
def test_a_longer_task_never_costs_less(
    by: Pool, tasks: list[Task], one: Task, running_s: int, longer_s: int
) -> None:
    """Nor does one that has started, compared with one that was prefetched."""
    prefetched, short, long = (
        replace(one, started_at=at) for at in (None, NOW - running_s, NOW - running_s - longer_s)
    )
    assert cost(*tasks, prefetched, by=by) <= cost(*tasks, short, by=by) <= cost(*tasks, long, by=by)


@given(by=POOLS, tasks=st.lists(TASKS, max_size=5), one=TASKS, weights=st.tuples(WEIGHTS, WEIGHTS))
def test_a_heavier_task_never_costs_less(
    by: Pool, tasks: list[Task], one: Task, weights: tuple[float, float]
) -> None:
    """By a label in Airflow; where a rule has spoken, it costs the same."""
    light, heavy = (cost(*tasks, replace(one, label=Label(weight=each)), by=by) for each in sorted(weights))
    assert light <= heavy


@given(tasks=st.lists(TASKS, max_size=5), one=TASKS, weights=st.tuples(WEIGHTS, WEIGHTS), by=COSTS)
def test_a_heavier_rule_never_makes_a_task_cost_less(
    tasks: list[Task], one: Task, weights: tuple[float, float], by: dict[str, float]
) -> None:
    """The weight of a rule goes before that of a label."""
    light, heavy = (
        cost(*tasks, one, by=pool(labels=[{"dag": "*", "weight": each}], cost=by)) for each in sorted(weights)
    )
    assert light <= heavy


@given(count=st.integers(2, 200), short_s=st.integers(60, 10**5), label=LABELS)
def test_one_long_task_costs_more_than_many_short_ones(count: int, short_s: int, label: Label | None) -> None:
    """With the defaults, when they have run as long together, each for a minute or more."""
    label = label if label and label.weight else None
    long = airflow_task(running_s=count * short_s, label=label)
    short = [airflow_task(running_s=short_s, label=label)] * count
    assert cost(long, by=pool(labels=[])) > cost(*short, by=pool(labels=[]))


@given(
    ages=st.tuples(SECONDS, SECONDS),
    skews=st.tuples(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6)),
)
def test_the_clocks_of_workers_do_not_matter(ages: tuple[int, int], skews: tuple[int, int]) -> None:
    """The worker whose task has run longer by the database's clock costs no less, whatever they say."""
    keys = [TaskKey(dag_id="d", task_id=f"t{n}", run_id="r") for n in range(2)]
    rows = tuple(
        TaskInstance(key=key, state="running", queue="default", host=f"w{n}", age_s=float(ages[n]))
        for n, key in enumerate(keys)
    )
    asked = Fleet(
        workers={
            f"celery@w{n}": worker(f"w{n}", replace(task(running_s=ages[n] + skews[n]), key=key))
            for n, key in enumerate(keys)
        }
    )
    by = pool(labels=[], airflow={"databaseFrom": {"env": "DB"}})
    told = with_metadata(
        asked, Metadata(read_at=NOW, instances=rows), pool=by, nodes=list(asked.workers), asked_at=NOW
    )
    one, other = (worker_cost(told.workers[f"celery@w{n}"], pool=by, now=NOW) for n in range(2))
    assert (one <= other) == (ages[0] <= ages[1])
