"""Scale-downs of Airflow's workers: what its metadata database says, and what happens without it."""

import logging
from collections.abc import Mapping
from typing import Any

import pytest

from drain_hook.explanations import describe_task
from drain_hook.task_names import name_task
from shared.pools import Configuration
from shared.workers import NO_LABEL, Label, Task, TaskKey
from tests.drain_hook import builders
from tests.drain_hook.builders import AIRFLOW
from tests.drain_hook.stages import NAMESPACE, Stage, node, running, stage
from tests.drain_hook.test_drainer_safety import is_clean, is_untouched
from tests.fakes.celery import Call
from tests.fakes.metadata import AIRFLOW_2_TASK, AIRFLOW_3_TASK, celery_task, task_key

PROTECTED = Label(protect=True)
BUILD, LOAD = task_key("build", dag_id="reports"), task_key("load", dag_id="sales")


def airflow_stage(replicas: int, /, *, drain: Mapping[str, Any] | None = None, **runs: TaskKey) -> Stage:
    """Workers of Airflow; `runs` are task instances by worker, as `worker_0`, one minute old."""
    scene = stage(replicas, drain=drain, settings=AIRFLOW)
    for worker, key in runs.items():
        run(scene, worker.replace("_", "-"), key)
    return scene


def run(scene: Stage, pod: str, key: TaskKey, *, seconds: float = 60.0) -> None:
    """A task instance that both Celery and the database know."""
    id = f"{key.dag_id}-{key.task_id}-{key.map_index}"
    scene.celery.start(node(pod), celery_task(key, id=id, seconds=seconds))
    scene.database.start(key, host=pod, celery_id=id, seconds=seconds)


def fall_silent(scene: Stage, *pods: str) -> None:
    scene.celery.silent.update(map(node, pods))


# Labels.


@pytest.mark.parametrize("labels", [(PROTECTED, {}), (NO_LABEL, {"load": PROTECTED})])
async def test_a_protected_task_keeps_its_worker(labels: tuple[Label, Mapping[str, Label]]) -> None:
    """Whether its DAG is tagged or the task has a label of its own, however young it is."""
    scene = airflow_stage(2, worker_0=LOAD, worker_1=BUILD)
    scene.database.label("sales", labels[0], **labels[1])
    verdict = await scene.ask(2, 1)
    assert (verdict.reason, scene.marked) == ("Busy", {"worker-1"})
    verdict = await scene.ask(2, 0)
    assert verdict.reason == "Protected"
    assert "worker-0 runs sales.load (run manual__1), since " in verdict.message


async def test_a_weight_counts() -> None:
    """Of two tasks of the same age the heavier one stays."""
    scene = airflow_stage(2, worker_0=LOAD, worker_1=BUILD)
    scene.database.label("reports", Label(weight=5))
    await scene.ask(2, 1)
    assert scene.marked == {"worker-0"}


async def test_a_task_without_a_row_has_the_labels_of_its_dag() -> None:
    """Celery is first to know of it; and busy by Celery is busy, whatever the database says."""
    scene = airflow_stage(2, worker_1=BUILD)
    scene.celery.start(node("worker-0"), celery_task(LOAD))
    scene.database.label("sales", PROTECTED)
    verdict = await scene.ask(2, 1)
    assert (verdict.reason, scene.marked) == ("Busy", {"worker-1"})
    scene.database.label("sales")
    verdict = await scene.ask(2, 0)
    assert (verdict.reason, scene.marked) == ("Busy", {"worker-0", "worker-1"})
    assert "worker-0 runs sales.load (run manual__1)" in verdict.message


async def test_labels_are_read_anew_by_each_review() -> None:
    """A tag that was set a moment ago counts, and so does one that was taken away."""
    scene = airflow_stage(1, worker_0=LOAD)
    reasons = []
    for label in (NO_LABEL, PROTECTED, NO_LABEL):
        scene.database.label("sales", label)
        reasons.append((await scene.ask(1, 0)).reason)
    assert reasons == ["Busy", "Protected", "Busy"]


async def test_a_task_that_slips_in_is_labelled_before_it_is_judged() -> None:
    """It starts between the look and the cancel: protected, it spares its worker."""
    scene = airflow_stage(2)
    scene.database.label("sales", PROTECTED)

    def slip_in(call: Call) -> None:
        if call.method == "cancel_consumer" and not scene.celery.workers[node("worker-0")].active:
            for pod in scene.marked & {"worker-0"}:
                run(scene, pod, LOAD, seconds=0)

    scene.celery.before_answer = slip_in
    assert (await scene.ask(2, 0)).reason == "Protected"
    assert is_clean(scene)


