"""What counts as occupied, waiting, a worker and a slot."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_adapter.catalogue import METRICS
from metrics_adapter.load import Load, WorkersSilent, check_that_some_answer, divide, loads
from tests.metrics_adapter.builders import (
    NOW,
    load,
    pod,
    pool,
    reading,
    starting_pod,
    tasks,
    worker,
)


def value(of: Load, name: str) -> float:
    (sample,) = METRICS[name].samples((of,))
    return sample.milli / 1000


def test_demand_is_what_runs_and_what_waits() -> None:
    """Demand: active tasks, prefetched ones, and those in the queues."""
    busy = load([pod("w-0"), pod("w-1")], [worker("w-0", 3, reserved=2), worker("w-1", 1)], waiting=5)
    assert (value(busy, "celery_active_tasks"), value(busy, "celery_waiting_tasks")) == (4, 7)
    assert busy.demand == 11
    assert (value(busy, "celery_workers"), value(busy, "celery_slots")) == (2, 16)


def test_a_task_held_for_its_eta_is_no_demand() -> None:
    held = load([pod()], [worker(eta=tasks(4))])
    assert held.demand == 0


def test_a_silent_worker_that_answered_before_is_fully_occupied() -> None:
    """Unknown is never idle."""
    pods = [pod("w-0"), pod("w-1")]
    before = reading(pods, [worker("w-0", slots=4), worker("w-1", slots=4)])
    now = load(pods, [worker("w-1", slots=4)], last=before)
    assert now.demand == 4
    assert now.reading.silent == ("celery@w-0",)
    assert (value(now, "celery_workers"), value(now, "celery_slots")) == (2, 8)
    assert value(now, "celery_active_tasks") == 4


def test_it_stays_unknown_for_as_long_as_it_is_silent() -> None:
    pods = [pod("w-0"), pod("w-1")]
    before = reading(pods, [worker("w-0", slots=3), worker("w-1")])
    later = reading(pods, [worker("w-1")], last=before)
    assert load(pods, [worker("w-1")], last=later).demand == 3


def test_another_pod_of_the_same_name_is_another_worker() -> None:
    """Its uid is another one, so nothing is remembered of it."""
    before = reading([pod("w-0"), pod("w-1")], [worker("w-0"), worker("w-1")])
    now = load([starting_pod("w-0", uid="new"), pod("w-1")], [worker("w-1")], last=before)
    assert now.demand == 0


def test_a_starting_worker_has_slots_and_no_tasks() -> None:
    """Before its first answer slotsPerWorker is believed; it takes no share of a queue yet."""
    starting = load([starting_pod()], waiting=4)
    assert starting.demand == 4
    assert value(starting, "celery_load_factor") == 0.5
    assert (value(starting, "celery_workers"), value(starting, "celery_slots")) == (0, 0)
    assert starting.reading.taking_slots == 0


def test_a_worker_that_never_answers_is_not_starting_for_ever() -> None:
    """A solo worker is silent for as long as its task runs, and our memory ends with our process."""
    now = load([pod("w-0"), pod("w-1")], [worker("w-1")])
    assert now.demand == 8
    assert now.reading.silent == ("celery@w-0",)


def test_a_pod_that_is_not_ready_may_start_for_as_long_as_it_likes() -> None:
    now = load([pod("w-0", is_ready=False, ready_since=None), pod("w-1")], [worker("w-1")])
    assert (now.demand, now.reading.silent) == (0, ())


def test_silence_of_all_says_nothing() -> None:
    """Where every worker that should answer is silent the refresh has failed; nothing is made up."""
    pods = [pod("w-0"), pod("w-1")]
    before = reading(pods, [worker("w-0"), worker("w-1")])
    with pytest.raises(WorkersSilent, match="worker_enable_remote_control"):
        check_that_some_answer(reading(pods, last=before))


def test_a_starting_worker_does_not_make_up_for_silent_ones() -> None:
    before = reading([pod("w-0")], [worker("w-0")])
    with pytest.raises(WorkersSilent, match="celery@w-0"):
        check_that_some_answer(reading([pod("w-0"), starting_pod("w-1")], last=before))


def test_silence_of_solo_workers_means_that_they_are_busy() -> None:
    """The solo pool answers nothing while it runs a task: all of them busy must not freeze the pool."""
    before = reading([pod()], [worker(slots=1, pool="solo")])
    now = load([pod()], last=before, waiting=3)
    check_that_some_answer(now.reading)
    assert now.demand == 4


def test_no_workers_at_all_is_no_silence() -> None:
    """A pool scaled to zero has a demand: that is how it wakes up."""
    empty = load(waiting=9)
    assert (empty.demand, value(empty, "celery_load_factor"), value(empty, "celery_desired_workers")) == (
        9,
        1.125,
        2,
    )


def test_a_protected_task_occupies_the_whole_worker() -> None:
    of = pool(labels=[{"task": "billing.*", "protect": True}])
    protected = load([pod()], [worker(active=tasks(1, name="billing.close"))], of=of)
    assert protected.demand == 8
    assert value(protected, "celery_active_tasks") == 1


def test_a_protected_task_that_is_only_prefetched_protects_too() -> None:
    of = pool(labels=[{"task": "billing.*", "protect": True}])
    held = load([pod()], [worker(reserved=tasks(1, name="billing.x"))], of=of)
    assert held.demand == 9


def test_a_marked_worker_is_out_of_the_demand() -> None:
    """Its tasks would ask back the replica that is leaving."""
    marked = load(
        [pod("w-0", is_draining=True), pod("w-1")], [worker("w-0", 5, reserved=1), worker("w-1", 2)]
    )
    assert (marked.demand, value(marked, "celery_active_tasks")) == (2, 2)
    assert (value(marked, "celery_workers"), value(marked, "celery_slots")) == (2, 16)


def test_a_terminating_worker_is_out_of_the_demand_but_multiplied_by() -> None:
    """An HPA with a Value target multiplies by every ready pod, terminating ones too."""
    pods = [pod("w-0", is_terminating=True), pod("w-1")]
    before = reading([*pods[1:], pod("w-0")], [worker("w-0", 5), worker("w-1", 8)])
    leaving = load(pods, [worker("w-1", 8)], last=before)
    assert leaving.demand == 8
    assert value(leaving, "celery_load_factor") == 0.5
    assert value(leaving, "celery_workers") == 1
    assert leaving.reading.silent == ()


def test_a_finished_pod_is_no_worker() -> None:
    assert load([pod(phase="Failed", is_ready=False)]).reading.members == ()


def test_a_shared_queue_is_divided_by_slots() -> None:
    small, large = pool("small", queues=["shared"]), pool("large", queues=["shared", "own"])
    measured = loads(
        [
            reading([pod("w-0")], [worker("w-0", slots=2)], of=small, waiting=9),
            reading([pod("w-1")], [worker("w-1", slots=6)], of=large, waiting={"shared": 9, "own": 1}),
        ]
    )
    assert {key[1]: each.queued for key, each in measured.items()} == {"small": 2, "large": 8}


def test_of_a_shared_queue_the_latest_length_counts() -> None:
    """Pools are refreshed at different moments; shares of two lengths would not add up to either."""
    one, two = pool("one", queues=["shared"]), pool("two", queues=["shared"])
    measured = loads(
        [reading(of=one, waiting=100), reading(of=two, waiting=7, measured_at=NOW + 1)],
    )
    assert sorted(each.queued for each in measured.values()) == [3, 4]


def test_queues_of_the_same_name_on_two_brokers_are_two_queues() -> None:
    one, two = pool("one", queues=["q"]), pool("two", queues=["q"])
    measured = loads([reading(of=one, waiting=4), reading(of=two, waiting=6, broker="b2")])
    assert [each.queued for each in measured.values()] == [4, 6]


def test_a_draining_worker_takes_no_share() -> None:
    one, two = pool("one", queues=["q"]), pool("two", queues=["q"])
    measured = loads(
        [
            reading([pod("w-0", is_draining=True)], [worker("w-0")], of=one, waiting=4),
            reading([pod("w-1")], [worker("w-1")], of=two, waiting=4),
        ]
    )
    assert [each.queued for each in measured.values()] == [0, 4]


@given(
    length=st.integers(0, 10**7),
    shares=st.dictionaries(
        st.tuples(st.sampled_from("ab"), st.text("xyz", min_size=1, max_size=3)),
        st.integers(0, 5000),
        min_size=1,
        max_size=8,
    ),
)
def test_shares_add_up(length: int, shares: dict[tuple[str, str], int]) -> None:
    """Largest remainder: whole tasks, none lost, none twice, each less than one from its exact share."""
    parts = divide(length, shares)
    assert sum(parts.values()) == length
    total = sum(shares.values()) or len(shares)
    for key, part in parts.items():
        weight = shares[key] if any(shares.values()) else 1
        assert abs(part - length * weight / total) < 1
