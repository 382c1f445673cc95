"""Celery's word and the metadata database's, held together: who runs what, and what waits."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.airflow_fleet import (
    YOUNG_S,
    belongs,
    dags_of,
    has_unknown_label,
    queued_of,
    waiting_of,
    with_metadata,
    with_what_may_have_begun,
)
from shared.airflow_tasks import DagLabels, Metadata, TaskInstance
from shared.celery_replies import parse_tasks
from shared.pools import Airflow, Pool
from shared.workers import NO_LABEL, Fleet, Label, Task, TaskKey, WorkerSnapshot

RECORDINGS = Path(__file__).parent.parent / "recordings" / "airflow"
NOW = 1_700_000_000.0
PROTECT = Label(protect=True)
WITH_ALIAS = "reports:airflow.providers.celery.executors.celery_executor.CeleryExecutor"
"""As [core] executor of Airflow names an executor that has an alias."""
NODES = ("celery@a", "celery@b", "celery@silent", "celery@leaving")


def pool(**airflow: Any) -> Pool:
    return Pool.model_validate(
        {
            "name": "default",
            "namespace": "airflow",
            "workload": {"name": "worker"},
            "queues": ["default", "high"],
            "slotsPerWorker": 16,
            "broker": {"url": "redis://r/0"},
            "airflow": {"databaseFrom": {"env": "DB"}} | airflow,
        }
    )


POOL = pool()


def airflow(**fields: Any) -> Airflow:
    source = pool(**fields).airflow
    assert source is not None
    return source


def key(task_id: str = "t", dag_id: str = "d") -> TaskKey:
    return TaskKey(dag_id=dag_id, task_id=task_id, run_id="r")


def row(
    task_id: str = "t",
    state: Literal["queued", "running"] = "running",
    *,
    host: str = "",
    age_s: float | None = 100.0,
    **fields: Any,
) -> TaskInstance:
    return TaskInstance(key=key(task_id), state=state, queue="default", host=host, age_s=age_s, **fields)


def task(id: str = "1", task_id: str | None = "t", *, running_s: float | None = 50.0) -> Task:
    """As a worker tells it."""
    return Task(
        id=id,
        name="execute_workload",
        key=None if task_id is None else key(task_id),
        started_at=None if running_s is None else NOW - running_s,
    )


def worker(node: str, *active: Task, reserved: Iterable[Task] = ()) -> WorkerSnapshot:
    return WorkerSnapshot(node=node, slots=16, active=active, reserved=tuple(reserved))


def fleet(*workers: WorkerSnapshot, silent: Iterable[str] = ()) -> Fleet:
    return Fleet(workers={each.node: each for each in workers}, silent=frozenset(silent))


def metadata(*rows: TaskInstance, **labels: DagLabels) -> Metadata:
    return Metadata(read_at=NOW, instances=rows, labels=labels)


def told(fleet: Fleet, metadata: Metadata, *, asked_at: float = NOW) -> Fleet:
    return with_metadata(fleet, metadata, pool=POOL, nodes=NODES, asked_at=asked_at)


def only_task(fleet: Fleet, metadata: Metadata) -> Task:
    (only,) = told(fleet, metadata).workers["celery@a"].tasks
    return only


def test_a_task_gets_the_label_of_its_row() -> None:
    """Which is that of the version of the DAG that it runs, not of the latest."""
    rows = metadata(row(host="a", label=PROTECT), d=DagLabels(dag=Label(weight=5)))
    assert only_task(fleet(worker("celery@a", task())), rows).label == PROTECT


def test_a_task_without_a_row_gets_the_label_of_its_dag() -> None:
    """Celery still has it; Airflow has deleted, failed or requeued it."""
    labels = DagLabels(dag=Label(weight=5), tasks={"t": PROTECT})
    assert only_task(fleet(worker("celery@a", task())), metadata(d=labels)).label == Label(
        protect=True, weight=5
    )


def test_a_label_that_nobody_asked_for_is_unknown() -> None:
    """Unknown is not unlabelled; a DAG that was asked for and has none is."""
    unasked = only_task(fleet(worker("celery@a", task())), metadata(e=DagLabels()))
    asked = only_task(fleet(worker("celery@a", task())), metadata(d=DagLabels()))
    assert (unasked.label, has_unknown_label(unasked)) == (None, True)
    assert (asked.label, has_unknown_label(asked)) == (NO_LABEL, False)


def test_a_task_whose_payload_says_nothing_is_known_by_its_celery_id() -> None:
    """Airflow has written it down as external_executor_id."""
    rows = metadata(row("other", host="a", celery_id="2"), row(host="a", celery_id="1", label=PROTECT))
    found = only_task(fleet(worker("celery@a", task("1", None))), rows)
    assert (found.key, found.label) == (key(), PROTECT)


def test_a_task_of_airflow_that_nobody_knows_has_an_unknown_label() -> None:
    """It could be a protected one."""
    found = only_task(fleet(worker("celery@a", task("1", None))), metadata(row(host="a", celery_id="2")))
    assert has_unknown_label(found)


@pytest.mark.parametrize(
    "other",
    [
        Task(id="1", name="lab.sleep", started_at=NOW),
        Task(id="1", name="execute_workload", label=NO_LABEL, started_at=NOW),
    ],
)
def test_what_airflow_has_no_labels_for_has_no_unknown_one(other: Task) -> None:
    """Plain Celery tasks, and Airflow's callbacks."""
    assert only_task(fleet(worker("celery@a", other)), metadata()) == other
    assert not has_unknown_label(other)


