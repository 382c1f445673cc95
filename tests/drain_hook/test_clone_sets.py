"""CloneSets of OpenKruise: chosen and marked as a Deployment's pods are, with no ReplicaSet between."""

from dataclasses import replace
from typing import Any

from drain_hook.planner import plan_drain
from drain_hook.plans import DrainPlan
from shared.pods import Pod, state_of
from tests.drain_hook.builders import (
    NOW,
    WORKLOAD_UID,
    fleet,
    leaving,
    pod,
    pool,
    scale_down,
    task,
    unready,
    worker,
    workload,
)
from tests.drain_hook.stages import Stage, running, stage


def plan(
    pods: list[Pod], to_replicas: int, *, busy: dict[str, Any] | None = None, drain: Any = None, **fields: Any
) -> DrainPlan:
    """A plan for the pods of a CloneSet; `fields` are those of the workload."""
    clone_set = workload(kind="CloneSet", replicas=len(pods), **fields)
    state = state_of(clone_set, (), pods, as_of=NOW)
    return plan_drain(
        scale_down=replace(scale_down(len(pods), to_replicas), kind="CloneSet"),
        workload=clone_set,
        replica_sets=state.replica_sets,
        pods=state.pods,
        fleet=fleet(*(worker(p.name, *(busy or {}).get(p.name, ())) for p in pods)),
        pool=pool(drain=drain or {}),
        now=NOW,
    )


def own(name: str, **fields: Any) -> Pod:
    return pod(name, owner_uid=WORKLOAD_UID, **fields)


def test_the_cheapest_leave_by_their_cost() -> None:
    """It honours pod-deletion-cost; so idle ones go, and are told so."""
    planned = plan([own("a"), own("b"), own("c")], 2, busy={"a": [task()], "b": [task()]})
    assert leaving(planned) == ["c"]
    assert [victim.cost for victim in planned.victims] == [-1]


def test_one_that_is_not_available_goes_before_all_that_are() -> None:
    """Ready for less than minReadySeconds is worse than any cost; not ready is worse still."""
    pods = [own("a", ready_since=NOW - 5), own("b"), unready("c", owner_uid=WORKLOAD_UID), own("d")]
    assert leaving(plan(pods, 3, min_ready_s=30)) == ["c"]
    planned = plan(pods, 2, min_ready_s=30, busy={"a": [task()]})
    assert leaving(planned) == ["a", "c"]
    assert leaving(plan(pods, 2, busy={"a": [task()], "d": [task()]})) == ["b", "c"]


def test_a_protected_one_that_is_not_available_is_a_refusal_that_says_why() -> None:
    pods = [own("a", ready_since=NOW - 5), own("b")]
    planned = plan(pods, 1, min_ready_s=30, busy={"a": [task("billing.charge")]})
    assert planned.refusal is not None
    assert "because it has not been ready for minReadySeconds" in planned.refusal.sentence


def test_nothing_is_planned_while_there_are_two_revisions() -> None:
    """How many of each go is the controller's own sum of partition, surge and states: nobody can tell it."""
    for drain in ({}, {"duringRollout": "allow"}):
        planned = plan([own("a"), own("b")], 1, is_updating=True, drain=drain)
        assert planned.refusal is not None
        assert planned.refusal.reason == "RolloutInProgress"
        assert "pods of two revisions" in planned.refusal.sentence


def clones(replicas: int, **fields: Any) -> Stage:
    return stage(replicas, kind="CloneSet", **fields)


async def test_idle_ones_are_drained_with_cost_and_record() -> None:
    scene = clones(3, busy={"worker-2": [running()]})
    assert (await scene.ask(3, 1)).reason == "Drained"
    assert scene.marked == scene.draining == {"worker-0", "worker-1"}
    assert {scene.pods[name].cost_annotation for name in scene.marked} == {"-1"}


async def test_a_victim_that_was_spared_works_again() -> None:
    """As in a ReplicaSet, when another pod turned not ready and went first."""
    scene = clones(2)
    await scene.ask(2, 1)
    (victim,) = scene.marked
    scene.scale(1, settled=True)
    scene.delete(*(scene.pods.keys() - {victim}))
    await scene.reconciler.reconcile()
    assert not scene.marked | scene.draining
    assert scene.pods[victim].cost_annotation is None


async def test_victims_in_their_pre_delete_hook_keep_their_marks() -> None:
    """A lifecycle hook keeps them running, without a deletionTimestamp, for as long as it likes."""
    scene = clones(2)
    await scene.ask(2, 1)
    scene.scale(1)
    scene.cluster.edit_workload(observedGeneration=2, namespace="apps")
    scene.clock.ahead_s = 600
    await scene.warm_up()
    await scene.reconciler.reconcile()
    assert len(scene.marked) == 1
    assert scene.marked == scene.draining


async def test_a_scale_up_gives_everything_back() -> None:
    scene = clones(2)
    await scene.ask(2, 1)
    scene.scale(1)
    scene.scale(2)
    await scene.reconciler.reconcile()
    assert not scene.marked | scene.draining
