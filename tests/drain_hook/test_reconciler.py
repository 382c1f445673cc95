import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from drain_hook.round_locks import RoundLocks
from shared.errors import KubernetesUnavailable
from shared.marks import MARK_ANNOTATION, render_mark
from shared.pods import DELETION_COST
from tests.drain_hook.stages import NAMESPACE, QUEUES, Stage, node, running, stage
from tests.fakes.celery import Call

UNAVAILABLE = KubernetesUnavailable("the API server is gone", status=503)


async def refused(replicas: int = 2) -> Stage:
    """A round that waits for its busy victims: from `replicas` to none."""
    scene = stage(replicas, busy={f"worker-{i}": [running()] for i in range(replicas)})
    await scene.warm_up()
    assert (await scene.ask(replicas, 0)).reason == "Busy"
    return scene


async def passes(scene: Stage, count: int = 1) -> None:
    """So many passes, with a refresh of the fleet before each, a few seconds apart."""
    for _ in range(count):
        scene.clock.ahead_s += 5
        await scene.warm_up()
        await scene.reconciler.reconcile()


def is_clean(scene: Stage) -> bool:
    traces = [name for name in scene.pods if scene.cluster.annotations_of(name, namespace=NAMESPACE)]
    return not scene.draining and not traces


# Giving back


async def test_a_round_that_is_asked_for_is_left_alone() -> None:
    scene = await refused()
    commands = len(scene.commands)
    await passes(scene, 3)
    assert scene.marked == scene.draining == {"worker-0", "worker-1"}
    assert len(scene.commands) == commands


async def test_a_round_that_nobody_asks_for_is_taken_back() -> None:
    """Whoever wanted it has changed his mind; idle workers that consume nothing help nobody."""
    scene = await refused()
    scene.clock.ahead_s = scene.configuration.round_ttl + 1
    await scene.reconciler.reconcile()
    await scene.settle()
    assert is_clean(scene)
    assert [event.reason for event in scene.cluster.events][-1] == "DrainReleased"


async def test_a_scale_up_takes_victims_back_at_once() -> None:
    """Load came back while they drained: they must work, not be waited for."""
    scene = await refused()
    scene.scale(3)
    await scene.reconciler.reconcile()
    assert is_clean(scene)


async def test_victims_that_are_about_to_be_deleted_keep_everything() -> None:
    """The scale-down was let through, and the controllers have not got round to it for minutes."""
    scene = await refused()
    scene.scale(0)
    scene.clock.ahead_s = 300
    await scene.reconciler.reconcile()
    assert scene.marked == scene.draining == {"worker-0", "worker-1"}


async def test_a_victim_that_kubernetes_spared_works_again() -> None:
    """Another pod became unready after the plan and went first, whatever the costs."""
    scene = stage(3)
    assert (await scene.ask(3, 2)).allowed
    (victim,) = scene.marked
    other = next(name for name in scene.pods if name != victim)
    scene.scale(2, settled=True)
    scene.delete(other)
    await scene.reconciler.reconcile()
    assert is_clean(scene)
    assert scene.sample("drain_hook_mispredicted_victims_total", pool="default", namespace=NAMESPACE) == 1


async def test_a_copied_record_is_removed_and_nothing_else() -> None:
    scene = await refused(1)
    annotations = {MARK_ANNOTATION: render_mark(scene.mark("worker-0")), DELETION_COST: "-3"}
    scene.cluster.add_pod("copy", replica_set="worker-rs", namespace=NAMESPACE, annotations=annotations)
    await scene.reconciler.reconcile()
    assert scene.cluster.annotations_of("copy", namespace=NAMESPACE) == {DELETION_COST: "-3"}
    assert scene.marked == {"worker-0"}


async def test_a_cost_that_somebody_wrote_since_stays() -> None:
    scene = await refused(1)
    scene.cluster.annotate_pod("worker-0", {DELETION_COST: "42"}, namespace=NAMESPACE)
    scene.clock.ahead_s = 100
    await scene.reconciler.reconcile()
    assert scene.cluster.annotations_of("worker-0", namespace=NAMESPACE) == {DELETION_COST: "42"}


