"""Clusters without pod-deletion-cost: a Deployment loses what Kubernetes picks, and that is drained."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.sandbox.controllers import replicasets
from drain_hook.own_order import STEADY_S, Costs, own_order
from drain_hook.planner import decide
from drain_hook.plans import DrainPlan
from drain_hook.victims import certainly_before
from shared.pods import DELETION_COST, Pod
from tests.drain_hook import builders
from tests.drain_hook.builders import NOW, leaving, marked, names, pod, pool, scale_down, task, unready
from tests.drain_hook.stages import NAMESPACE, Stage, node, running, stage


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
    candidates = [candidate_of(p) for p in pods]
    now = datetime.fromtimestamp(NOW, UTC)
    order = own_order(pods, related=pods, now=NOW)
    is_before = certainly_before(pods, related=pods, moments=[NOW])
    for count in range(1, len(pods)):
        chosen = replicasets.choose_victims(
            candidates, desired=len(pods) - count, related=candidates, honours_costs=False, now=now
        )
        taken = {one.name for one in chosen}
        assert taken <= set(leaving(plan(pods, len(pods) - count)))
        # Two of one second and a third of like age may each go before the next: then any of them may go.
        if all(is_before(one, other) for one in order[:count] for other in order[count:]):
            assert taken == {p.name for p in order[:count]}


ALIKE = st.tuples(st.booleans(), st.integers(70_000, 70_004), st.integers(0, 4), st.integers(0, 1))
"""Pods of one power of two, of which some are of one second: no order that could be sorted by."""


@given(
    st.lists(ALIKE, min_size=2, max_size=9),
    st.randoms(use_true_random=False),
    st.sampled_from([-STEADY_S, 0.0, STEADY_S]),
)
def test_whoever_kubernetes_takes_is_drained(
    descriptions: list[tuple[bool, int, int, int]], random: Random, shift_s: float
) -> None:
    """Its sort is not stable, and begins with pods in any order."""
    uids = random.sample(range(100, 1000), len(descriptions))
    pods = [
        pod(
            f"w-{index}",
            uid=str(uid),
            is_ready=is_ready,
            ready_since=NOW - age if is_ready else None,
            created_at=NOW - age - created_before,
            restarts=restarts,
        )
        for index, (uid, (is_ready, age, created_before, restarts)) in enumerate(
            zip(uids, descriptions, strict=True)
        )
    ]
    for count in range(1, len(pods)):
        planned = plan(pods, len(pods) - count)
        assert len(planned.victims) - planned.spares == count
        taken = kubernetes_takes(random.sample(pods, len(pods)), count, now=NOW + shift_s)
        assert taken <= set(leaving(planned))


def kubernetes_takes(pods: list[Pod], count: int, *, now: float) -> set[str]:
    """As Go sorts up to twelve of them: by insertion. Which of two goes first the sandbox says."""
    everyone, moment = [candidate_of(p) for p in pods], datetime.fromtimestamp(now, UTC)

    def is_less(one: replicasets.Candidate, other: replicasets.Candidate) -> bool:
        first, *_ = replicasets.choose_victims(
            [other, one], desired=1, related=everyone, honours_costs=False, now=moment
        )
        return first == one

    in_order: list[replicasets.Candidate] = []
    for one in everyone:
        place = len(in_order)
        while place and is_less(one, in_order[place - 1]):
            place -= 1
        in_order.insert(place, one)
    return {one.name for one in in_order[:count]}


def candidate_of(p: Pod) -> replicasets.Candidate:
    """The same pod, as the sandbox has it."""
    return replicasets.Candidate(
        name=p.name,
        uid=p.uid,
        node=p.host,
        ready_since=datetime.fromtimestamp(p.ready_since, UTC) if p.ready_since else None,
        deletion_cost=p.deletion_cost,
        restarts=p.restarts,
        created_at=datetime.fromtimestamp(p.created_at, UTC),
    )


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


def test_both_go_whose_turn_is_about_to_change() -> None:
    """Ages are compared by powers of two: w-1 is the next in some seconds, when w-0's passes one."""
    boundary_s = 2**43 / 1e9
    pods = [
        pod("w-0", uid="b", ready_since=NOW - boundary_s + 1, created_at=NOW - boundary_s),
        pod("w-1", uid="a", ready_since=NOW - boundary_s - 600, created_at=NOW - boundary_s - 600),
    ]
    assert leaving(plan(pods, 1, now=NOW - 60)) == ["w-0"]
    assert leaving(plan(pods, 1)) == ["w-0", "w-1"]
    assert leaving(plan(pods, 1, now=NOW + 60)) == ["w-1"]


def test_so_do_both_that_reach_the_next_power_one_after_the_other() -> None:
    """w-1 is the first but for one second, a second from now."""
    boundary_s = 2**43 / 1e9
    ages = {"w-0": boundary_s - 0.6, "w-1": boundary_s - 1.6}
    pods = [
        pod(name, uid=uid, ready_since=NOW - age, created_at=NOW - age)
        for (name, age), uid in zip(ages.items(), "ab", strict=True)
    ]
    assert leaving(plan(pods, 1)) == ["w-0", "w-1"]


