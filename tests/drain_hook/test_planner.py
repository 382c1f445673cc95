"""Who leaves, what is written on them, and what the person who asked is told."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from drain_hook.admission import Verdict
from drain_hook.mark_life import record_of
from drain_hook.planner import decide, decide_dry_run
from drain_hook.plans import DrainPlan
from shared.hook_warnings import said_by_the_hook
from shared.pods import INT32_MIN, Pod, WorkloadState
from shared.workers import Fleet, Task
from tests.drain_hook.builders import (
    NOW,
    fleet,
    leaving,
    marked,
    names,
    pending,
    plan,
    pod,
    pool,
    replica_set,
    scale_down,
    task,
    unready,
    worker,
    workload,
)


def pods(count: int) -> list[Pod]:
    return [pod(name) for name in names(count)]


def verdict(plan: DrainPlan, **drain: Any) -> Verdict:
    return decide(plan, scale_down=scale_down(8, 6), pool=pool(drain=drain), now=NOW)


def costs(plan: DrainPlan) -> set[int | None]:
    return {victim.cost for victim in plan.victims}


# Who leaves.


def test_idle_workers_leave_first() -> None:
    """Nobody who works is stopped while somebody idle is left."""
    busy = {name: [task()] for name in ("w-0", "w-1", "w-3", "w-4", "w-6", "w-7")}
    assert leaving(plan(pods(8), 6, busy=busy)) == ["w-2", "w-5"]


def test_of_busy_workers_the_cheapest_leave() -> None:
    """Many short tasks before one long one."""
    busy = {"w-0": [task(running_s=10_800)], "w-1": [task(running_s=900)] * 4, "w-2": [task(running_s=5_000)]}
    assert leaving(plan(pods(3), 2, busy=busy)) == ["w-1"]


def test_a_busy_worker_of_no_weight_is_dearer_than_an_idle_one() -> None:
    """Weight 0 says that a task may be lost, not that nothing runs."""
    weightless = pool(labels=[{"task": "*", "weight": 0}])
    later = [pod("w-0", ready_since=NOW - 10), pod("w-1")]
    assert leaving(plan(later, 1, busy={"w-0": [task()]}, pool=weightless)) == ["w-1"]


def test_of_equals_the_one_already_draining_leaves() -> None:
    """Otherwise each review would drain another one."""
    assert leaving(plan([pod("w-0"), pod("w-1"), marked("w-2", 3, 2)], 2)) == ["w-2"]


def test_of_busy_workers_those_already_draining_leave() -> None:
    """Although others have started cheaper tasks since; among those that drain, the cheapest."""
    crowd = [marked("w-0", 4, 3), pod("w-1"), marked("w-2", 4, 3), pod("w-3")]
    busy = {"w-0": [task(running_s=900)], "w-1": [task(running_s=1)], "w-2": [task(running_s=600)]}
    assert leaving(plan(crowd, 3, busy={**busy, "w-3": [task(running_s=1)]})) == ["w-2"]
    assert leaving(plan(crowd, 1, busy={**busy, "w-3": [task(running_s=2)]})) == ["w-0", "w-1", "w-2"]


def test_an_idle_worker_takes_the_place_of_a_busy_one_that_drains() -> None:
    """It can go at once, and the other takes tasks again."""
    made = plan([marked("w-0", 2, 1), pod("w-1")], 1, busy={"w-0": [task()]})
    assert (leaving(made), [p.name for p in made.releases]) == (["w-1"], ["w-0"])


def test_a_draining_worker_with_a_protected_task_is_let_off() -> None:
    """The task slipped in, or was labelled since."""
    busy = {"w-0": [task("billing.close")], "w-1": [task(running_s=10**6)]}
    made = plan([marked("w-0", 2, 1), pod("w-1")], 1, busy=busy)
    assert (leaving(made), [p.name for p in made.releases]) == (["w-1"], ["w-0"])


def test_a_worker_drained_for_another_workload_has_no_precedence() -> None:
    """Such a mark is about to be taken back."""
    crowd = [marked("w-0", 2, 1, workload_uid="former"), pod("w-1")]
    busy = {"w-0": [task(running_s=900)], "w-1": [task(running_s=1)]}
    assert leaving(plan(crowd, 1, busy=busy)) == ["w-1"]


def test_of_silent_workers_those_already_draining_leave() -> None:
    """But any that answers goes before them."""
    crowd = [pod("w-0"), marked("w-1", 3, 2), pod("w-2")]
    assert leaving(plan(crowd, 2, silent={"w-0", "w-1", "w-2"})) == ["w-1"]
    assert leaving(plan(crowd, 2, silent={"w-0", "w-1"}, busy={"w-2": [task()]})) == ["w-2"]


def test_of_equals_the_one_leaves_that_kubernetes_would_take() -> None:
    """The younger, by its own order; a cost that somebody else wrote counts there too."""
    young = pod("w-1", ready_since=NOW - 5)
    assert leaving(plan([pod("w-0"), young, pod("w-2")], 2)) == ["w-1"]
    assert leaving(plan([pod("w-0", cost_annotation="-7"), young, pod("w-2")], 2)) == ["w-0"]


def test_a_silent_worker_is_dearer_than_any_that_answers() -> None:
    """A worker that did not answer is unknown, not idle."""
    busy = {"w-0": [task(running_s=10**7)]}
    assert leaving(plan(pods(2), 1, busy=busy, silent={"w-1"})) == ["w-0"]
    assert leaving(plan(pods(3), 1, busy=busy, silent={"w-1"})) == ["w-0", "w-2"]


def test_a_silent_worker_leaves_when_nobody_else_may() -> None:
    """It is still the dearest of the unprotected."""
    made = plan(pods(2), 1, busy={"w-0": [task("billing.close")]}, silent={"w-1"})
    assert (leaving(made), made.silent) == (["w-1"], ("celery@w-1",))


def test_a_worker_that_nobody_asked_is_silent() -> None:
    """It is in neither part of the fleet; and who is called silent is so, whatever it said before."""
    unasked = plan(pods(2), 0, fleet=Fleet())
    assert unasked.silent == ("celery@w-0", "celery@w-1")
    before = fleet(worker("w-0"), worker("w-1"))
    contradicted = Fleet(workers=before.workers, silent=frozenset({"celery@w-1"}))
    assert [v.is_silent for v in plan(pods(2), 0, fleet=contradicted).victims] == [False, True]


def test_pods_that_kubernetes_removes_first_are_forced_victims() -> None:
    """Unassigned, then unready, whatever they cost; only what remains is chosen."""
    crowd = [*pods(3), unready("sick"), pending("new")]
    made = plan(crowd, 2, busy={"sick": [task(running_s=10_000)]})
    assert [(v.pod.name, v.is_forced) for v in made.victims] == [
        ("new", True),
        ("sick", True),
        ("w-0", False),
    ]


def test_among_unready_pods_there_is_a_choice_too() -> None:
    """Costs count inside a class: of two unready pods the idle one can be sent first."""
    crowd = [*pods(2), unready("a"), unready("b")]
    made = plan(crowd, 3, busy={"a": [task()]})
    assert [(v.pod.name, v.is_forced) for v in made.victims] == [("b", False)]


def test_a_pod_that_runs_no_worker_yet_is_idle() -> None:
    """Nothing to wait for: neither silent nor busy. One that answers all the same is believed."""
    (new,) = plan([*pods(1), pending("new")], 1).victims
    assert (new.worker, new.is_silent, new.is_busy) == (None, False, False)
    early = fleet(worker("w-0"), worker("new", task()))
    (new,) = plan([*pods(1), pending("new")], 1, fleet=early).victims
    assert new.is_busy


def test_a_pod_whose_host_is_lost_may_still_run_tasks() -> None:
    """Phase Unknown: it did not answer, and nobody knows."""
    (lost,) = plan([*pods(1), unready("lost", phase="Unknown")], 1, silent={"lost"}).victims
    assert (lost.is_forced, lost.is_busy) == (True, True)


def test_all_leave_when_none_is_to_be_left() -> None:
    """Nothing to choose: the longest task goes with the rest."""
    made = plan(pods(2), 0, busy={"w-0": [task(running_s=10_000)]})
    assert [(v.pod.name, v.is_forced, v.is_busy) for v in made.victims] == [
        ("w-0", True, True),
        ("w-1", True, False),
    ]


def test_nobody_leaves_when_the_pods_are_not_there() -> None:
    """Eight were wanted, five are there, six are to be left."""
    made = plan(pods(5), 6, from_replicas=8)
    assert (made.victims, made.refusal, made.adopts) == ((), None, False)


def test_pods_of_other_workloads_are_left_alone() -> None:
    """A selector can match pods that none of the ReplicaSets owns."""
    assert leaving(plan([*pods(2), pending("stranger", owner_uid="elsewhere")], 1)) == ["w-0"]


def test_a_pod_that_is_going_already_is_no_victim() -> None:
    """Terminating ones do not count, marked or not, and are not released either."""
    going = [pod("gone", is_terminating=True), replace(marked("going"), is_terminating=True)]
    made = plan([*pods(3), *going], 2, from_replicas=3)
    assert (leaving(made), made.releases) == (["w-0"], ())


def test_during_a_rollout_each_replica_set_gives_its_part() -> None:
    """With duringRollout: allow. Costs cannot move pods between ReplicaSets, so each chooses for itself."""
    sets = [
        replica_set("old", 6, revision=1, desired_replicas=8, max_replicas=10),
        replica_set("new", 4, revision=2, desired_replicas=8, max_replicas=10),
    ]
    crowd = [
        pod(f"{rs.uid}-{n}", owner_uid=rs.uid, cost_annotation="9" if rs.uid == "old" else "3")
        for rs in sets
        for n in range(rs.replicas)
    ]
    busy = {"old-0": [task()], "old-1": [task()], "new-0": [task()], "new-3": [task()]}
    made = plan(
        crowd, 4, busy=busy, from_replicas=8, replica_sets=sets, pool=pool(drain={"duringRollout": "allow"})
    )
    assert leaving(made) == ["new-1", "new-2", "old-2", "old-3", "old-4"]


# What is written.


def test_one_cost_below_everybody_elses_is_written_on_all_victims() -> None:
    """-1 is enough where nobody has a cost, or only higher ones."""
    assert costs(plan(pods(4), 2)) == {-1}
    assert costs(plan([pod(n, cost_annotation="100") for n in names(4)], 2)) == {-1}


def test_a_survivor_with_a_low_cost_is_undercut() -> None:
    """A foreign value on a pod that stays is never touched."""
    crowd = [pod("w-0", cost_annotation="-40"), *pods(3)[1:]]
    assert costs(plan(crowd, 1, busy={"w-0": [task()]})) == {-41}


def test_what_a_survivor_gets_back_is_undercut_too() -> None:
    """It is released while Kubernetes still picks pods: with its own -40 it would go before any victim."""
    crowd = [marked("w-0", cost=-1, foreign_cost="-40"), *pods(3)[1:]]
    swapped = plan(crowd, 2, busy={"w-0": [task()]})
    assert (costs(swapped), [p.name for p in swapped.releases]) == ({-41}, ["w-0"])


def test_a_cost_that_stands_there_is_used_again() -> None:
    """As long as it is low enough; an unused mark counts as somebody who stays."""
    crowd = [pod("w-0"), pod("w-1"), marked("w-2", cost=-9)]
    assert costs(plan(crowd, 1)) == {-9}
    swapped = plan(crowd, 2, busy={"w-2": [task()]})
    assert (costs(swapped), [p.name for p in swapped.releases]) == ({-10}, ["w-2"])


def test_a_cost_that_somebody_changed_is_not_ours() -> None:
    """The mark says -9, the pod says 4: somebody else wrote there later."""
    assert costs(plan([pod("w-0"), marked("w-1", cost=-9)], 1)) == {-9}
    edited = [pod("w-0"), pod("w-1", mark=marked("w-1", cost=-9).mark, cost_annotation="4")]
    assert costs(plan(edited, 1)) == {-1}


def test_a_pod_with_the_lowest_possible_cost_goes_first_whatever_we_write() -> None:
    """Some controllers write it: nothing lower can be written on another."""
    lowest = pod("w-0", cost_annotation=str(INT32_MIN))
    made = plan([lowest, *pods(4)[1:]], 2, busy={"w-0": [task()]})
    assert [(v.pod.name, v.is_forced, v.cost) for v in made.victims] == [
        ("w-0", True, -1),
        ("w-1", False, -1),
    ]


def test_the_lowest_cost_that_we_wrote_over_is_still_known() -> None:
    """What stood there before is in our record."""
    drained = marked("w-0", cost=-1, foreign_cost=str(INT32_MIN))
    (victim,) = plan([drained, *pods(3)[1:]], 2, busy={"w-0": [task()]}).victims
    assert (victim.pod.name, victim.is_forced) == ("w-0", True)


def test_too_many_pods_with_the_lowest_cost_are_refused() -> None:
    """Nobody can tell which of them Kubernetes would take."""
    crowd = [pod(n, cost_annotation=str(INT32_MIN)) for n in names(3)]
    made = plan(crowd, 2)
    assert made.refusal is not None
    assert (made.refusal.reason, made.victims) == ("CannotPredict", ())


def test_queues_are_those_consumed_now_and_before() -> None:
    """What a victim consumes, what its mark remembers, and the pool's when nobody knows."""
    half = fleet(worker("w-0", queues=frozenset({"b"})), worker("w-1", queues=frozenset()))
    marked_one = marked("w-0", 3, 0, queues=("a", "b"))
    made = plan([marked_one, pod("w-1"), pod("w-2")], 0, fleet=half, pool=pool(queues=["a", "b", "c"]))
    assert {v.pod.name: v.queues for v in made.victims} == {
        "w-0": ("a", "b"),
        "w-1": ("a", "b", "c"),
        "w-2": ("a", "b", "c"),
    }