async def test_a_task_that_cannot_be_told_keeps_its_worker() -> None:
    """Neither its payload nor a row says which it is, so it may be protected."""
    scene = airflow_stage(2, worker_1=BUILD)
    scene.celery.start(node("worker-0"), Task(id="0d1e", name=AIRFLOW_3_TASK, started_at=0.0))
    assert (await scene.ask(2, 1)).reason == "Busy"
    assert scene.marked == {"worker-1"}
    verdict = await scene.ask(2, 0)
    assert verdict.reason == "LabelsUnknown"
    assert "worker-0 runs a task of Airflow that cannot be told (0d1e)" in verdict.message


# Workers that do not answer.


async def test_of_silent_workers_the_database_knows_what_they_run() -> None:
    """One with a protected task is not chosen, and the sentence names what the other runs."""
    scene = airflow_stage(2, worker_0=LOAD, worker_1=BUILD)
    scene.database.label("sales", PROTECTED)
    fall_silent(scene, "worker-0", "worker-1")
    verdict = await scene.ask(2, 1)
    assert (verdict.reason, scene.marked) == ("Busy", {"worker-1"})
    assert "worker-1 did not answer, but by Airflow's database runs reports.build" in verdict.message


async def test_a_silent_worker_may_have_taken_a_protected_task_that_is_still_called_queued() -> None:
    """For seconds it is on no worker by the database; where all answer it waits in the broker."""
    scene = airflow_stage(2, drain={"whenBusy": "proceed"}, worker_1=BUILD)
    scene.database.queue(LOAD)
    scene.database.label("sales", PROTECTED)
    fall_silent(scene, "worker-0")
    verdict = await scene.ask(2, 0)
    assert (verdict.reason, scene.marked) == ("Protected", set())
    assert "sales.load (run manual__1), not started" in verdict.message
    scene.database.end(LOAD)
    assert (await scene.ask(2, 0)).reason == "Proceeding"


@pytest.mark.parametrize("is_written_down", [True, False])
async def test_what_a_silent_worker_takes_while_it_is_drained_is_read_for(is_written_down: bool) -> None:
    """It does not say what it took before its cancel, so the database is asked once more before it may go."""
    scene = airflow_stage(2, drain={"whenBusy": "proceed"})
    scene.database.label("sales", PROTECTED)
    fall_silent(scene, "worker-0", "worker-1")

    def slip_in(call: Call) -> None:
        if call.method == "cancel_consumer":
            if is_written_down:
                scene.database.start(LOAD, host="worker-0")
            else:
                scene.database.queue(LOAD)

    scene.celery.before_answer = slip_in
    assert (await scene.ask(2, 0)).reason == "Protected"
    scene.database.end(LOAD)
    scene.celery.before_answer = None
    assert (await scene.ask(2, 0)).reason == "Proceeding"


async def test_a_silent_worker_does_not_go_when_the_database_goes_away_meanwhile() -> None:
    """What it took since then may be protected."""
    scene = airflow_stage(1, drain={"whenBusy": "proceed"})
    fall_silent(scene, "worker-0")

    def fail(call: Call) -> None:
        scene.database.broken |= call.method == "cancel_consumer"

    scene.celery.before_answer = fail
    assert (await scene.ask(1, 0)).reason == "LabelsUnknown"


async def test_a_silent_worker_may_run_a_protected_task_under_another_name() -> None:
    """As where hostname_callable gives an address; unless a pod of another pool has that name."""
    scene = airflow_stage(1, drain={"whenBusy": "proceed"})
    scene.database.label("sales", PROTECTED)
    scene.database.start(LOAD, host="other-0")
    fall_silent(scene, "worker-0")
    assert (await scene.ask(1, 0)).reason == "Protected"
    other = builders.pool(name="other", workload={"name": "other"}, **AIRFLOW)
    scene.configuration = Configuration(pools=(scene.pool, other))
    scene.cluster.add_workload("other", replicas=1, namespace=NAMESPACE)
    assert (await scene.ask(1, 0)).reason == "Proceeding"


async def test_a_silent_worker_may_have_taken_a_protected_retry() -> None:
    """While the first try, whose heartbeats were missed, runs on elsewhere."""
    scene = airflow_stage(2, drain={"whenBusy": "proceed"})
    scene.database.label("sales", PROTECTED)
    scene.celery.start(node("worker-1"), celery_task(LOAD, id="first"))
    scene.database.queue(LOAD, celery_id="second", try_number=2)
    fall_silent(scene, "worker-0")
    assert (await scene.ask(2, 1)).reason == "Protected"