async def test_the_record_outlives_the_undo() -> None:
    """It is removed when the worker is seen to consume again, not when it was told to."""
    scene = await refused(1)
    order: list[str] = []
    scene.celery.before_answer = lambda call: order.append(f"{call.method} {bool(scene.marked)}")
    scene.clock.ahead_s = 100
    await scene.reconciler.reconcile()
    assert order == ["add_consumer True", "active_queues True"]
    assert is_clean(scene)


async def test_a_silent_worker_keeps_its_record() -> None:
    """And is tried again, less and less often: each try holds the lock that reviews wait for."""
    scene = await refused(1)
    scene.celery.silent.add(node("worker-0"))
    scene.celery.loses_commands = True
    scene.clock.ahead_s = 100
    tries = []
    for _ in range(20):
        scene.clock.ahead_s += 2
        before = len(scene.commands)
        await scene.reconciler.reconcile()
        tries.append(len(scene.commands) > before)
    assert scene.marked == {"worker-0"}
    assert 3 <= tries.count(True) <= 6
    scene.celery.wake(node("worker-0"))
    scene.clock.ahead_s += 60
    await scene.reconciler.reconcile()
    assert is_clean(scene)


async def test_marks_are_judged_live_not_by_a_cache_that_lags() -> None:
    """A review may have asked for the round just now: our memory says forgotten, the pod says wanted."""
    scene = await refused(1)
    scene.cluster.cache.freeze()
    scene.clock.ahead_s = scene.configuration.round_ttl + 1
    scene.cluster.annotate_pod(
        "worker-0",
        {MARK_ANNOTATION: render_mark(replace(scene.mark("worker-0"), asked_at=scene.clock.wall()))},
        namespace=NAMESPACE,
    )
    await scene.reconciler.reconcile()
    assert scene.draining == {"worker-0"}


async def test_nothing_is_touched_while_a_round_is_under_way() -> None:
    scene = await refused(1)
    scene.clock.ahead_s = 100
    async with scene.locks.hold(scene.pool, wait_s=1.0):
        await scene.reconciler.reconcile()
        assert scene.draining == {"worker-0"}
    await scene.reconciler.reconcile()
    assert is_clean(scene)


# Mending


async def test_a_worker_that_lost_its_queues_gets_them_back() -> None:
    """Up to Celery 5.6 a released worker consumes nothing after its next reconnect, and keeps quiet."""
    scene = stage(2)
    scene.celery.change(node("worker-0"), queues=frozenset())
    await passes(scene, 2)
    assert scene.draining == set()
    assert (
        scene.sample("drain_hook_heals_total", pool="default", namespace=NAMESPACE, command="add_consumer")
        == 1
    )


async def test_one_look_is_not_enough_to_mend() -> None:
    """A worker that is starting, or a release that is on its way, looks the same for a moment."""
    scene = stage(1)
    scene.celery.change(node("worker-0"), queues=frozenset())
    await passes(scene, 1)
    await scene.reconciler.reconcile()
    assert scene.commands == []


async def test_a_late_cancel_is_undone() -> None:
    """A frozen worker obeys when it wakes up, long after its round has ended."""
    scene = stage(3, busy={"worker-0": [running()]})
    await scene.warm_up()
    scene.celery.holds_cancels = True
    await scene.ask(3, 2)
    scene.clock.ahead_s = 100
    await scene.reconciler.reconcile()
    scene.celery.let_cancels_through()
    await passes(scene, 3)
    assert is_clean(scene)


@pytest.mark.parametrize(
    "excuse",
    [
        lambda scene: scene.cluster.edit_pod("worker-0", namespace=NAMESPACE, is_ready=False),
        lambda scene: scene.cluster.edit_pod("worker-0", namespace=NAMESPACE, is_terminating=True),
        lambda scene: scene.celery.silent.add(node("worker-0")),
    ],
    ids=["not ready", "terminating", "silent"],
)
async def test_workers_with_an_excuse_are_not_mended(excuse: Callable[[Stage], object]) -> None:
    scene = stage(1)
    scene.celery.change(node("worker-0"), queues=frozenset())
    excuse(scene)
    await passes(scene, 3)
    assert scene.commands == []


async def test_where_draining_is_switched_off_consumers_are_the_users_affair() -> None:
    scene = stage(1, drain={"enabled": False})
    scene.celery.change(node("worker-0"), queues=frozenset())
    await passes(scene, 3)
    assert scene.commands == []