# Earlier marks.


def test_marks_that_are_not_used_are_released() -> None:
    """Two drained for 8 to 6, and now 8 to 7 is asked."""
    crowd = [marked("w-0"), marked("w-1"), *pods(8)[2:]]
    made = plan(crowd, 7)
    assert (leaving(made), [p.name for p in made.releases]) == (["w-0"], ["w-1"])


def test_the_same_round_is_adopted() -> None:
    """The API server asks again after a conflict, with a new uid: nothing has to be written."""
    assert plan([marked("w-0"), marked("w-1"), *pods(8)[2:]], 6).adopts


@pytest.mark.parametrize(
    "crowd",
    [
        [marked("w-0"), pod("w-1"), *pods(8)[2:]],
        [marked("w-0"), marked("w-1", to_replicas=5), *pods(8)[2:]],
        [marked("w-0"), marked("w-1", workload_uid="former"), *pods(8)[2:]],
        [marked("w-0"), marked("w-1", generation=2, replica_set_generation=1), *pods(8)[2:]],
        [marked("w-0"), marked("w-1", cost=-2), *pods(8)[2:]],
        [marked("w-0"), marked("w-1"), marked("w-2"), *pods(8)[3:]],
        [marked("w-0"), marked("w-1"), pod("w-2", cost_annotation="-1"), *pods(8)[3:]],
    ],
    ids=["one new", "other size", "other workload", "older", "other cost", "one too many", "undercut"],
)
def test_anything_else_is_not_adopted(crowd: list[Pod]) -> None:
    """Then marks are written anew."""
    busy = {"w-2": [task()]}
    assert not plan(crowd, 6, busy=busy).adopts