@pytest.mark.parametrize("drain", [{}, {"whenBusy": "proceed"}])
async def test_a_pod_that_is_not_ready_and_silent_is_kept_for_its_protected_task(
    drain: Mapping[str, Any],
) -> None:
    """Kubernetes would take it first, whatever it costs; proceed is no reason to let it."""
    scene = airflow_stage(2, drain=drain, worker_0=LOAD)
    scene.cluster.edit_pod("worker-0", namespace=NAMESPACE, is_ready=False)
    scene.database.label("sales", PROTECTED)
    fall_silent(scene, "worker-0")
    verdict = await scene.ask(2, 1)
    assert verdict.reason == "Protected"
    assert (
        "worker-0 (which Kubernetes would remove first, because it is not ready) runs sales"
        in verdict.message
    )
    assert is_untouched(scene)


async def test_a_silent_worker_without_rows_is_unknown() -> None:
    """The database is behind, or its host names are others: that is no reason to call it idle."""
    scene = airflow_stage(1)
    scene.database.start(LOAD, host="somewhere-else")
    fall_silent(scene, "worker-0")
    verdict = await scene.ask(1, 0)
    assert verdict.reason == "Busy"
    assert "worker-0 did not answer, so its work is unknown" in verdict.message


async def test_a_row_that_its_worker_does_not_know_is_of_a_process_that_died() -> None:
    """Airflow will notice in some minutes; until then the worker is as idle as it says."""
    scene = airflow_stage(2, worker_1=BUILD)
    scene.database.start(LOAD, host="worker-0", seconds=3600)
    scene.database.label("sales", PROTECTED)
    assert (await scene.ask(2, 1)).reason == "Drained"
    assert scene.marked == {"worker-0"}


async def test_a_task_that_has_just_started_counts_before_its_worker_is_asked_again() -> None:
    """What we remember of the worker is older than the row."""
    scene = airflow_stage(2, worker_1=BUILD)
    await scene.warm_up()
    scene.database.label("sales", PROTECTED)
    run(scene, "worker-0", LOAD, seconds=1)
    assert (await scene.ask(2, 1)).reason == "Busy"
    assert scene.marked == {"worker-1"}


async def test_a_task_that_ends_after_the_database_was_read_is_not_waited_for() -> None:
    """A worker that is asked later has the last word on what it runs."""
    scene = airflow_stage(2, worker_1=BUILD)
    scene.database.start(LOAD, host="worker-0", seconds=1)
    assert (await scene.ask(2, 1)).reason == "Drained"
    assert scene.marked == {"worker-0"}


# Without the database.


@pytest.mark.parametrize("way", ["broken", "hangs"])
@pytest.mark.parametrize("drain", [{}, {"whenBusy": "proceed"}, {"maxWait": 0.001}])
async def test_without_labels_nobody_goes(way: str, drain: Mapping[str, Any]) -> None:
    """Not even an idle one, and no wait is long enough; the sentence says what to do."""
    scene = airflow_stage(3, drain=drain, worker_0=LOAD)
    setattr(scene.database, way, True)
    verdict = await scene.ask(3, 2, within_s=0.5)
    assert (verdict.allowed, verdict.reason, verdict.code) == (False, "LabelsUnknown", 403)
    assert "metadata database cannot be read: The database of this test" in verdict.message
    assert "Workers with tasks, or without an answer: worker-0." in verdict.message
    assert is_untouched(scene)


async def test_nor_in_a_stateful_set() -> None:
    scene = stage(2, kind="StatefulSet", settings=AIRFLOW)
    run(scene, "worker-0", LOAD)
    scene.database.broken = True
    assert (await scene.ask(2, 1)).reason == "LabelsUnknown"


async def test_a_dry_run_says_so() -> None:
    scene = airflow_stage(1, worker_0=LOAD)
    scene.database.broken = True
    verdict = await scene.ask(1, 0, is_dry_run=True)
    assert (verdict.allowed, verdict.reason) == (True, "DryRun")
    assert (
        "would be refused now. Which tasks of Deployment apps/worker must not be stopped" in verdict.message
    )


async def test_idle_workers_need_no_labels() -> None:
    """While all answer and are idle there is none to honour, so the database is not even asked."""
    scene = airflow_stage(3)
    scene.database.broken = True
    assert (await scene.ask(3, 1)).reason == "Drained"
    assert scene.database.reads == []
    assert scene.metadata.problems == ()


