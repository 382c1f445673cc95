"""Clusters without pod-deletion-cost: a Deployment loses what Kubernetes picks, and that is drained."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.sandbox.controllers import replicasets
from drain_hook.own_order import Costs, own_order
from drain_hook.planner import decide
from drain_hook.plans import DrainPlan
from shared.pods import DELETION_COST, Pod
from tests.drain_hook import builders
from tests.drain_hook.builders import NOW, leaving, marked, names, pod, pool, scale_down, task, unready
from tests.drain_hook.stages import NAMESPACE, Stage, running, stage


def plan(pods: list[Pod], to_replicas: int, **inputs: Any) -> DrainPlan:
    return builders.plan(pods, to_replicas, **{"costs": Costs.IGNORED, **inputs})


def aged(*hours: float) -> list[Pod]:
    """w-0, w-1, … that have been ready for so long; Kubernetes removes younger ones first."""
    return [
        pod(name, ready_since=NOW - 3600 * h, created_at=NOW - 3600 * h)
        for name, h in zip(names(len(hours)), hours, strict=True)
    ]


# Who leaves.


def test_those_that_kubernetes_picks_leave_whatever_they_run() -> None:
    """The youngest, although an older one is idle; and no cost is written on them."""
    planned = plan(aged(1, 5, 30, 200), 3, busy={"w-0": [task()]})
    assert leaving(planned) == ["w-0"]
    assert [victim.cost for victim in planned.victims] == [None]


def test_costs_that_stand_on_pods_change_nothing() -> None:
    """Others may write them all the same."""
    young, old = aged(1, 30)
    assert leaving(plan([young, replace(old, cost_annotation="-100")], 1)) == ["w-0"]


def test_pods_that_are_not_ready_still_go_first() -> None:
    assert leaving(plan([*aged(1, 30), unready("w-2")], 2)) == ["w-2"]


@given(
    st.lists(
        st.tuples(st.booleans(), st.floats(1, 1e6), st.integers(0, 3), st.integers(-2, 2)),
        min_size=1,
        max_size=8,
    )
)
def test_the_order_agrees_with_the_sandbox(descriptions: list[tuple[bool, float, int, int]]) -> None:
    """Which was written independently, after the same source."""
    pods = [
        pod(
            f"w-{index}",
            ready_since=NOW - age if is_ready else None,
            is_ready=is_ready,
            created_at=NOW - age,
            restarts=restarts,
            cost_annotation=str(cost),
        )
        for index, (is_ready, age, restarts, cost) in enumerate(descriptions)
    ]
    candidates = [
        replicasets.Candidate(
            name=p.name,
            uid=p.uid,
            node=p.host,
            ready_since=datetime.fromtimestamp(p.ready_since, UTC) if p.ready_since else None,
            deletion_cost=p.deletion_cost,
            restarts=p.restarts,
            created_at=datetime.fromtimestamp(p.created_at, UTC),
        )
        for p in pods
    ]
    now = datetime.fromtimestamp(NOW, UTC)
    for count in range(1, len(pods)):
        chosen = replicasets.choose_victims(
            candidates, desired=len(pods) - count, related=candidates, honours_costs=False, now=now
        )
        foreseen = own_order(pods, related=pods, now=NOW)[:count]
        assert {one.name for one in chosen} == {p.name for p in foreseen}


# Whether they may.


def test_a_busy_one_is_waited_for_and_the_reason_is_told() -> None:
    planned = plan(aged(1, 30), 1, busy={"w-0": [task()]})
    verdict = decide(planned, scale_down=scale_down(2, 1), pool=pool(), now=NOW)
    assert (verdict.allowed, verdict.reason) == (False, "Busy")
    assert "feature gate PodDeletionCost is off" in verdict.message


def test_idle_ones_go_with_a_warning() -> None:
    """Whoever scales should know that nobody could choose."""
    verdict = decide(plan(aged(1, 30), 1), scale_down=scale_down(2, 1), pool=pool(), now=NOW)
    assert verdict.allowed
    assert "ignores pod-deletion-cost" in " ".join(verdict.warnings)


def test_a_protected_one_whose_turn_it_is_is_a_refusal() -> None:
    """With the lowest number that does not reach it."""
    planned = plan(aged(1, 5, 30), 1, busy={"w-1": [task("billing.close")]})
    assert planned.refusal is not None
    assert (planned.refusal.reason, planned.refusal.possible_replicas) == ("Protected", 2)
    assert "feature gate PodDeletionCost" in planned.refusal.sentence


def test_a_turn_that_is_about_to_change_is_refused() -> None:
    """Ages are compared by powers of two: w-1 is the next in some seconds, when w-0's passes one."""
    boundary_s = 2**43 / 1e9
    pods = [
        pod("w-0", uid="b", ready_since=NOW - boundary_s + 1, created_at=NOW - boundary_s),
        pod("w-1", uid="a", ready_since=NOW - boundary_s - 600, created_at=NOW - boundary_s - 600),
    ]
    assert leaving(plan(pods, 1, now=NOW - 60)) == ["w-0"]
    refusal = plan(pods, 1).refusal
    assert refusal is not None
    assert (refusal.reason, "Ask again in a moment" in refusal.sentence) == ("CannotPredict", True)
    assert leaving(plan(pods, 1, now=NOW + 60)) == ["w-1"]