def test_a_round_began_with_its_first_mark() -> None:
    """Although its victims were swapped for others since; a round of another size does not count."""
    busy_one = [marked("w-0", since=NOW - 500), *pods(8)[1:]]
    swapped = plan(busy_one, 6, busy={"w-0": [task()]})
    assert (leaving(swapped), swapped.since) == (["w-1", "w-2"], NOW - 500)
    assert plan(busy_one, 5, busy={"w-0": [task()]}).since == NOW
    assert plan(pods(8), 6).since == NOW


def test_a_round_goes_on_while_the_workload_is_annotated() -> None:
    """Somebody who writes to it all the time neither begins the waiting anew nor renames the round."""
    crowd = [*(marked(name, generation=2, since=NOW - 500) for name in names(2)), *pods(8)[2:]]
    made = plan(crowd, 6, busy={name: [task()] for name in names(8)})
    assert (made.round, made.since, made.adopts) == ("8to6-g2", NOW - 500, True)
    scaled = [replace(p, mark=replace(p.mark, replica_set_generation=1)) if p.mark else p for p in crowd]
    assert plan(scaled, 6).since == NOW, "it was scaled since, and has its old size again"


def test_a_victim_taken_over_from_another_round_has_waited_since_then() -> None:
    """8 to 7 becomes 8 to 6: who drains goes on draining."""
    assert plan([marked("w-0", to_replicas=7, since=NOW - 500), *pods(8)[1:]], 6).since == NOW - 500


