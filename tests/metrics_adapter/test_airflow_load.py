"""The load of Airflow pools: what waits is in the metadata database, what runs is with the workers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from metrics_adapter.catalogue import METRICS, Sample
from metrics_adapter.load import Load, Reading, loads, take_reading
from shared.airflow_tasks import TaskInstance
from shared.pods import Pod
from shared.pools import Pool
from shared.workers import Fleet, Label, Task, TaskKey, WorkerSnapshot
from tests.fakes.metadata import celery_task, task_key
from tests.metrics_adapter.builders import NOW, pod, pool, starting_pod, worker

AIRFLOW = {"database": "postgresql://reader@db/airflow"}


def airflow_pool(name: str = "default", **fields: Any) -> Pool:
    return pool(name, airflow=AIRFLOW, **fields)


def queued(key: TaskKey, *, queue: str = "default", age_s: float = 5.0, **fields: Any) -> TaskInstance:
    return TaskInstance(key=key, state="queued", queue=queue, age_s=age_s, **fields)


def keys(count: int) -> list[TaskKey]:
    return [task_key(f"task_{index}") for index in range(count)]


def airflow_reading(
    pods: Iterable[Pod] = (),
    workers: Iterable[WorkerSnapshot] = (),
    rows: Iterable[TaskInstance] = (),
    *,
    of: Pool | None = None,
    believed: dict[str, tuple[Task, ...]] | None = None,
    unplaced: tuple[Task, ...] = (),
    last: Reading | None = None,
    measured_at: float = NOW,
) -> Reading:
    fleet = Fleet(
        workers={w.node: w for w in workers},
        believed={f"celery@{name}": tasks for name, tasks in (believed or {}).items()},
        unplaced=unplaced,
    )
    return take_reading(
        pool=of or airflow_pool(),
        source="metadata",
        pods=pods,
        fleet=fleet,
        queued=rows,
        last=last,
        measured_at=measured_at,
    )


def airflow_load(*args: Any, **fields: Any) -> Load:
    (only,) = loads([airflow_reading(*args, **fields)]).values()
    return only


def value(of: Load, name: str) -> float:
    (sample,) = METRICS[name].samples((of,))
    return sample.milli / 1000


def test_queued_rows_wait() -> None:
    waiting = airflow_load([pod()], [worker()], map(queued, keys(3)))
    assert (waiting.demand, value(waiting, "celery_waiting_tasks")) == (3, 3)


def test_a_task_that_a_worker_has_is_no_waiting_one_whatever_the_database_says() -> None:
    """It still says queued for up to three seconds after Celery accepted it: the task counts once."""
    first, second, third = keys(3)
    busy = worker(active=(celery_task(first, id="a"), Task(id="b", name="execute_workload")))
    rows = [queued(first), queued(second, celery_id="b"), queued(third, celery_id="c")]
    load = airflow_load([pod()], [busy], rows)
    assert (value(load, "celery_active_tasks"), value(load, "celery_waiting_tasks")) == (2, 1)
    assert load.demand == 3


def test_a_prefetched_task_waits_once() -> None:
    (key,) = keys(1)
    load = airflow_load([pod()], [worker(reserved=(celery_task(key, seconds=None),))], [queued(key)])
    assert (value(load, "celery_waiting_tasks"), load.demand) == (1, 1)


def test_what_a_draining_worker_has_prefetched_is_no_demand() -> None:
    """It runs there; an HPA that counted it would ask back the replica that is leaving."""
    (key,) = keys(1)
    draining = pod(is_draining=True)
    assert airflow_load([draining], [worker(reserved=(celery_task(key),))], [queued(key)]).demand == 0


def test_a_silent_worker_runs_what_the_database_says() -> None:
    """Rather than the most it could run: the database knows every task of Airflow."""
    pods = [pod("w-0"), pod("w-1")]
    before = airflow_reading(pods, [worker("w-0"), worker("w-1")])
    running = (celery_task(task_key("extract")), celery_task(task_key("load")))
    load = airflow_load(pods, [worker("w-1")], believed={"w-0": running}, last=before)
    assert load.demand == 2
    assert load.reading.silent == ("celery@w-0",)


def test_a_silent_worker_with_a_protected_task_is_fully_occupied() -> None:
    protected = Task(id="a", name="execute_workload", key=task_key(), label=Label(protect=True))
    assert airflow_load([pod("w-0"), pod("w-1")], [worker("w-1")], believed={"w-0": (protected,)}).demand == 8


def test_an_unknown_worker_may_run_what_runs_on_no_known_one() -> None:
    """Up to its slots; a starting worker runs nothing, and one that answers says so itself."""
    pods = [pod("w-0"), starting_pod("w-1"), pod("w-2")]
    lost = tuple(celery_task(key) for key in keys(2))
    load = airflow_load(pods, [worker("w-2")], believed={"w-0": (celery_task(task_key()),)}, unplaced=lost)
    assert load.demand == 3
    assert airflow_load(pods, [worker("w-2")], unplaced=lost * 5).demand == 8
    protected = replace(lost[0], label=Label(protect=True))
    assert airflow_load(pods, [worker("w-2")], unplaced=(protected,)).demand == 8


def test_a_retry_waits_beside_its_first_try() -> None:
    """Whose heartbeats were missed, and whose process runs on: two slots are wanted."""
    (key,) = keys(1)
    first = replace(celery_task(key, id="1"), try_number=1)
    assert airflow_load([pod()], [worker(active=(first,))], [queued(key, try_number=2)]).demand == 2
    assert airflow_load([pod()], [worker(active=(first,))], [queued(key, try_number=1)]).demand == 1


def test_what_a_terminating_worker_still_runs_is_no_demand() -> None:
    """After SIGTERM it answers nothing, and the database goes on telling of its tasks."""
    key = task_key()
    going = pod("w-0", is_terminating=True)
    load = airflow_load([going, pod("w-1")], [worker("w-1")], believed={"w-0": (celery_task(key),)})
    assert load.demand == 0


def test_the_database_alone_is_enough() -> None:
    """With the broker away every worker is silent, and the rows are all there is."""
    pods = [pod("w-0"), pod("w-1")]
    before = airflow_reading(pods, [worker("w-0", slots=4), worker("w-1", slots=4)])
    rows = map(queued, keys(2))
    load = airflow_load(pods, rows=rows, believed={"w-0": (celery_task(task_key("extract")),)}, last=before)
    assert (load.demand, value(load, "celery_slots")) == (3, 8)


def test_rows_of_a_shared_queue_are_divided_and_counted_once() -> None:
    """A worker of one pool may have what the other's reading still shows as queued."""
    small, large = (airflow_pool(name, queues=["shared"]) for name in ("small", "large"))
    rows = [queued(key, queue="shared") for key in keys(4)]
    accepted = celery_task(rows[0].key)
    read = [
        airflow_reading([pod("s-0")], [worker("s-0", (accepted,), slots=1)], rows, of=small),
        airflow_reading([pod("l-0")], [worker("l-0", slots=2)], rows, of=large),
    ]
    by_pool = loads(read)
    assert {name: by_pool["airflow", name].queued for name in ("small", "large")} == {"small": 1, "large": 2}