def test_the_age_of_a_task_is_by_the_clock_of_the_database() -> None:
    """Those of workers differ, and costs are compared between them."""
    found = only_task(
        fleet(worker("celery@a", task("1", running_s=-500))), metadata(row(host="a", celery_id="1"))
    )
    assert found.started_at == NOW - 100


@pytest.mark.parametrize(
    "its_row",
    [
        row(state="queued"),
        row(host="a", age_s=None),
        row(host="a", celery_id="of another try"),
        row(host="a", celery_id="1", try_number=2),
    ],
)
def test_without_its_start_in_the_database_the_worker_is_believed(its_row: TaskInstance) -> None:
    """A row that is seconds behind, or of another try, says nothing of when this one began."""
    first = replace(task(), try_number=1)
    assert only_task(fleet(worker("celery@a", first)), metadata(its_row)).started_at == NOW - 50


def test_a_prefetched_task_has_not_started() -> None:
    """Whatever its row says, as after a redelivery."""
    reserved = fleet(worker("celery@a", reserved=[task(running_s=None)]))
    found = only_task(reserved, metadata(row(host="a", label=PROTECT)))
    assert (found.started_at, found.label) == (None, PROTECT)


@pytest.mark.parametrize("node", ["celery@silent", "celery@leaving"])
def test_of_a_worker_that_does_not_answer_the_database_is_believed(node: str) -> None:
    """Asked in vain, or not asked since it shuts down and never answers again."""
    host = node.removeprefix("celery@")
    rows = metadata(row(host=host, celery_id="1", label=PROTECT), row("u", host=host, age_s=1))
    found = told(fleet(worker("celery@a"), silent=["celery@silent"]), rows)
    one, two = found.believed[node]
    assert (one.id, one.name, one.key, one.label, one.started_at) == ("1", "d.t", key(), PROTECT, NOW - 100)
    assert (two.id, two.key, two.started_at) == ("d.u/r/-1", key("u"), NOW - 1)
    assert found.workers == {"celery@a": worker("celery@a")}
    assert found.silent == {"celery@silent"}


def test_a_node_is_named_as_the_pool_says() -> None:
    """The row has the pod's name, whatever Celery calls the worker."""
    named = POOL.model_copy(update={"worker_name": "w-{pod}@x"})
    found = with_metadata(Fleet(), metadata(row(host="a")), pool=named, nodes=["w-a@x"], asked_at=NOW)
    assert found.believed.keys() == {"w-a@x"}