def test_a_pod_whose_deletion_was_let_through_goes_before_all_others() -> None:
    """8 to 6 was allowed a moment ago, Kubernetes has not deleted yet, and now 6 to 5 is asked."""
    going = [marked("w-0", generation=2), marked("w-1", generation=2)]
    crowd = [*going, marked("w-2", 6, 5), *pods(8)[3:]]
    made = plan(crowd, 5, from_replicas=6, busy={"w-0": [task()]})
    assert [(v.pod.name, v.is_forced) for v in made.victims] == [("w-0", True), ("w-1", True), ("w-2", False)]


def test_a_pod_whose_deletion_was_let_through_keeps_its_record() -> None:
    """It goes by that scale-down, even if the one asked for now is refused and forgotten."""
    going = marked("w-0", generation=2)
    made = plan([going, marked("w-1", 6, 5), *pods(7)[2:]], 5, from_replicas=6)
    records = [
        record_of(
            v, made, scale_down=scale_down(6, 5), state=WorkloadState(workload=workload(replicas=6)), now=NOW
        )
        for v in made.victims
    ]
    assert [(v.pod.name, v.is_going) for v in made.victims] == [("w-0", True), ("w-1", False)]
    assert (records[0], records[1].generation) == (going.mark, 3)


def test_a_round_has_the_same_name_whenever_it_is_reviewed() -> None:
    """The review's uid is new each time."""
    assert plan(pods(8), 6).round == plan([marked("w-0"), *pods(8)[1:]], 6).round == "8to6-g2"