def oldest(*measured: Load) -> tuple[Sample, ...]:
    return METRICS["celery_oldest_waiting_seconds"].samples(measured)


def test_the_oldest_waiting_task_is_the_oldest_that_no_worker_has() -> None:
    first, second, third = keys(3)
    rows = [queued(first, age_s=90.0), queued(second, age_s=12.2), queued(third, age_s=3.0)]
    (sample,) = oldest(airflow_load([pod()], [worker(active=(celery_task(first),))], rows))
    assert sample.milli == 13_000


def test_nothing_that_waits_is_a_zero_that_was_measured() -> None:
    (sample,) = oldest(airflow_load([pod()], [worker()]))
    assert sample.milli == 0


def test_of_several_pools_the_oldest_of_all_counts() -> None:
    """An HPA sums items, and a sum of ages is no age."""
    rows = [queued(task_key(), age_s=40.0)]
    idle = airflow_load([pod()], [worker()], of=airflow_pool("idle"))
    (sample,) = oldest(idle, airflow_load(rows=rows))
    assert (sample.milli, sample.labels) == (40_000, {})


def test_plain_celery_has_no_oldest_task() -> None:
    plain = take_reading(pool=pool(), source="b", pods=(), fleet=Fleet(), last=None, measured_at=NOW)
    assert oldest(*loads([plain]).values()) == ()


@given(
    held=st.sets(st.integers(0, 9), max_size=8),
    rows=st.sets(st.integers(0, 9)),
    by_id=st.booleans(),
)
def test_every_task_counts_exactly_once(held: set[int], rows: set[int], by_id: bool) -> None:
    """Demand is the number of distinct tasks, whatever both sources tell of each."""
    named = keys(10)
    active = tuple(
        Task(id=str(i), name="execute_workload", key=None if by_id else named[i], started_at=NOW)
        for i in sorted(held)
    )
    instances = [queued(named[i], celery_id=str(i) if by_id else None) for i in sorted(rows)]
    assert airflow_load([pod()], [worker(active=active)], instances).demand == len(held | rows)