async def test_a_restarted_victim_is_cancelled_again() -> None:
    """Its new process reads its queues from its command line, and Kubernetes is about to delete its pod."""
    scene = stage(1)
    await scene.ask(1, 0)
    scene.scale(0)
    scene.celery.change(node("worker-0"), queues=QUEUES | {"extra"}, pid=2)
    await passes(scene, 2)
    assert scene.draining == {"worker-0"}
    assert set(scene.mark("worker-0").queues) == QUEUES | {"extra"}, "all of them can be given back"
    labels = {"pool": "default", "namespace": NAMESPACE, "command": "cancel_consumer"}
    assert scene.sample("drain_hook_heals_total", **labels) == 1


async def test_a_victim_of_a_round_that_was_not_let_through_is_not() -> None:
    """The round may be dead, and then its worker is to go on; if it lives, its next review cancels again."""
    scene = await refused(1)
    scene.celery.change(node("worker-0"), queues=QUEUES, pid=2)
    await passes(scene, 2)
    assert scene.draining == set()
    await scene.ask(1, 0)
    assert scene.draining == {"worker-0"}


# Running


async def test_only_the_leader_acts() -> None:
    scene = await refused(1)
    assert await scene.lease("hook-2").acquire()
    scene.clock.ahead_s += 100
    running_ = asyncio.create_task(scene.reconciler.run())
    while not scene.cluster.calls_of("read_lease"):  # noqa: ASYNC110  # nothing else tells that it has looked
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    running_.cancel()
    await asyncio.gather(running_, return_exceptions=True)
    assert scene.draining == {"worker-0"}


async def test_the_leader_acts_on_changes_and_gives_the_lead_back() -> None:
    """A change wakes it: a scale-up is not waited for until the next pass."""
    scene = await refused(1)
    running_ = asyncio.create_task(scene.reconciler.run())
    scene.scale(2)
    version = scene.cluster.cache.version
    async with asyncio.timeout(5):
        while scene.marked:
            version = await scene.cluster.cache.wait_changed(version)
    running_.cancel()
    await asyncio.gather(running_, return_exceptions=True)
    assert is_clean(scene)
    assert scene.leadership.seen_holder == ""


async def test_a_replica_that_died_in_a_round_costs_no_more_time_than_its_round() -> None:
    """Its lock is looked at from the start, not first when there is something to give back."""
    scene = await refused(1)
    dead = RoundLocks(scene.cluster, holder="dead", clock=scene.clock.monotonic)
    async with dead.hold(scene.pool, wait_s=0.0):
        scene.cluster.broken["replace_lease"] = UNAVAILABLE
    del scene.cluster.broken["replace_lease"]
    running_ = asyncio.create_task(scene.reconciler.run())
    while not scene.sample("drain_hook_reconciler_is_leader"):  # noqa: ASYNC110  # nothing else tells
        await asyncio.sleep(0)
    running_.cancel()
    await asyncio.gather(running_, return_exceptions=True)
    scene.clock.ahead_s = scene.configuration.round_ttl + 1
    await scene.reconciler.reconcile()
    assert is_clean(scene)


async def test_a_failure_with_one_pass_is_made_up_for_by_another(caplog: pytest.LogCaptureFixture) -> None:
    scene = await refused(1)
    scene.cluster.broken["workload_state"] = UNAVAILABLE
    scene.clock.ahead_s = 100
    await scene.reconciler.reconcile()
    await scene.reconciler.reconcile()
    assert caplog.text.count("could not be looked after") == 1
    del scene.cluster.broken["workload_state"]
    await scene.reconciler.reconcile()
    assert is_clean(scene)


@pytest.mark.parametrize("step", range(8))
async def test_whatever_a_crash_leaves_is_cleaned_up(step: int) -> None:
    """The hook dies at its n-th question to the workers: soon all of them consume, and no mark is left."""
    scene = stage(4, busy={"worker-0": [running()], "worker-1": [running()]})
    await scene.warm_up()
    calls = 0

    def die(_: Call) -> None:
        nonlocal calls
        calls += 1
        if calls > step:
            scene.celery.broken = True
            scene.cluster.broken["*"] = UNAVAILABLE

    scene.celery.before_answer = die
    await scene.ask(4, 1)
    scene.celery.before_answer, scene.celery.broken = None, False
    scene.cluster.broken.clear()
    scene.clock.ahead_s = 60
    await passes(scene, 3)
    assert is_clean(scene)