# What cannot be prepared.


def refused(plan: DrainPlan) -> tuple[str, int | None]:
    assert plan.refusal is not None
    assert (plan.victims, plan.releases) == ((), ())
    return plan.refusal.reason, plan.refusal.possible_replicas


def test_a_protected_worker_is_never_chosen() -> None:
    """Somebody dearer leaves in its place."""
    made = plan(pods(2), 1, busy={"w-0": [task("billing.close", 1)], "w-1": [task(running_s=10**6)]})
    assert (leaving(made), made.protected) == (["w-1"], ("celery@w-0",))


def test_too_few_unprotected_workers_are_refused_with_what_is_possible() -> None:
    """Three of eight are protected: five can go, not six."""
    busy = {name: [task("billing.close")] for name in ("w-1", "w-4", "w-6")}
    assert leaving(plan(pods(8), 3, busy=busy)) == ["w-0", "w-2", "w-3", "w-5", "w-7"]
    made = plan(pods(8), 2, busy=busy)
    assert refused(made) == ("Protected", 3)
    said = verdict(made)
    assert (said.allowed, said.reason, said.code) == (False, "Protected", 403)
    assert said.message == (
        "2 replicas would stop a protected task: w-1 runs billing.close (3f2a91bc), since"
        " 2027-01-15T07:59:00Z | w-4 runs billing.close (3f2a91bc), since 2027-01-15T07:59:00Z | w-6 runs"
        " billing.close (3f2a91bc), since 2027-01-15T07:59:00Z."
        " The lowest number possible now is 3; ask for that, or again when these tasks are done."
    )


def test_a_protected_worker_that_kubernetes_would_remove_first_is_refused() -> None:
    """No cost can save it while it is not ready."""
    made = plan([*pods(3), unready("sick")], 3, busy={"sick": [task("billing.close"), task()]})
    assert refused(made) == ("Protected", None)
    assert made.refusal is not None
    assert made.refusal.sentence == (
        "3 replicas would stop a protected task: sick (which Kubernetes would remove first, because it is not"
        " ready) runs billing.close (3f2a91bc), since 2027-01-15T07:59:00Z."
        " No pod can be removed now; ask again when these tasks are done."
    )


def test_a_prefetched_protected_task_protects() -> None:
    """It is going to run there."""
    waiting = fleet(worker("w-0", reserved=(task("billing.close", None),)), worker("w-1"))
    assert refused(plan(pods(2), 0, fleet=waiting)) == ("Protected", 1)


def test_a_protected_worker_that_did_not_answer_this_time_stays_protected() -> None:
    """What it said last is kept until it says something else."""
    before = fleet(worker("w-0", task("billing.close")), worker("w-1"))
    unheard = Fleet(workers=before.workers, silent=frozenset({"celery@w-0"}))
    assert refused(plan(pods(2), 0, fleet=unheard)) == ("Protected", 1)


def half_done(**fields: Any) -> dict[str, Any]:
    """A rollout from `old` to `rs-1` that has made no progress for ten minutes."""
    return {
        "workload": workload(template="new", progressed_at=NOW - 600, **fields),
        "replica_sets": [
            replica_set("old", 5, revision=1, template="old", desired_replicas=8, max_replicas=10),
            replica_set(replicas=5, revision=2, template="new", desired_replicas=8, max_replicas=10),
        ],
    }


def halves() -> list[Pod]:
    """Its pods."""
    return [*pods(5), *(pod(f"old-{n}", owner_uid="old") for n in range(5))]