async def test_a_silent_worker_may_run_anything() -> None:
    """It is not idle, and nobody can tell what its labels are."""
    scene = airflow_stage(2)
    scene.database.broken = True
    fall_silent(scene, "worker-1")
    verdict = await scene.ask(2, 1)
    assert verdict.reason == "LabelsUnknown"
    assert "without an answer: worker-1." in verdict.message


async def test_a_round_that_loses_the_database_is_taken_back() -> None:
    """A task slips in when nobody can say any more what its label is."""
    scene = airflow_stage(2)
    scene.database.broken = True

    def slip_in(call: Call) -> None:
        if call.method == "cancel_consumer" and not scene.celery.workers[node("worker-0")].active:
            run(scene, "worker-0", LOAD, seconds=0)

    scene.celery.before_answer = slip_in
    assert (await scene.ask(2, 0)).reason == "LabelsUnknown"
    assert is_clean(scene)


async def test_marks_are_given_back_without_the_database() -> None:
    """What a round has begun ends with roundTtl, whoever cannot be read."""
    scene = airflow_stage(1, worker_0=LOAD)
    assert (await scene.ask(1, 0)).reason == "Busy"
    scene.database.broken = True
    assert (await scene.ask(1, 0)).reason == "LabelsUnknown"
    assert scene.marked == {"worker-0"}
    scene.clock.ahead_s += scene.configuration.round_ttl + 1
    await scene.reconciler.reconcile()
    assert is_clean(scene)


async def test_without_the_broker_nobody_goes_whatever_the_database_says() -> None:
    """Consumers cannot be cancelled, so whoever is idle now would take a task."""
    scene = airflow_stage(2)
    scene.celery.broken = True
    assert (await scene.ask(2, 1)).reason == "BrokerUnavailable"
    assert is_untouched(scene)


async def test_it_is_told_once_that_the_database_is_away_and_once_that_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In the log; every failure counts, and readiness says so until a round can read it again."""
    caplog.set_level(logging.INFO, logger="drain_hook.metadata_watch")
    scene = airflow_stage(1, worker_0=LOAD)
    await scene.ask(1, 0)
    scene.database.broken = True
    for _ in range(3):
        await scene.ask(1, 0)
    (problem,) = scene.metadata.problems
    assert "apps/default could not read Airflow's metadata database" in problem
    scene.database.broken = False
    for _ in range(2):
        assert (await scene.ask(1, 0)).reason == "Busy"
    said = [r.message for r in caplog.records if r.name == "drain_hook.metadata_watch"]
    assert [" cannot be read: " in line for line in said] == [True, False]
    assert scene.metadata.problems == ()
    assert scene.sample("drain_hook_database_failures_total", pool="default", namespace="apps") == 3
    assert scene.sample("drain_hook_phase_seconds_count", phase="database") == 6


async def test_plain_celery_has_no_database() -> None:
    """A pool without the key airflow is planned for by what its workers say."""
    scene = stage(1, busy={"worker-0": [running()]})
    scene.database.broken = True
    assert (await scene.ask(1, 0)).reason == "Busy"
    assert scene.sample("drain_hook_phase_seconds_count", phase="database") == 0


# Sentences.


@pytest.mark.parametrize(
    ("task", "name"),
    [
        (Task(id="3f2a91bc-77", name="reports.build"), "reports.build (3f2a91bc)"),
        (celery_task(LOAD), "sales.load (run manual__1)"),
        (celery_task(task_key("group.load", map_index=3)), "reports.group.load[3] (run manual__1)"),
        (celery_task(task_key("a\n b")), "reports.a b (run manual__1)"),
        (Task(id="3f2a91bc-77", name=AIRFLOW_2_TASK), "a task of Airflow that cannot be told (3f2a91bc)"),
        (Task(id="3f2a91bc-77", name=AIRFLOW_3_TASK, label=NO_LABEL), "a callback of Airflow (3f2a91bc)"),
    ],
)
def test_tasks_have_the_names_that_people_know(task: Task, name: str) -> None:
    """Those of Airflow by DAG, task, map index and run; by no means as what Celery runs them with."""
    assert name_task(task) == name
    assert describe_task(task).startswith(f"{name}, ")


def test_labels_are_those_of_airflow_pools_only() -> None:
    """A plain task in an Airflow pool, or a task of Airflow's in a plain one, is not waited for in vain."""
    airflows = celery_task(LOAD)
    crowd = [builders.pod(name) for name in builders.names(2)]
    for pool, task in ((builders.pool(), airflows), (builders.pool(**AIRFLOW), builders.task())):
        plan = builders.plan(crowd, 0, busy={"w-0": [task]}, pool=pool)
        assert (plan.refusal, len(plan.busy)) == (None, 1)