def test_of_pods_of_one_age_all_must_be_idle() -> None:
    """Kubernetes' sort is not stable: it takes either. Nobody is drained for as long as one has work."""
    pods = aged(1, 1, 30)
    planned = plan(pods, 2)
    assert (leaving(planned), planned.spares) == (["w-0", "w-1"], 1)
    verdict = decide(planned, scale_down=scale_down(3, 2), pool=pool(), now=NOW)
    assert (verdict.allowed, verdict.reason) == (True, "Drained")
    assert "1 of these goes" in verdict.message
    refusal = plan(pods, 2, busy={"w-1": [task()]}).refusal
    assert refusal is not None
    assert refusal.reason == "CannotPredict"
    assert ": w-0, w-1. They" in refusal.sentence
    assert "w-1 runs reports.build" in refusal.sentence
    assert (leaving(plan(pods, 1)), plan(pods, 1).spares) == (["w-0", "w-1"], 0)


def test_a_busy_one_may_be_taken_for_one_that_is_not_even_of_its_age() -> None:
    """By their uids w-0 goes before w-1, and that before w-2; w-0 and w-2 are alike, so w-2 may be first."""
    twenty_hours = {"ready_since": NOW - 72_000, "created_at": NOW - 72_010}
    pods = [
        pod("w-0", uid="1", **twenty_hours),
        pod("w-1", uid="5", ready_since=NOW - 71_820, created_at=NOW - 71_830),
        pod("w-2", uid="9", **twenty_hours),
    ]
    refusal = plan(pods, 2, busy={"w-2": [task()]}).refusal
    assert refusal is not None
    assert refusal.reason == "CannotPredict"


def test_restarts_of_sidecars_are_no_prediction() -> None:
    """Not every Kubernetes in use looks at them: where it does w-1 goes, elsewhere w-0, the younger one."""
    ready = {"ready_since": NOW - 3600}
    pods = [
        pod("w-0", created_at=NOW - 3700, **ready),
        pod("w-1", created_at=NOW - 90_000, sidecar_restarts=3, **ready),
    ]
    planned = plan(pods, 1)
    assert (leaving(planned), planned.spares) == (["w-0", "w-1"], 1)


def test_before_kubernetes_1_22_a_deployment_is_never_scaled_down() -> None:
    """Ages were compared in another way there, so nobody is foreseen who may not be the one."""
    refusal = plan(aged(1, 30), 1, costs=Costs.UNKNOWN).refusal
    assert refusal is not None
    assert refusal.reason == "CannotPredict"
    assert "feature gate PodDeletionCost" in refusal.sentence


def test_until_it_is_known_whether_costs_count_nobody_goes() -> None:
    """It is known a moment after the hook has seen its first pod."""
    refusal = plan(aged(1, 30), 1, costs=Costs.UNSEEN).refusal
    assert refusal is not None
    assert (refusal.reason, "Ask again in a moment" in refusal.sentence) == ("CannotPredict", True)


def test_where_it_is_only_believed_that_costs_count_whoever_scales_is_told() -> None:
    planned = plan(aged(1, 30), 1, costs=Costs.BELIEVED)
    assert [victim.cost for victim in planned.victims] == [-1]
    verdict = decide(planned, scale_down=scale_down(2, 1), pool=pool(), now=NOW)
    assert verdict.allowed
    assert "could not be found out" in " ".join(verdict.warnings)
    cloned = plan(aged(1, 30), 1, costs=Costs.BELIEVED, workload=builders.workload(kind="CloneSet"))
    assert cloned.doubt == ""


@pytest.mark.parametrize("costs", [Costs.IGNORED, Costs.UNKNOWN, Costs.UNSEEN])
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


def alike(*busy: str) -> Stage:
    """Three workers of one age, to the second, of which nobody can tell who goes."""
    while True:
        scene = stage(3, busy={name: [running()] for name in busy}, costs=Costs.IGNORED)
        if len({pod.created_at for pod in scene.pods.values()}) == 1:
            return scene


async def test_those_of_one_age_are_drained_together_and_whoever_stays_works_again() -> None:
    """At once when the deletions are done; that it stayed is no wrong prediction."""
    scene = alike()
    await scene.warm_up()
    assert (await scene.ask(3, 2)).reason == "Drained"
    assert scene.draining == {"worker-0", "worker-1", "worker-2"}
    scene.scale(2, settled=True)
    await scene.reconciler.reconcile()
    assert len(scene.draining) == 3
    scene.delete("worker-1")
    await scene.reconciler.reconcile()
    assert scene.marked == scene.draining == set()
    assert scene.sample("drain_hook_mispredicted_victims_total", pool="default", namespace=NAMESPACE) == 0
    await scene.settle()
    assert "takes any" in scene.events_of("worker-0")[-1].message


async def test_nobody_of_one_age_is_kept_from_work_while_another_is_busy() -> None:
    """Waiting for one would keep all of them idle."""
    scene = alike("worker-1")
    await scene.warm_up()
    assert (await scene.ask(3, 2)).reason == "CannotPredict"
    assert scene.draining == set()


async def test_one_of_them_that_took_a_task_gives_the_others_back() -> None:
    """What the hook remembers of a worker is seconds old."""
    scene = alike()
    await scene.warm_up()
    scene.celery.start(node("worker-2"), running())
    assert (await scene.ask(3, 2)).reason == "CannotPredict"
    assert scene.marked == scene.draining == set()


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