def test_a_row_on_a_pod_that_is_gone_is_nobodys() -> None:
    """Airflow fails it when its heartbeats are missed; until then no worker of ours has it."""
    assert told(fleet(), metadata(row(host="gone"), row("u", host=""))).believed == {}


def test_a_task_on_none_of_the_pods_there_are_may_be_on_any_worker_without_an_answer() -> None:
    """As where hostname_callable gives an address; not one for other workers, or that an answer tells of."""
    rows = metadata(
        row("lost", host="10"),
        row("kubernetes", host="10", executor="KubernetesExecutor"),
        replace(row("elsewhere", host="10"), queue="elsewhere"),
        row("neighbour", host="neighbour"),
        row("held", host="10"),
    )
    found = with_metadata(
        fleet(worker("celery@a", task("1", "held")), silent=["celery@silent"]),
        rows,
        pool=POOL,
        nodes=NODES,
        asked_at=NOW,
        elsewhere=["neighbour"],
    )
    assert [each.key for each in found.unplaced] == [key("lost")]
    assert found.believed == {}


def test_the_queues_that_workers_say_they_consume_are_theirs_too() -> None:
    """Whatever the configuration has forgotten."""
    rows = metadata(replace(row("lost", host="10"), queue="extra"))
    assert told(fleet(replace(worker("celery@a"), queues=frozenset({"extra"}))), rows).unplaced
    assert not told(fleet(worker("celery@a")), rows).unplaced


def test_a_zombie_keeps_nobody_busy() -> None:
    """The worker answers, and does not have it: the process has died, and Airflow has not noticed yet."""
    found = told(
        fleet(worker("celery@a")), metadata(row(host="a", age_s=YOUNG_S), row("u", host="a", age_s=None))
    )
    assert found == fleet(worker("celery@a"))


def test_a_task_that_started_after_its_worker_was_asked_is_believed() -> None:
    """The worker is not idle any more."""
    found = told(fleet(worker("celery@a")), metadata(row(host="a", age_s=20)), asked_at=NOW - 20)
    (active,) = found.workers["celery@a"].active
    assert (active.key, active.started_at) == (key(), NOW - 20)
    assert found.believed == {}


def test_a_worker_that_was_asked_after_the_database_has_the_last_word() -> None:
    """The task has ended in between, however young it was."""
    found = with_metadata(
        fleet(worker("celery@a"), worker("celery@b")),
        metadata(row(host="a", age_s=1), row("u", host="b", age_s=1)),
        pool=POOL,
        nodes=NODES,
        asked_at=NOW,
        asked_later={"celery@a"},
    )
    assert [len(found.workers[node].active) for node in ("celery@a", "celery@b")] == [0, 1]


def test_a_young_row_whose_task_a_worker_has_is_that_task() -> None:
    """Also when the row names another pod: its message was delivered again."""
    for node in ("celery@a", "celery@b"):
        workers = {"celery@a": worker("celery@a"), "celery@b": worker("celery@b")} | {
            node: worker(node, task())
        }
        found = told(fleet(*workers.values()), metadata(row(host="a", age_s=0)))
        assert sum(len(each.active) for each in found.workers.values()) == 1


def test_a_silent_worker_is_believed_about_a_task_that_another_has_too() -> None:
    """Two deliveries of one message hold two slots, and nobody knows which of them does the work."""
    found = told(fleet(worker("celery@a", task()), silent=["celery@silent"]), metadata(row(host="silent")))
    assert len(found.believed["celery@silent"]) == len(found.workers["celery@a"].active) == 1


