"""StatefulSets: nobody chooses who leaves, so those who do are drained, and waited for."""

from dataclasses import replace
from typing import Any

import pytest

from drain_hook.obstacles import rollout_in_the_way
from drain_hook.planner import decide, plan_drain
from drain_hook.plans import DrainPlan
from shared.marks import render_mark
from shared.pods import DELETION_COST, Pod, state_of
from tests.drain_hook.builders import (
    NOW,
    WORKLOAD_UID,
    fleet,
    leaving,
    mark,
    pod,
    pool,
    scale_down,
    task,
    unready,
    worker,
    workload,
)
from tests.drain_hook.stages import NAMESPACE, Stage, running, stage


def pods_of(*ordinals: int) -> list[Pod]:
    return [pod(f"w-{ordinal}", owner_uid=WORKLOAD_UID) for ordinal in ordinals]


def moved(ordinal: int, seconds: float) -> list[Pod]:
    """One that turned ready so long ago."""
    return [pod(f"w-{ordinal}", owner_uid=WORKLOAD_UID, ready_since=NOW - seconds)]


def plan(
    pods: list[Pod],
    from_replicas: int,
    to_replicas: int,
    *,
    busy: dict[str, Any] | None = None,
    **fields: Any,
) -> DrainPlan:
    """A plan for the pods of a StatefulSet; `fields` are those of the workload."""
    stateful_set = workload(kind="StatefulSet", replicas=from_replicas, **fields)
    state = state_of(stateful_set, (), pods, as_of=NOW)
    return plan_drain(
        scale_down=replace(scale_down(from_replicas, to_replicas), kind="StatefulSet"),
        workload=stateful_set,
        replica_sets=state.replica_sets,
        pods=state.pods,
        fleet=fleet(*(worker(p.name, *(busy or {}).get(p.name, ())) for p in pods)),
        pool=pool(),
        now=NOW,
    )


HOUR = 3600.0


def ending(terminates_by: float) -> list[Pod]:
    """One that an update has deleted, and that has a grace period."""
    return [pod("w-7", owner_uid=WORKLOAD_UID, is_terminating=True, terminates_by=terminates_by)]


# Who leaves.


def test_the_highest_ordinals_leave_whatever_they_run() -> None:
    """Busy ones too, while idle ones stay: no cost would change that."""
    planned = plan(pods_of(0, 1, 2, 3), 4, 2, busy={"w-3": [task()]})
    assert leaving(planned) == ["w-2", "w-3"]
    assert [victim.pod.name for victim in planned.busy] == ["w-3"]
    assert all(victim.is_forced for victim in planned.victims)


def test_ordinals_are_numbers() -> None:
    """10 is above 9, whatever the order of the names."""
    assert leaving(plan(pods_of(*range(12)), 12, 10)) == ["w-10", "w-11"]


def test_ordinals_may_start_anywhere() -> None:
    """spec.ordinals.start counts too."""
    assert leaving(plan(pods_of(5, 6, 7), 3, 1, first_ordinal=5)) == ["w-6", "w-7"]


def test_a_pod_that_is_missing_below_saves_none_above() -> None:
    """Its ordinal is filled again: two go, although one pod too few is there already."""
    assert leaving(plan(pods_of(0, 2, 3), 4, 2)) == ["w-2", "w-3"]


def test_costs_and_readiness_decide_nothing() -> None:
    """A ReplicaSet would remove w-0, which is not ready, and then w-1, which is the cheapest."""
    pods = [
        unready("w-0", owner_uid=WORKLOAD_UID),
        pod("w-1", owner_uid=WORKLOAD_UID, cost_annotation="-100"),
        *pods_of(2, 3),
    ]
    planned = plan(pods, 4, 3)
    assert leaving(planned) == ["w-3"]
    assert [victim.cost for victim in planned.victims] == [None]


# Whether they may.


def test_a_protected_one_in_the_way_is_a_refusal_that_says_why_it_is_its_turn() -> None:
    """Ordinals below it may all be idle; only as many as are above it can go."""
    planned = plan(pods_of(*range(6)), 6, 2, busy={"w-3": [task("billing.charge")]})
    assert planned.refusal is not None
    assert (planned.refusal.reason, planned.refusal.possible_replicas) == ("Protected", 4)
    assert "w-3 runs billing.charge" in planned.refusal.sentence
    assert "A StatefulSet always loses its highest ordinals, and no others." in planned.refusal.sentence
    assert "The lowest number possible now is 4" in planned.refusal.sentence


def test_a_protected_one_below_is_in_nobody_s_way() -> None:
    """It is not its turn."""
    planned = plan(pods_of(0, 1, 2), 3, 1, busy={"w-0": [task("billing.charge")]})
    assert planned.refusal is None


def test_a_busy_one_is_waited_for_with_the_reason_that_it_is_this_one() -> None:
    """A person sees idle workers beside it and wonders."""
    down = replace(scale_down(3, 2), kind="StatefulSet")
    planned = plan(pods_of(0, 1, 2), 3, 2, busy={"w-2": [task()]})
    verdict = decide(planned, scale_down=down, pool=pool(), now=NOW)
    assert verdict.reason == "Busy"
    assert "w-2 runs reports.build" in verdict.message
    assert "A StatefulSet always loses its highest ordinals, and no others." in verdict.message


def test_ordinals_of_an_earlier_scale_down_need_not_be_gone() -> None:
    """They go one by one, which takes time; a mark on the next one changes nobody's turn."""
    planned = plan(pods_of(0, 1, 2, 3), 3, 2, busy={"w-2": [task()]}, generation=4, observed_generation=4)
    assert planned.refusal is None
    assert leaving(planned) == ["w-2", "w-3"]


