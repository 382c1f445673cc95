"""What happens to a workload and its pods between two reviews, by other hands than ours."""

from dataclasses import replace

from shared.marks import MARK_ANNOTATION, SUMMARY_ANNOTATION, render_mark
from shared.pods import DELETION_COST
from tests.drain_hook.stages import NAMESPACE, QUEUES, Stage, node, running, stage
from tests.fakes.celery import Call, fake_worker


async def refused(replicas: int, to_replicas: int) -> Stage:
    """A round that waits for its busy victims."""
    scene = stage(replicas, busy={f"worker-{i}": [running()] for i in range(replicas)})
    await scene.warm_up()
    assert (await scene.ask(replicas, to_replicas)).reason == "Busy"
    return scene


async def join(scene: Stage, pod: str) -> None:
    """A new idle pod of the workload."""
    scene.cluster.add_pod(pod, replica_set="worker-rs", namespace=NAMESPACE)
    scene.celery.workers[node(pod)] = fake_worker(node(pod))
    await scene.warm_up()


def annotations(scene: Stage, pod: str) -> dict[str, str]:
    return scene.cluster.annotations_of(pod, namespace=NAMESPACE)


# Victims that die by themselves


async def test_a_victim_that_dies_in_the_round_is_not_replaced_by_another() -> None:
    """There is one pod less already: nobody else has to go, and nobody else is told anything."""
    scene = stage(2, busy={"worker-0": [running()], "worker-1": [running()]})
    await scene.warm_up()

    def die(call: Call) -> None:
        if call.method == "cancel_consumer" and len(scene.pods) == 2:
            scene.delete(*scene.marked)

    scene.celery.before_answer = die
    await scene.ask(2, 1)
    (survivor,) = scene.pods
    assert annotations(scene, survivor) == {}
    assert scene.celery.workers[node(survivor)].queues == QUEUES
    assert (await scene.ask(2, 1)).reason == "Drained"


async def test_what_comes_in_place_of_a_victim_that_died_goes_first() -> None:
    """The ReplicaSet has replaced it: the new pod is idle, and the busy one that stays is left alone."""
    scene = await refused(2, 1)
    (victim,) = scene.marked
    (busy,) = scene.pods.keys() - scene.marked
    scene.delete(victim)
    await join(scene, "worker-2")
    assert (await scene.ask(2, 1)).reason == "Drained"
    assert scene.marked == {"worker-2"}
    assert annotations(scene, busy) == {}


# Up and down


async def test_a_scale_down_right_after_a_scale_up_starts_anew() -> None:
    """The former victims are busy and stay; the pod that came goes. The reconciler has seen none of it."""
    scene = await refused(2, 0)
    scene.scale(3, settled=True)
    await join(scene, "worker-2")
    scene.cluster.edit_workload(namespace=NAMESPACE, replicas=3)
    assert (await scene.ask(3, 2)).reason == "Drained"
    assert scene.marked == scene.draining == {"worker-2"}
    assert scene.mark("worker-2").from_replicas == 3


async def test_a_scale_up_right_after_a_permission_takes_survivors_back() -> None:
    """Allowed, lowered and raised before a pod was deleted: whoever was drained works again."""
    scene = stage(3)
    await scene.warm_up()
    assert (await scene.ask(3, 1)).allowed
    assert len(scene.draining) == 2
    scene.scale(1)
    scene.scale(3, settled=True)
    scene.scale(4)
    await scene.reconciler.reconcile()
    assert (scene.marked, scene.draining) == (set(), set())


async def test_none_are_left_only_when_all_are_idle() -> None:
    """To zero there is nobody to choose: every worker is waited for, and a protected one refuses it."""
    scene = await refused(2, 0)
    assert scene.marked == {"worker-0", "worker-1"}
    scene.finish("worker-0")
    assert (await scene.ask(2, 0)).reason == "Busy"
    scene.finish("worker-1")
    assert (await scene.ask(2, 0)).reason == "Drained"
    guarded = stage(2, busy={"worker-1": [running("billing.charge")]})
    verdict = await guarded.ask(2, 0)
    assert verdict.reason == "Protected"
    assert "The lowest number possible now is 1" in verdict.message
    assert guarded.marked == guarded.draining == set()


# Another workload of the same name


async def test_a_recreated_workload_has_no_round() -> None:
    """Its uid is another: who asks about the former one is refused, and its own round starts anew."""
    scene = await refused(2, 1)
    former = scene.claim(2, 1).workload_uid
    scene.cluster.delete_workload(namespace=NAMESPACE)
    scene.cluster.add_workload(namespace=NAMESPACE, replicas=2, uid="another")
    scene.finish("worker-0", "worker-1")
    for name in ("worker-0", "worker-1"):
        scene.celery.change(node(name), queues=QUEUES)
    await scene.warm_up()
    assert (await scene.ask(2, 1, workload_uid=former)).reason == "ClaimMismatch"
    assert scene.marked == set()
    assert (await scene.ask(2, 1)).reason == "Drained"
    (victim,) = scene.marked
    assert scene.mark(victim).workload_uid == "another"


async def test_pods_that_a_recreated_workload_took_over_work_for_it() -> None:
    """Deleted with its pods left behind, as orphans: their records are about the former workload."""
    scene = await refused(2, 1)
    (victim,) = scene.marked
    record = replace(scene.mark(victim), workload_uid="former")
    scene.cluster.annotate_pod(victim, {MARK_ANNOTATION: render_mark(record)}, namespace=NAMESPACE)
    await scene.reconciler.reconcile()
    await scene.settle()
    assert annotations(scene, victim) == {}
    assert scene.draining == set()
    assert "the drain record is about another workload" in scene.events_of(victim)[-1].message


# Records and costs of others


async def test_records_that_a_template_copied_do_not_choose_victims() -> None:
    """All pods carry one of a pod that is gone: victims get their own, survivors lose it, costs stay."""
    scene = await refused(3, 2)
    (marked,) = scene.marked
    copy = annotations(scene, marked)
    scene.cluster.delete_workload(namespace=NAMESPACE)
    scene.cluster.add_workload(namespace=NAMESPACE, replicas=3, with_pods=False)
    scene.celery.workers.clear()
    for index in range(3):
        pod = f"copied-{index}"
        scene.cluster.add_pod(pod, replica_set="worker-rs", namespace=NAMESPACE, annotations=copy)
        scene.celery.workers[node(pod)] = fake_worker(node(pod), *([running()] if index else []))
    await scene.warm_up()
    assert (await scene.ask(3, 2)).reason == "Drained"
    assert scene.draining == {"copied-0"}
    assert int(annotations(scene, "copied-0")[DELETION_COST]) < int(copy[DELETION_COST])
    await scene.reconciler.reconcile()
    for survivor in ("copied-1", "copied-2"):
        assert annotations(scene, survivor) == {DELETION_COST: copy[DELETION_COST]}
    assert SUMMARY_ANNOTATION in annotations(scene, "copied-0")


async def test_a_cost_that_was_written_over_ours_is_remembered_and_undercut_again() -> None:
    """Another controller writes costs every minute: the next review puts ours back, and remembers it."""
    scene = await refused(2, 1)
    (victim,) = scene.marked
    scene.cluster.annotate_pod(victim, {DELETION_COST: "42"}, namespace=NAMESPACE)
    assert (await scene.ask(2, 1)).reason == "Busy"
    assert int(annotations(scene, victim)[DELETION_COST]) < 0
    assert scene.mark(victim).foreign_cost == "42"
    scene.scale(3)
    await scene.reconciler.reconcile()
    assert annotations(scene, victim) == {DELETION_COST: "42"}