@pytest.mark.parametrize(
    ("executor", "fields", "expected"),
    [
        (None, {}, True),
        (None, {"isDefaultExecutor": False}, False),
        ("CeleryExecutor", {"isDefaultExecutor": False}, True),
        ("CeleryKubernetesExecutor", {}, True),
        ("airflow.providers.celery.executors.celery_executor.CeleryExecutor", {}, True),
        (
            "CeleryExecutor",
            {"executor": "airflow.providers.celery.executors.celery_executor.CeleryExecutor"},
            True,
        ),
        ("CeleryExecutor", {"executor": "CeleryKubernetesExecutor"}, True),
        ("KubernetesExecutor", {}, False),
        ("airflow.executors.local_executor.LocalExecutor", {}, False),
        ("reports", {"executor": "reports"}, True),
        ("reports", {}, False),
        ("reports", {"executor": WITH_ALIAS}, True),
        ("CeleryExecutor", {"executor": WITH_ALIAS}, True),
        ("airflow.providers.celery.executors.celery_executor.CeleryExecutor", {"executor": WITH_ALIAS}, True),
        ("KubernetesExecutor", {"executor": WITH_ALIAS}, False),
        ("my.company.ReportsExecutor", {"executor": "ReportsExecutor"}, True),
        ("", {}, False),
    ],
)
def test_whose_a_task_is(executor: str | None, fields: dict[str, Any], expected: bool) -> None:
    """By its executor's short name, alias or full path; without one, the default executor's."""
    assert belongs(row(executor=executor), airflow(**fields)) is expected


def test_tasks_for_kubernetes_are_not_ours() -> None:
    """CeleryKubernetesExecutor tells them by their queue."""
    for queue in ("kubernetes", "pods"):
        instance = replace(row(), queue=queue)
        assert not belongs(instance, airflow(kubernetesQueue=queue))
    assert belongs(replace(row(), queue="kubernetes"), airflow(kubernetesQueue="pods"))


def test_what_waits_is_queued_in_the_queues_of_the_pool() -> None:
    """Running, another executor's and other queues' do not."""
    rows = metadata(
        row("ours", "queued"),
        row("high", "queued"),
        row("running", host="a"),
        row("other", "queued", executor="KubernetesExecutor"),
        replace(row("elsewhere", "queued"), queue="elsewhere"),
    )
    assert [each.key.task_id for each in queued_of(rows, pool=POOL)] == ["ours", "high"]
    assert queued_of(rows, pool=POOL.model_copy(update={"airflow": None})) == ()


@pytest.mark.parametrize("held", [task("x"), task("1", None), task("x", running_s=None)])
def test_a_queued_task_that_a_worker_has_does_not_wait(held: Task) -> None:
    """Known by its key or by its Celery id: the database is seconds behind, and it counts as the worker's."""
    queued = [row(state="queued", celery_id="1"), row("u", "queued", celery_id=None)]
    assert [each.key.task_id for each in waiting_of(queued, [held])] == ["u"]


@pytest.mark.parametrize(
    ("tried", "celery_id", "waits"),
    [(1, None, True), (1, "1", True), (2, "of the first try", False), (None, "2", False)],
)
def test_an_earlier_try_does_not_hide_a_retry(tried: int | None, celery_id: str | None, waits: bool) -> None:
    """Its heartbeats were missed, so it runs on beside the next one, which is another task.

    Ids do not tell tries apart: one may stand in its row until the next is written down.
    """
    first, retry = (
        replace(task("1"), try_number=tried),
        row(state="queued", celery_id=celery_id, try_number=2),
    )
    assert bool(waiting_of([retry], [first])) is waits
    second = replace(retry, state="running", host="b", age_s=0)
    found = told(fleet(worker("celery@a", first), worker("celery@b")), metadata(second))
    assert len(found.workers["celery@b"].active) == waits


def test_the_dags_whose_labels_are_wanted() -> None:
    """Of what runs and of what was prefetched."""
    other = replace(task("2"), key=key(dag_id="e"))
    asked = fleet(worker("celery@a", task(), task("3", None), reserved=[other]))
    assert dags_of(asked) == {"d", "e"}