def test_a_rollout_is_refused() -> None:
    """Unless the pool says otherwise; nothing is possible then, so no number is named."""
    made = plan(halves(), 6, from_replicas=8, **half_done())
    assert refused(made) == ("RolloutInProgress", None)
    assert made.refusal is not None
    assert made.refusal.sentence == (
        "A rollout of Deployment apps/worker is in progress: 5 of its 10 pods are of a former template. Ask"
        " again when it is done, or set drain.duringRollout: allow for pool default. When it has made no"
        " progress for 1 h, scale-downs go on beside it."
    )


def test_a_stuck_rollout_is_planned_for() -> None:
    """It must not keep the workload large for ever; and while nothing moves the split can be foreseen."""
    limits = [pool(drain={"maxRolloutWait": limit}) for limit in ("11m", "10m")]
    waits, goes_on = (plan(halves(), 6, from_replicas=8, pool=p, **half_done()) for p in limits)
    assert refused(waits) == ("RolloutInProgress", None)
    assert goes_on.refusal is None
    assert leaving(goes_on) == ["old-0", "w-0"]


def test_a_template_that_the_controller_has_not_seen_is_refused() -> None:
    """The rollout is about to begin, however old the last one is."""
    fresh = workload(observed_generation=2, template="new", progressed_at=NOW - 1e6)
    made = plan(pods(8), 6, workload=fresh, replica_sets=[replica_set(template="old", desired_replicas=8)])
    assert refused(made) == ("RolloutInProgress", None)
    assert made.refusal is not None
    assert "8 of its 8 pods are of a former template" in made.refusal.sentence


def test_an_annotation_that_the_controller_has_not_seen_is_no_rollout() -> None:
    """Somebody who writes to the workload all the time must not keep it from being scaled."""
    crowd, busy = pods(8), {name: [task()] for name in names(8)}
    restless = workload(observed_generation=2, template="new")
    sets = [replica_set(template="new", desired_replicas=8)]
    assert leaving(plan(crowd, 6, busy=busy, workload=restless, replica_sets=sets)) == ["w-0", "w-1"]


def test_an_unseen_change_after_a_round_may_be_a_scale_down_that_was_reverted() -> None:
    """The controller may still carry it out: nobody busy is marked in addition until it has looked."""
    crowd, busy = [marked("w-0", generation=2), *pods(8)[1:]], {name: [task()] for name in names(8)}
    sets = [replica_set(desired_replicas=8)]
    unseen, seen = (
        plan(crowd, 6, busy=busy, workload=workload(observed_generation=n), replica_sets=sets) for n in (2, 3)
    )
    assert refused(unseen) == ("RolloutInProgress", None)
    assert leaving(seen) == ["w-0", "w-1"]
    again = plan(crowd, 7, busy=busy, workload=workload(observed_generation=2), replica_sets=sets)
    assert leaving(again) == ["w-0"], "who drains already is in no new danger"


def test_busy_workers_are_not_marked_while_kubernetes_deletes_for_the_last_scale_down() -> None:
    """It takes the pods of the lowest cost, and would take a busy one in place of the one that is drained."""
    crowd = [marked("w-0", generation=2), *pods(7)[1:]]
    busy = {name: [task()] for name in names(7)[1:]}
    made = plan(crowd, 5, from_replicas=6, busy=busy)
    assert refused(made) == ("RolloutInProgress", None)
    assert made.refusal is not None
    assert made.refusal.sentence == (
        "The last change of Deployment apps/worker has not reached its pods yet; ask again in a moment."
    )
    assert leaving(plan(crowd, 5, from_replicas=7, busy=busy)) == ["w-0", "w-1"]


def test_nor_are_idle_ones_before_they_are_cancelled() -> None:
    """That they are idle is a memory, seconds old: Kubernetes could take one that has a task by now."""
    going = marked("w-0", generation=2)
    assert refused(plan([going, *pods(7)[1:]], 5, from_replicas=6)) == ("RolloutInProgress", None)
    drained = marked("w-1", 6, 5)
    assert leaving(plan([going, drained, *pods(7)[2:]], 5, from_replicas=6)) == ["w-0", "w-1"]


# The verdict.


def test_idle_victims_may_go() -> None:
    """Allowed, with the pods that leave in the audit event."""
    said = verdict(plan(pods(8), 6))
    assert (said.allowed, said.reason, said.warnings) == (True, "Drained", ())
    assert said.message == "From 8 to 6 replicas these go, with nothing left to do: w-0, w-1."
    assert dict(said.audit) == {"round": "8to6-g2", "victims": "w-0, w-1"}