def test_an_update_is_a_rollout() -> None:
    """Unless it waits for somebody: by OnDelete or a partition two revisions may stay for years."""
    updating = workload(kind="StatefulSet", is_updating=True)
    state = state_of(updating, (), [*pods_of(*range(7)), *moved(7, 60)], as_of=NOW)
    refusal = rollout_in_the_way(state, pool=pool(), now=NOW)
    assert refusal is not None
    assert refusal.reason == "RolloutInProgress"
    assert rollout_in_the_way(state, pool=pool(drain={"duringRollout": "allow"}), now=NOW) is None


# The whole round.


def stateful(replicas: int, **fields: Any) -> Stage:
    return stage(replicas, kind="StatefulSet", **fields)


async def test_its_highest_ordinals_are_drained_with_a_record_and_no_cost() -> None:
    """pod-deletion-cost on them would say what is not so."""
    scene = stateful(4)
    assert (await scene.ask(4, 2)).reason == "Drained"
    assert scene.marked == scene.draining == {"worker-2", "worker-3"}
    assert scene.mark("worker-3").cost is None
    assert all(scene.pods[name].cost_annotation is None for name in scene.pods)


@pytest.mark.parametrize(
    ("last", "is_stuck"),
    [
        pytest.param(moved(7, HOUR - 1), False, id="turned ready"),
        pytest.param(moved(7, HOUR), True, id="turned ready long ago"),
        pytest.param([unready("w-7", created_at=NOW - HOUR + 1, owner_uid=WORKLOAD_UID)], False, id="made"),
        pytest.param([unready("w-7", owner_uid=WORKLOAD_UID)], True, id="never turned ready"),
        pytest.param(ending(NOW + 5 * HOUR), False, id="ends its tasks"),
        pytest.param(ending(NOW - HOUR), True, id="on a host that is gone"),
        pytest.param([], True, id="nobody"),
    ],
)
def test_a_stuck_update_does_not_keep_it_large_for_ever(last: list[Pod], is_stuck: bool) -> None:
    """After `maxRolloutWait` in which no pod moved; its highest ordinals go, whatever their revision."""
    planned = plan([*pods_of(*range(7)), *last], 8, 5, is_updating=True)
    if is_stuck:
        assert leaving(planned)[:2] == ["w-5", "w-6"]
    else:
        assert planned.refusal is not None
        assert planned.refusal.sentence.endswith(
            "When it has made no progress for 1 h, scale-downs go on beside it."
        )


async def test_a_cost_that_somebody_wrote_is_left_alone() -> None:
    """Through mark and release."""
    scene = stateful(2, busy={"worker-1": [running()]})
    scene.cluster.annotate_pod("worker-1", {DELETION_COST: "7"}, namespace=NAMESPACE)
    await scene.ask(2, 1)
    assert (scene.marked, scene.pods["worker-1"].cost_annotation) == ({"worker-1"}, "7")
    scene.clock.ahead_s = scene.configuration.round_ttl + 1
    await scene.reconciler.reconcile()
    assert scene.cluster.annotations_of("worker-1", namespace=NAMESPACE) == {DELETION_COST: "7"}


async def test_a_busy_one_is_drained_while_it_is_waited_for() -> None:
    """Then it is allowed, and the record is the same one."""
    scene = stateful(3, busy={"worker-2": [running()]})
    assert (await scene.ask(3, 2)).reason == "Busy"
    assert scene.draining == {"worker-2"}
    since = scene.mark("worker-2").since
    scene.finish("worker-2")
    assert (await scene.ask(3, 2)).reason == "Drained"
    assert scene.mark("worker-2").since == since


async def test_a_protected_one_is_not_even_drained() -> None:
    scene = stateful(3, busy={"worker-2": [running("billing.charge")]})
    assert (await scene.ask(3, 2)).reason == "Protected"
    assert not scene.marked | scene.draining


async def test_marks_stay_until_the_last_of_them_has_gone() -> None:
    """OrderedReady takes minutes: each pod waits for the one above it."""
    scene = stateful(3)
    await scene.ask(3, 1)
    scene.scale(1)
    scene.cluster.edit_workload(namespace=NAMESPACE, observedGeneration=2)
    scene.delete("worker-2")
    scene.clock.ahead_s = 600
    await scene.warm_up()
    await scene.reconciler.reconcile()
    assert scene.marked == scene.draining == {"worker-1"}


async def test_a_scale_up_gives_back_what_has_not_gone_yet() -> None:
    """Also one to the old size: the generation of a StatefulSet moves with its spec only."""
    scene = stateful(3)
    await scene.ask(3, 1)
    scene.scale(1)
    scene.delete("worker-2")
    scene.scale(3)
    await scene.reconciler.reconcile()
    assert not scene.marked | scene.draining


async def test_a_new_pod_of_an_old_name_has_no_part_in_the_round() -> None:
    """The record names the pod it was written on; the name comes back with every scale-up."""
    scene = stateful(2, busy={"worker-1": [running()]})
    await scene.ask(2, 1)
    record = render_mark(scene.mark("worker-1"))
    scene.cluster.delete_pod("worker-1", namespace=NAMESPACE)
    scene.cluster.add_pod("worker-1", namespace=NAMESPACE, annotations={"celery-hpa.io/drain": record})
    await scene.reconciler.reconcile()
    assert not scene.marked


def test_a_record_without_a_cost_says_none() -> None:
    """As JSON too: null would look like a value."""
    assert "cost" not in render_mark(mark("w-1", cost=None))
