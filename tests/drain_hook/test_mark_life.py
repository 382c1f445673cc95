"""When a mark ends: a pure rule of the mark, its pod and the workload."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drain_hook.mark_life import Ending, ending_of, is_deletion_pending, is_outdated, was_drained
from drain_hook.plans import Victim
from shared.pods import Pod, WorkloadState
from tests.drain_hook.builders import NOW, mark, marked, names, pod, replica_set, worker, workload

TTL_S = 40.0


def state(
    pods: int = 8,
    *,
    replicas: int = 8,
    generation: int = 3,
    observed: int | None = None,
    set_replicas: int | None = None,
    passed_on: int | None = None,
    set_generation: int = 2,
) -> WorkloadState:
    """A workload whose controllers have caught up, unless a case says otherwise; marks are of its third."""
    of_set = replicas if set_replicas is None else set_replicas
    return WorkloadState(
        workload=workload(
            replicas=replicas,
            generation=generation,
            observed_generation=generation if observed is None else observed,
        ),
        replica_sets=(
            replica_set(
                replicas=of_set,
                desired_replicas=of_set if passed_on is None else passed_on,
                generation=set_generation,
            ),
        ),
        pods=tuple(map(pod, names(pods))),
    )


def ending(victim: Pod, of: WorkloadState, *, now: float = NOW) -> Ending | None:
    return ending_of(victim, of, now=now, ttl_s=TTL_S)


def test_a_refused_round_lives_as_long_as_it_is_asked_for() -> None:
    victim = marked("w-0", asked_at=NOW)
    assert ending(victim, state(), now=NOW + TTL_S) is None
    assert ending(victim, state(), now=NOW + TTL_S + 1) is Ending.FORGOTTEN


def test_a_record_from_the_far_future_is_not_believed() -> None:
    """A clock may be ahead by some minutes; a record that somebody edited must not live for ever."""
    assert ending(marked("w-0", asked_at=NOW + 60), state()) is None
    assert ending(marked("w-0", asked_at=NOW + 1e9), state()) is Ending.FORGOTTEN


def test_an_unmarked_pod_has_nothing_to_end() -> None:
    assert ending(pod("w-0"), state()) is None


def test_a_pod_that_goes_keeps_its_mark() -> None:
    """Whatever else is true of it: nothing is to be given back any more."""
    victim = replace(marked("w-0", asked_at=NOW - 3600), is_terminating=True)
    assert ending(victim, state(9, replicas=9, generation=4)) is None


@pytest.mark.parametrize(
    "after",
    [
        {"observed": 3, "set_replicas": 8, "passed_on": 8},
        {"set_replicas": 8, "passed_on": 8},
        {},
    ],
    ids=["not seen by the Deployment controller", "not passed on", "not done by the ReplicaSet controller"],
)
def test_a_scale_down_that_was_let_through_is_waited_for(after: dict[str, Any]) -> None:
    """However long the controllers take: a mark that is taken back too early kills a busy worker."""
    victim = marked("w-0", asked_at=NOW - 3600)
    assert ending(victim, state(8, replicas=6, generation=4, **after)) is None


def test_a_survivor_of_a_finished_scale_down_was_mispredicted() -> None:
    """Kubernetes deleted another pod: the marked one must work again."""
    assert ending(marked("w-0"), state(6, replicas=6, generation=4)) is Ending.SPARED


@pytest.mark.parametrize("replicas", [9, 20])
def test_a_workload_that_grows_takes_its_victims_back_at_once(replicas: int) -> None:
    victim = marked("w-0", asked_at=NOW)
    assert ending(victim, state(8, replicas=replicas, generation=4)) is Ending.SCALED_UP


def test_a_workload_that_has_its_old_size_again_takes_its_victims_back_at_once() -> None:
    """8 to 6 was allowed, and 6 to 8 came right after: the ReplicaSet has seen both."""
    victim = marked("w-0", asked_at=NOW)
    assert ending(victim, state(8, replicas=8, generation=5, set_generation=4)) is Ending.SCALED_UP


def test_a_workload_that_was_annotated_still_has_its_round() -> None:
    """Kubernetes raises a Deployment's generation for that too; its ReplicaSet's it does not."""
    victim, annotated = marked("w-0", asked_at=NOW), state(8, generation=7)
    assert ending(victim, annotated) is None
    assert ending(victim, annotated, now=NOW + TTL_S + 1) is Ending.FORGOTTEN


def test_marks_of_another_workload_end() -> None:
    """A Deployment of the same name that was made anew has another uid."""
    assert ending(marked("w-0", workload_uid="before"), state()) is Ending.FOREIGN


def test_a_copied_record_is_no_mark() -> None:
    """As from a pod's manifest that somebody turned into a template."""
    assert ending(pod("w-0", has_mark_annotation=True), state()) is Ending.COPIED