def test_nobody_to_go_is_allowed() -> None:
    """The pods are not there yet."""
    assert verdict(plan(pods(5), 6, from_replicas=8)).message == "From 8 to 6 replicas no pod has to go."


def test_busy_victims_are_waited_for() -> None:
    """The refusal names workers, tasks, how long they have run, and what to do."""
    busy = {
        "w-0": [task("reports.build", 200), task("mail.send", 5, id="77aa"), task("mail.send", 4, id="8")],
        "w-1": [task("heavy.crunch", 90_000)],
    }
    said = verdict(plan(pods(2), 0, busy=busy))
    assert (said.allowed, said.reason, said.code, said.warnings) == (False, "Busy", 403, ())
    assert said.message == (
        "Waiting for 2 of the 2 workers to go: w-0 runs reports.build (3f2a91bc), since 2027-01-15T07:56:40Z;"
        " mail.send (77aa), since 2027-01-15T07:59:55Z and 1 more | w-1 runs heavy.crunch (3f2a91bc), since"
        " 2027-01-14T07:00:00Z. They take no new tasks and finish what they have; ask again later, as a"
        " HorizontalPodAutoscaler does by itself."
    )
    assert said.audit["busy"] == "w-0, w-1"


def test_a_prefetched_task_is_waited_for() -> None:
    """A cancelled worker still runs it."""
    waiting = fleet(worker("w-0", reserved=(task(running_s=None),)))
    said = verdict(plan(pods(1), 0, fleet=waiting))
    assert said.reason == "Busy"
    assert "w-0 runs reports.build (3f2a91bc), not started" in said.message


@pytest.mark.parametrize(
    ("crowd", "phrase"),
    [
        ([pod("w-0")], "w-0 did not answer, so its work is unknown"),
        ([unready("w-0")], "w-0 is not ready and did not answer, so its work is unknown"),
    ],
)
def test_a_silent_victim_is_waited_for(crowd: Iterable[Pod], phrase: str) -> None:
    """A container that keeps crashing never answers, and without maxWait nothing ends that: it is said."""
    said = verdict(plan(crowd, 0, silent={"w-0"}))
    assert (said.allowed, said.reason) == (False, "Busy")
    assert phrase in said.message
    assert said.message.endswith(
        "Nothing ends the waiting for one that never answers: look at its pod and delete it if it hangs, or"
        " set drain.maxWait of pool default."
    )


def test_a_silent_victim_goes_with_max_wait() -> None:
    """Which is named only where it is set."""
    said = verdict(plan([pod("w-0")], 0, silent={"w-0"}), maxWait="15m")
    assert said.message.endswith("They go in any case from 2027-01-15T08:15:00Z on (drain.maxWait).")
    assert "Nothing ends the waiting" not in said.message


def test_with_proceed_busy_and_silent_victims_may_go() -> None:
    """kubectl shows who is being cut short."""
    made = plan(pods(2), 0, busy={"w-0": [task()]}, silent={"w-1"})
    said = verdict(made, whenBusy="proceed")
    assert (said.allowed, said.reason) == (True, "Proceeding")
    assert said.warnings == (said.message,)
    assert said.message == (
        "Allowed with work left on 2 of the 2 workers to go, because drain.whenBusy of pool default is"
        " proceed. They have their grace period to end it: w-0 runs reports.build (3f2a91bc), since"
        " 2027-01-15T07:59:00Z | w-1 did not answer, so its work is unknown."
    )


def test_the_waiting_ends_after_max_wait() -> None:
    """Measured from the first mark of the round; until then the refusal says when it will be."""
    busy: dict[str, list[Task]] = {"w-0": [task()]}
    made = plan([marked("w-0", 1, 0, since=NOW - 600)], 0, busy=busy)
    waiting, done = verdict(made, maxWait="15m"), verdict(made, maxWait="10m")
    assert (waiting.reason, done.reason) == ("Busy", "Proceeding")
    assert waiting.message.endswith("They go in any case from 2027-01-15T08:05:00Z on (drain.maxWait).")
    assert (
        "because they have been waited for since 2027-01-15T07:50:00Z, longer than the drain.maxWait of pool"
        " default."
    ) in done.message


def test_no_waiting_is_so_long_that_a_protected_task_is_stopped() -> None:
    """maxWait and proceed are about busy workers, not protected ones."""
    made = plan([marked("w-0", 1, 0, since=NOW - 10**6)], 0, busy={"w-0": [task("billing.close")]})
    assert verdict(made, maxWait="1s", whenBusy="proceed").reason == "Protected"