def test_pods_of_the_same_age_are_no_prediction() -> None:
    """Kubernetes' sort is not stable: it takes either. Where both go, or neither does, all is well."""
    pods = aged(1, 1, 30)
    refusal = plan(pods, 2).refusal
    assert refusal is not None
    assert "of the same age" in refusal.sentence
    assert leaving(plan(pods, 1)) == ["w-0", "w-1"]


def test_before_kubernetes_1_22_a_deployment_is_never_scaled_down() -> None:
    """Ages were compared in another way there, so nobody is foreseen who may not be the one."""
    refusal = plan(aged(1, 30), 1, costs=Costs.UNKNOWN).refusal
    assert refusal is not None
    assert refusal.reason == "CannotPredict"
    assert "feature gate PodDeletionCost" in refusal.sentence


@pytest.mark.parametrize("costs", [Costs.IGNORED, Costs.UNKNOWN])
def test_openkruise_reads_costs_in_every_cluster(costs: Costs) -> None:
    assert costs.choose(builders.workload(kind="CloneSet"))
    assert not costs.choose(builders.workload(kind="StatefulSet"))


# With the whole hook.


def scene_of(*busy: str, **fields: Any) -> Stage:
    """Three workers; it is the turn of worker-1, whose container has restarted."""
    scene = stage(3, busy={name: [running()] for name in busy}, **fields)
    scene.cluster.edit_pod("worker-1", namespace=NAMESPACE, restarts=1)
    return scene


async def test_the_victim_gets_a_record_and_no_cost() -> None:
    scene = scene_of(costs=Costs.IGNORED)
    await scene.warm_up()
    assert (await scene.ask(3, 2)).reason == "Drained"
    assert scene.marked == scene.draining == {"worker-1"}
    assert DELETION_COST not in scene.cluster.annotations_of("worker-1", namespace=NAMESPACE)
    scene.scale(4)
    await scene.reconciler.reconcile()
    assert scene.marked == scene.draining == set()


async def test_a_dry_run_tells_that_nobody_can_choose() -> None:
    scene = scene_of(costs=Costs.IGNORED)
    verdict = await scene.ask(3, 2, is_dry_run=True)
    assert "ignores pod-deletion-cost" in " ".join(verdict.warnings)
    assert scene.marked == set()


async def test_a_busy_victim_is_drained_until_it_is_idle() -> None:
    """Although idle ones are left: they would survive it."""
    scene = scene_of("worker-1", costs=Costs.IGNORED)
    await scene.warm_up()
    assert ((await scene.ask(3, 2)).reason, scene.draining) == ("Busy", {"worker-1"})
    assert "feature gate" in scene.events_of("worker")[-1].message
    scene.finish("worker-1")
    assert (await scene.ask(3, 2)).reason == "Drained"


async def test_a_cost_of_ours_from_before_the_gate_was_off_is_taken_away() -> None:
    """What stood there before it comes back; the record does not claim a cost any more."""
    scene = scene_of("worker-0", "worker-2")
    await scene.warm_up()
    assert (await scene.ask(3, 2)).allowed
    assert scene.mark("worker-1").cost is not None
    scene.costs = Costs.IGNORED
    assert (await scene.ask(3, 2)).allowed
    assert scene.marked == {"worker-1"}
    assert scene.mark("worker-1").cost is None
    assert DELETION_COST not in scene.cluster.annotations_of("worker-1", namespace=NAMESPACE)


def test_a_mark_with_a_cost_is_not_adopted_as_it_stands() -> None:
    planned = plan([marked("w-0", 2, 1), *aged(1, 30)[1:]], 1, from_replicas=2)
    assert not planned.adopts