@pytest.mark.parametrize("name", ["af2_running1", "af3_running1", "af3_running2"])
def test_recorded_fleets(name: str) -> None:
    """Airflow 2 and 3 with tasks on workers and in queues: all eight are counted, each once."""
    recording = json.loads((RECORDINGS / f"{name}.json").read_text())
    asked = fleet(*(worker(node, *parse_tasks(infos)) for node, infos in recording["active"].items()))
    rows = metadata(
        *(recorded_row(r, recording["time"]) for r in recording["db"] if r["state"] in ("running", "queued"))
    )
    nodes = ["celery@pod-wa", "celery@pod-wb"]
    found = with_metadata(asked, rows, pool=POOL, nodes=nodes, asked_at=NOW)
    running = [t for each in found.workers.values() for t in each.active]
    waiting = waiting_of(queued_of(rows, pool=POOL), running)
    assert {t.key for t in running} | {w.key for w in waiting} == {r.key for r in rows.instances}
    assert len(running) + len(waiting) == len(rows.instances) == 8
    assert len(waiting) == sum(recording["depth"].values())
    assert all(t.label == (PROTECT if t.key and t.key.task_id == "prot" else NO_LABEL) for t in running)

    stopped = with_metadata(Fleet(), rows, pool=POOL, nodes=nodes, asked_at=NOW)
    assert {t.key for tasks in stopped.believed.values() for t in tasks} == {t.key for t in running}


def recorded_row(recorded: dict[str, Any], time: float) -> TaskInstance:
    since = datetime.fromisoformat(recorded["start_date"] or recorded["queued_dttm"]).timestamp()
    return TaskInstance(
        key=TaskKey(**{part: recorded[part] for part in ("dag_id", "task_id", "run_id", "map_index")}),
        state=recorded["state"],
        queue=recorded["queue"],
        executor=recorded["executor"],
        host=recorded["hostname"].partition(".")[0],
        celery_id=recorded["external_executor_id"],
        age_s=max(0.0, time - since),
        label=PROTECT if recorded["task_id"] == "prot" else NO_LABEL,
    )


FATES = (
    *(
        "waits",
        "prefetched",
        "starting",
        "runs",
        "started since",
        "runs on a silent worker",
        "runs on a leaving worker",
    ),
    *("has lost its process", "was on a pod that is gone", "has no row"),
)
"""What may have become of a task instance, by what Celery and the database say of it."""
RUNNING = {
    "starting",
    "runs",
    "started since",
    "runs on a silent worker",
    "runs on a leaving worker",
    "has no row",
}
ASKED_AT = NOW - 30


@given(
    fates=st.lists(
        st.tuples(st.sampled_from(FATES), st.booleans(), st.booleans(), st.booleans()), max_size=30
    )
)
def test_each_task_is_counted_once(fates: list[tuple[str, bool, bool, bool]]) -> None:
    """Running and waiting tasks are those that there are: none lost, none double, none that died."""
    on: dict[str, list[Task]] = {"a": [], "b": []}
    prefetched: dict[str, list[Task]] = {"a": [], "b": []}
    rows = []
    for number, (fate, is_on_b, has_payload, has_id) in enumerate(fates):
        name, host = f"t{number}", "b" if is_on_b else "a"
        has_payload |= not has_id or fate == "has no row"
        mine = task(f"id-{number}", name if has_payload else None)
        as_row = row(name, host=host, celery_id=f"id-{number}" if has_id else None)
        match fate:
            case "waits":
                rows.append(replace(as_row, state="queued", host=""))
            case "prefetched":
                prefetched[host].append(replace(mine, started_at=None))
                rows.append(replace(as_row, state="queued", host=""))
            case "starting":
                on[host].append(mine)
                rows.append(replace(as_row, state="queued", host=""))
            case "runs":
                on[host].append(mine)
                rows.append(as_row)
            case "started since":
                rows.append(replace(as_row, age_s=NOW - ASKED_AT - 1))
            case "runs on a silent worker":
                rows.append(replace(as_row, host="silent"))
            case "runs on a leaving worker":
                rows.append(replace(as_row, host="leaving"))
            case "has lost its process":
                rows.append(as_row)
            case "was on a pod that is gone":
                rows.append(replace(as_row, host="gone"))
            case "has no row":
                on[host].append(mine)
    asked = fleet(
        *(worker(f"celery@{host}", *on[host], reserved=prefetched[host]) for host in on),
        silent=["celery@silent"],
    )
    known = metadata(*rows, d=DagLabels())

    found = told(asked, known, asked_at=ASKED_AT)

    active = [t for each in found.workers.values() for t in each.active]
    believed = [t for tasks in found.believed.values() for t in tasks]
    reserved = [t for each in found.workers.values() for t in each.reserved]
    waiting = waiting_of(queued_of(known, pool=POOL), [*active, *reserved, *believed])

    def named(*wanted: str) -> list[str]:
        return sorted(f"t{number}" for number, (fate, *_) in enumerate(fates) if fate in wanted)

    assert sorted(t.key.task_id for t in [*active, *believed] if t.key) == named(*RUNNING)
    assert sorted(t.key.task_id for t in reserved if t.key) == named("prefetched")
    assert sorted(each.key.task_id for each in waiting) == named("waits")
    assert len(active) + len(believed) == len(named(*RUNNING))
    assert not any(map(has_unknown_label, [*active, *believed, *reserved]))
    assert told(found, known, asked_at=ASKED_AT) == found, "what has been told is not told again"