def test_a_dry_run_is_allowed_and_says_what_would_happen() -> None:
    """Nothing is touched, so the victims are only named, each once."""
    made = plan(pods(3), 1, busy={"w-1": [task()], "w-2": [task()]})
    said = decide_dry_run(made, scale_down=scale_down(3, 1), pool=pool(), now=NOW)
    assert (said.allowed, said.reason) == (True, "DryRun")
    assert said.warnings[0].startswith(
        "Dry run: this scale-down would be refused now. Waiting for 1 of the 2"
    )
    assert said_by_the_hook(("of somebody else", *said.warnings)) == said.warnings[0]
    assert said.warnings[1:] == ("To go beside them: w-0 is idle.",)
    assert " ".join(said.warnings).count("w-1 runs") == 1


@pytest.mark.parametrize("busy", [{}, {"w-0": [task()], "w-1": [task()]}], ids=["idle", "busy"])
def test_a_dry_run_whose_message_names_everybody_has_no_second_list(busy: dict[str, list[Task]]) -> None:
    said = decide_dry_run(plan(pods(2), 0, busy=busy), scale_down=scale_down(2, 0), pool=pool(), now=NOW)
    assert said.warnings == (said.message,)
    assert all(said.message.count(name) == 1 for name in names(2))


LATER = NOW + 15


@pytest.mark.parametrize(
    ("to_replicas", "busy", "settings"),
    [
        pytest.param(
            0, {"w-0": [task("mail.send", 3), task()], "w-1": [task(running_s=None)]}, {}, id="busy"
        ),
        pytest.param(0, {"w-0": [task()], "w-1": [task()]}, {"maxWait": "1h"}, id="with an end"),
        pytest.param(0, {"w-0": [task()], "w-1": [task()]}, {"maxWait": "1s"}, id="at its end"),
        pytest.param(1, {"w-0": [task("billing.a")], "w-1": [task("billing.b")]}, {}, id="protected"),
    ],
)
def test_the_same_picture_is_the_same_sentence_15_s_later(
    to_replicas: int, busy: dict[str, list[Task]], settings: dict[str, Any]
) -> None:
    """The HPA asks again, and Kubernetes counts an Event rather than repeat it while its text is the same."""
    crowd = [marked(name, 3, to_replicas, since=NOW - 60) for name in names(2)] + [pod("w-2")]
    first, second = (
        decide(
            plan(crowd, to_replicas, busy=busy, silent={"w-2"}, now=now),
            scale_down=scale_down(3, to_replicas),
            pool=pool(drain=settings),
            now=now,
        )
        for now in (NOW, LATER)
    )
    assert first.message == second.message
    assert "since" in first.message


def test_victims_are_named_in_one_order() -> None:
    """What they cost changes with time, and who is chosen first with it: many tasks overtake a longer one."""
    many = [task("mail.send", 1, id=f"{i:08}") for i in range(9)]
    busy = {"w-0": [task("reports.build", 600)], "w-1": many, "w-2": [task("billing.close")]}
    crowd = [marked("w-0", 3, 1), marked("w-1", 3, 1), pod("w-2")]
    first, second = (plan(crowd, 1, busy=busy, now=now) for now in (NOW, NOW + 6000))
    assert [victim.pod.name for victim in first.victims] != [victim.pod.name for victim in second.victims]
    assert verdict(first).message == verdict(second).message


def test_a_dry_run_of_what_cannot_be_prepared_says_why() -> None:
    """There is nobody to name then."""
    made = plan(pods(1), 0, busy={"w-0": [task("billing.close")]})
    said = decide_dry_run(made, scale_down=scale_down(1, 0), pool=pool(), now=NOW)
    assert said.allowed
    assert len(said.warnings) == 1
    assert "would be refused now. 0 replicas would stop a protected task" in said.warnings[0]


def test_sentences_stay_short_in_a_large_workload() -> None:
    """Five workers are named, and how many there are beyond them."""
    busy = {name: [task()] for name in names(100)}
    said = verdict(plan(pods(100), 0, busy=busy))
    assert said.message.count("reports.build") == 5
    assert "and 95 more" in said.message
    assert len(said.message) < 1024
    assert said.audit["victims"].endswith("and 80 more")


def test_the_name_of_a_task_cannot_break_a_line() -> None:
    """Whoever sends tasks chooses their names, and these go to logs and Events."""
    said = verdict(plan(pods(1), 0, busy={"w-0": [task("evil\nname " + "x" * 500)]}))
    assert "\n" not in said.message
    assert len(said.message) < 400