def test_a_view_of_the_workload_older_than_the_mark_ends_nothing() -> None:
    """The round read the workload live; our cache will catch up."""
    assert ending(marked("w-0", asked_at=NOW), state(generation=2)) is None


def test_surplus_pods_of_a_rollout_are_no_pending_deletion() -> None:
    """They are there by right, as maxSurge says; waiting for them could take as long as a stuck rollout."""
    old, new = (
        replica_set("rs-1", 6, desired_replicas=6),
        replica_set("rs-2", 2, desired_replicas=6),
    )
    pods = (*(pod(f"old-{i}") for i in range(6)), *(pod(f"new-{i}", owner_uid="rs-2") for i in range(2)))
    rollout = WorkloadState(workload=workload(replicas=6), replica_sets=(old, new), pods=pods)
    assert not is_deletion_pending(rollout)
    assert is_deletion_pending(replace(rollout, pods=(*pods, pod("old-6"))))


def test_an_annotation_that_the_controller_has_not_seen_is_no_pending_deletion() -> None:
    """Somebody who writes to the workload all the time must not keep a survivor from working."""
    assert ending(marked("w-0"), state(6, replicas=6, generation=9, observed=8)) is Ending.SPARED
    unknown = replace(replica_set(replicas=6), desired_replicas=None)
    assert is_deletion_pending(
        replace(state(6, replicas=6, generation=9, observed=8), replica_sets=(unknown,))
    )


@given(
    replicas=st.integers(0, 12),
    generation=st.integers(1, 5),
    observed=st.integers(1, 5),
    set_generation=st.integers(1, 4),
    pods=st.integers(0, 12),
    asked_s_ago=st.floats(0, 1000),
)
def test_no_mark_outlives_its_round(
    replicas: int, generation: int, observed: int, set_generation: int, pods: int, asked_s_ago: float
) -> None:
    """When nothing is pending and nobody asks, every mark ends, whatever happened."""
    victim = replace(pod("w-0"), mark=mark("w-0", asked_at=NOW - asked_s_ago), has_mark_annotation=True)
    of = state(
        pods,
        replicas=replicas,
        generation=generation,
        observed=min(observed, generation),
        set_generation=set_generation,
    )
    is_alive = ending(victim, of) is None
    is_unscaled = generation <= 3 or (replicas == 8 and set_generation <= 2)
    is_asked_for = is_unscaled and asked_s_ago <= TTL_S
    is_going = generation > 3 and replicas < 8 and is_deletion_pending(of)
    assert is_alive == (is_asked_for or is_going)


def victim_of(pod_: Pod, **worker_fields: Any) -> Victim:
    return Victim(
        pod=pod_,
        node=f"celery@{pod_.name}",
        worker=worker(pod_.name, **worker_fields),
        is_silent=False,
        is_forced=False,
        cost=-1,
        queues=("default",),
    )


@pytest.mark.parametrize(
    ("of_pod", "pool", "is_drained"),
    [
        (pod("w-0"), "prefork", False),
        (marked("w-0", asked_at=NOW), "prefork", True),
        (marked("w-0", workload_uid="before"), "prefork", False),
        (marked("w-0", asked_at=NOW - 1), "gevent", False),
        (marked("w-0", asked_at=NOW - 15), "gevent", True),
    ],
    ids=["unmarked", "marked", "by another workload", "green and just now", "green and settled"],
)
def test_victims_of_an_earlier_review_need_no_second_cancel(of_pod: Pod, pool: str, is_drained: bool) -> None:
    """They are looked at; only a green worker may still be about to take one more message."""
    assert was_drained(victim_of(of_pod, pool=pool), workload(), now=NOW, settle_s=2.5) is is_drained


@pytest.mark.parametrize(
    ("change", "is_replaced"),
    [
        ({}, False),
        ({"asked_at": NOW - 5}, False),
        ({"asked_at": NOW - 11}, True),
        ({"to_replicas": 5}, True),
        ({"generation": 2}, True),
        ({"queues": ("other",)}, True),
    ],
    ids=["the same", "asked a moment ago", "asked a while ago", "other round", "other generation", "queues"],
)
def test_records_are_written_again_only_when_they_are_outdated(
    change: dict[str, Any], is_replaced: bool
) -> None:
    record = mark("w-0", asked_at=NOW)
    victim = victim_of(marked("w-0", **{"asked_at": NOW, **change}))
    assert is_outdated(victim, record, after_s=10) is is_replaced


def test_a_record_is_written_again_when_its_cost_is_gone() -> None:
    """Somebody else has written another cost, or removed ours."""
    victim = victim_of(replace(marked("w-0", asked_at=NOW), cost_annotation=None))
    assert is_outdated(victim, mark("w-0", asked_at=NOW), after_s=10)