def test_a_silent_worker_may_have_what_is_protected_and_still_called_queued() -> None:
    """Workers that answer do not have it, and what is not protected makes no difference."""
    waiting = [
        row("keep", "queued", label=PROTECT),
        row("other", "queued"),
        row("held", "queued", label=PROTECT),
    ]
    seen = metadata(*waiting, row("busy", host="silent"))
    mine = told(fleet(worker("celery@a", task("1", "held")), silent=["celery@silent"]), seen)
    believed = with_what_may_have_begun(mine, seen, pool=POOL, nodes=["celery@a", "celery@leaving"]).believed
    keys = {node: [each.key.task_id for each in tasks if each.key] for node, tasks in believed.items()}
    assert keys == {"celery@silent": ["busy", "keep"], "celery@leaving": ["keep"]}


def possible(row: TaskInstance, *workers: WorkerSnapshot) -> list[TaskKey | None]:
    """What a silent worker is believed to have, for the sake of what is protected."""
    seen = metadata(row)
    asked = told(fleet(*workers, silent=["celery@silent"]), seen)
    found = with_what_may_have_begun(asked, seen, pool=POOL, nodes=NODES)
    return [each.key for each in found.believed.get("celery@silent", ())]


@pytest.mark.parametrize(
    "may_have_begun",
    [
        row(host="10", label=PROTECT),
        replace(row(state="queued", label=PROTECT), queue="of another pool"),
    ],
)
def test_a_silent_worker_may_have_whatever_is_protected_and_on_no_known_worker(
    may_have_begun: TaskInstance,
) -> None:
    """Nobody can tell which queues it takes from, or under which host name it is written down."""
    assert possible(may_have_begun) == [key()]
    assert possible(replace(may_have_begun, label=NO_LABEL)) == []
    assert possible(replace(may_have_begun, executor="KubernetesExecutor")) == []
    assert possible(replace(may_have_begun, queue="kubernetes")) == []


@pytest.mark.parametrize(
    ("id", "tried", "celery_id", "is_possible"),
    [
        ("1", None, None, False),
        ("1", None, "1", False),
        ("1", None, "2", True),
        ("1", 1, None, True),
        ("2", 2, "of the first try", False),
    ],
)
def test_a_silent_worker_may_have_a_protected_retry_while_another_runs_the_first_try(
    id: str, tried: int | None, celery_id: str | None, is_possible: bool
) -> None:
    """Where the payload does not tell, as with Airflow 2, another id is as good as another try."""
    retry = row(state="queued", label=PROTECT, celery_id=celery_id, try_number=2)
    held = possible(retry, worker("celery@a", replace(task(id), try_number=tried)))
    assert held == ([key()] if is_possible else [])
