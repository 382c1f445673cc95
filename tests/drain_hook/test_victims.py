"""Kubernetes' choice of pods, against recordings of a real control plane and a slow second opinion."""

import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from fractions import Fraction
from math import log2
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.sandbox.controllers.rollouts import Deployed, Sized, Strategy, next_step
from drain_hook.victims import deletion_order, is_rollout, removals
from shared.pods import INT32_MAX, INT32_MIN, Pod, ReplicaSet
from tests.drain_hook.builders import NOW, pending, pod, replica_set, unready, workload

RECORDINGS = Path("tests/recordings/kubernetes")


def recorded(name: str) -> Any:
    return json.loads((RECORDINGS / f"{name}.json").read_text())


def first(pods: list[Pod], count: int) -> list[str]:
    """Names of those that go when `count` pods have to."""
    return [p.name for p in deletion_order(pods, now=NOW)[:count]]


def test_a_negative_cost_on_the_victims_is_enough() -> None:
    """Recorded: of ten pods the four with a cost go, and nobody else needs an annotation."""
    recording = recorded("d1_negative_cost_victims")
    costs = dict(recording["victims_with_cost"])
    pods = [pod(name, cost_annotation=str(cost)) for name, cost in costs.items()]
    pods += [pod(f"other-{index}") for index in range(6)]
    assert set(first(pods, 4)) == {deleted["pod"] for deleted in recording["deleted_in_order"]}


def test_pods_that_do_no_work_go_first_whatever_their_cost() -> None:
    """Recorded: unscheduled, then Pending, then unready pods of the highest cost, then the lowest cost."""
    recording = recorded("d2_order_unscheduled_pending_unready_cost")
    most, least = str(INT32_MAX), str(INT32_MIN)
    kinds: dict[str, Callable[[str], Pod]] = {
        "unscheduled(cost max)": lambda n: pending(n, cost_annotation=most),
        "Pending(cost max)": lambda n: unready(n, phase="Pending", cost_annotation=most),
        "unready(cost max)": lambda n: unready(n, cost_annotation=most),
        "ready(cost min)": lambda n: pod(n, cost_annotation=least),
        "ready(no cost)": pod,
    }
    deleted = [kind for step in recording["steps"] for kind in step["deleted"]]
    left = [kind for kind, _ in recording["left"]]
    pods = [kinds[kind](f"{kind} {index}") for index, kind in enumerate(reversed(deleted + left))]
    order = [name.rpartition(" ")[0] for name in first(pods, len(pods))]
    assert order == deleted + left


def test_without_costs_the_newest_go_first() -> None:
    """Recorded: of four pods and four that are twenty seconds younger, three of the younger go."""
    assert recorded("d7_no_cost_newest_first")["deleted_are_new"] == [True, True, True]
    old = [pod(f"old-{n}", ready_since=NOW - 25, created_at=NOW - 26) for n in range(4)]
    new = [pod(f"new-{n}", ready_since=NOW - 4, created_at=NOW - 5) for n in range(4)]
    assert all(name.startswith("new") for name in first(old + new, 3))


@pytest.mark.parametrize("text", [None, "", "abc", "+5", "99999999999"])
def test_a_missing_or_invalid_cost_is_zero(text: str | None) -> None:
    """Recorded: three pods cost 10, and the one without goes."""
    assert recorded("d8_missing_is_zero")["ok"]
    pods = [pod(f"w-{n}", cost_annotation="10") for n in range(3)]
    assert first([*pods, pod("cheap", cost_annotation=text)], 1) == ["cheap"]


def test_of_equal_costs_the_one_on_a_crowded_host_goes() -> None:
    """Pods of the workload's other ReplicaSets count as company, terminating ones do not."""
    alone, together = pod("alone", host="a"), pod("together", host="b")
    others = [pod("x", host="b", owner_uid="rs-2"), *(pod(n, host="a", is_terminating=True) for n in "yz")]
    order = deletion_order([alone, together], related=[alone, together, *others], now=NOW)
    assert [p.name for p in order] == ["together", "alone"]


def test_of_equal_ages_the_one_that_was_restarted_goes() -> None:
    """More restarts, if both have been ready since the same second."""
    assert first([pod("calm"), pod("restless", restarts=3)], 1) == ["restless"]


def test_ages_are_compared_by_powers_of_two() -> None:
    """Between 2**32 and 2**33 ns (4.3 and 8.6 s) all ages are alike, and the uid decides."""
    older, younger = pod("a", ready_since=NOW - 8), pod("b", ready_since=NOW - 5)
    assert first([older, younger], 1) == ["a"]
    assert first([pod("a", ready_since=NOW - 9), younger], 1) == ["b"]


def test_pods_that_are_gone_already_are_not_in_the_order() -> None:
    """Terminating and finished pods are no longer counted by a ReplicaSet."""
    gone = [pod("t", is_terminating=True), pod("s", phase="Succeeded"), pod("f", phase="Failed")]
    assert first([*gone, pod("w")], 4) == ["w"]


TIMES = st.integers(1, 10**6)


@st.composite
def crowds(draw: st.DrawFn) -> list[Pod]:
    """Pods with no two of one age: of equal ages Kubernetes' own order is no order."""
    ready = draw(st.lists(TIMES, min_size=1, max_size=12, unique=True))
    created = draw(st.permutations(range(len(ready))))
    return [
        pod(
            f"w-{index}",
            host=draw(st.sampled_from(["", "a", "b", "c"])),
            phase=draw(st.sampled_from(["Pending", "Unknown", "Running"])),
            is_ready=draw(st.booleans()),
            ready_since=NOW - ready[index],
            created_at=NOW - 2 * 10**6 - created[index] * 10**5,
            restarts=draw(st.integers(0, 2)),
            cost_annotation=draw(st.sampled_from([None, "-1", "0", "5", str(INT32_MIN)])),
        )
        for index in range(len(ready))
    ]


def goes_before(one: Pod, other: Pod, everyone: list[Pod]) -> bool:
    """Kubernetes' eight criteria, one after the other, as its source has them."""
    phases = ["Pending", "Unknown", "Running"]
    if (one.host == "") != (other.host == ""):
        return one.host == ""
    if one.phase != other.phase:
        return phases.index(one.phase) < phases.index(other.phase)
    if one.is_ready != other.is_ready:
        return not one.is_ready
    if one.deletion_cost != other.deletion_cost:
        return one.deletion_cost < other.deletion_cost
    hosts = [p.host for p in everyone]
    if hosts.count(one.host) != hosts.count(other.host):
        return hosts.count(one.host) > hosts.count(other.host)
    if one.is_ready:
        return younger(one, other, one.ready_since, other.ready_since)
    if one.restarts != other.restarts:
        return one.restarts > other.restarts
    return younger(one, other, one.created_at, other.created_at)


def younger(one: Pod, other: Pod, since: float | None, other_since: float | None) -> bool:
    assert since is not None
    assert other_since is not None
    ages = int(log2((NOW - since) * 1e9)), int(log2((NOW - other_since) * 1e9))
    return one.uid < other.uid if ages[0] == ages[1] else ages[0] < ages[1]


@given(pods=crowds())
def test_the_order_agrees_with_a_second_opinion(pods: list[Pod]) -> None:
    """Nobody stands behind a pod that goes after it."""
    order = deletion_order(pods, now=NOW)
    assert Counter(order) == Counter(pods)
    assert not [
        (one.name, other.name)
        for index, one in enumerate(order)
        for other in order[index + 1 :]
        if goes_before(other, one, pods)
    ]


# How many pods each ReplicaSet loses.


def members(uid: str, count: int, ready: int | None = None) -> list[Pod]:
    """Pods of a ReplicaSet, the first of them ready."""
    ready = count if ready is None else ready
    return [
        (pod if index < ready else unready)(f"{uid}-{index}", owner_uid=uid, uid=f"{uid}-{index}")
        for index in range(count)
    ]


def split(sizes: dict[str, int], replicas: int, to: int) -> dict[str, int]:
    """What ReplicaSets of these sizes lose; the last is the newest, and the surge is 25 %."""
    sets = [
        replica_set(
            uid,
            size,
            revision=n,
            created_at=float(n),
            desired_replicas=replicas,
            max_replicas=replicas + -(-replicas // 4),
        )
        for n, (uid, size) in enumerate(sizes.items())
    ]
    pods = [p for uid, size in sizes.items() for p in members(uid, size)]
    return dict(removals(workload(replicas=replicas), sets, pods, to_replicas=to))


def test_all_go_from_the_only_replica_set() -> None:
    """The usual case; an old ReplicaSet without replicas changes nothing."""
    assert split({"old": 0, "new": 8}, 8, 5) == {"old": 0, "new": 3}
    assert split({"new": 8}, 8, 0) == {"new": 8}


def test_missing_pods_do_not_have_to_go() -> None:
    """Active pods minus the new size, not old minus new: three of ten are not there yet."""
    sets, pods = [replica_set(replicas=10)], [pod(f"w-{n}") for n in range(7)]
    assert removals(workload(replicas=10), sets, pods, to_replicas=8) == {"rs-1": 0}
    assert removals(workload(replicas=10), sets, pods, to_replicas=5) == {"rs-1": 2}


def test_pods_that_terminate_or_are_finished_do_not_count() -> None:
    """They are on their way already."""
    pods = [*(pod(f"w-{n}") for n in range(4)), pod("t", is_terminating=True), pod("f", phase="Failed")]
    assert removals(workload(replicas=4), [replica_set(replicas=4)], pods, to_replicas=3) == {"rs-1": 1}


def test_a_deletion_that_has_not_happened_yet_is_counted_too() -> None:
    """Scaled from 8 to 6 a moment ago and now to 5: eight pods are there, and three have to go."""
    pods = [pod(f"w-{n}") for n in range(8)]
    assert removals(workload(replicas=6), [replica_set(replicas=8)], pods, to_replicas=5) == {"rs-1": 3}


@pytest.mark.parametrize(
    ("before", "replicas", "to", "lost"),
    [((8, 5), 10, 8, (2, 1)), ((8, 2), 10, 8, (0, 0)), ((15, 10), 20, 10, (7, 5)), ((15, 5), 20, 10, (7, 0))],
)
def test_a_scale_down_amid_a_rollout_takes_from_both(
    before: tuple[int, int], replicas: int, to: int, lost: tuple[int, int]
) -> None:
    """In proportion, counted from replicas plus surge: two replicas less can mean three pods or none."""
    expected = dict(zip(("old", "new"), lost, strict=True))
    assert split(dict(zip(("old", "new"), before, strict=True)), replicas, to) == expected


CASES = recorded("e1_scale_down_during_rolling_update")["cases"]
# In these two the rollout goes on at once and trims the old ReplicaSet, or there is nothing to remove.
STEADY = sorted(CASES.keys() - {"half_surge50_unavail0", "stuck_scale_up"})


def recorded_sets(case: dict[str, Any]) -> tuple[list[ReplicaSet], list[Pod]]:
    """ReplicaSets and pods as they were before the scale-down."""
    sets = [
        replica_set(
            rs["name"],
            rs["spec"],
            revision=int(rs["rev"]),
            created_at=float(rs["rev"]),
            desired_replicas=int(rs["desired_ann"]),
            max_replicas=int(rs["max_ann"]),
        )
        for rs in case["before"]
    ]
    return sets, [p for rs in case["before"] for p in members(rs["name"], rs["status"], rs["ready"])]


def fences(case: dict[str, Any]) -> dict[str, str]:
    """A recorded strategy, as a Workload has it."""
    rolling = case["strategy"].get("rollingUpdate", {})
    return {
        "strategy": case["strategy"]["type"],
        "max_surge": str(rolling.get("maxSurge", "25%")),
    }


@pytest.mark.parametrize("name", STEADY)
def test_the_recorded_splits_are_foreseen(name: str) -> None:
    """What was left of each ReplicaSet on a real control plane is what we expect to be left."""
    case = CASES[name]
    sets, pods = recorded_sets(case)
    lost = removals(workload(replicas=case["replicas"], **fences(case)), sets, pods, to_replicas=case["to"])
    left = {rs.uid: rs.replicas - lost[rs.uid] for rs in sets}
    assert left == {rs["name"]: rs["spec"] for rs in case["after"]}


def test_the_recorded_split_is_foreseen_before_the_rollout_goes_on() -> None:
    """Half done: the new ReplicaSet went from 8 to 5 at once; one more step of the rollout made it 6."""
    case = CASES["half_surge50_unavail0"]
    sets, pods = recorded_sets(case)
    lost = removals(workload(replicas=case["replicas"], **fences(case)), sets, pods, to_replicas=case["to"])
    assert [rs.replicas - lost[rs.uid] for rs in sets] == [4, case["after_scale"][0]["rs"][1][1]]


def test_costs_do_not_move_pods_between_replica_sets() -> None:
    """Recorded: the lowest costs on all new pods, the highest on all old ones, and the same split."""
    case = recorded("e2_costs_do_not_move_pods_between_replicasets")
    sets, pods = recorded_sets(case)
    lost = removals(workload(replicas=8), sets, pods, to_replicas=4)
    assert {rs.uid: rs.replicas - lost[rs.uid] for rs in sets} == {
        rs["name"]: rs["spec"] for rs in case["after"]
    }


def test_without_a_note_of_the_former_size_the_status_counts() -> None:
    """The annotation max-replicas can be missing; with nothing known the largest ReplicaSet takes it all."""
    sets = [replica_set("old", 8, revision=1), replica_set("new", 5, revision=2)]
    pods = [*members("old", 8), *members("new", 5)]
    by_status = removals(workload(replicas=10, status_replicas=13), sets, pods, to_replicas=5)
    unknown = removals(workload(replicas=10, status_replicas=0), sets, pods, to_replicas=5)
    assert (by_status, unknown) == ({"old": 4, "new": 2}, {"old": 6, "new": 0})


def test_an_old_replica_set_goes_as_a_whole_when_the_new_one_is_complete() -> None:
    """All pods of the new template are there and ready at the size asked for."""
    sets = [replica_set("old", 3, revision=1), replica_set("new", 5, revision=2, desired_replicas=5)]
    pods = [*members("old", 3), *members("new", 5)]
    assert removals(workload(), sets, pods, to_replicas=5) == {"old": 3, "new": 0}


def test_no_replica_sets_lose_nothing() -> None:
    """A Deployment that has just been made."""
    assert removals(workload(), [], [], to_replicas=3) == {}


@given(
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=4),
    to=st.integers(0, 40),
    surge=st.sampled_from(["25%", "0", "3", "100%", "33%"]),
    noted=st.none() | st.integers(1, 60),
)
def test_the_split_agrees_with_the_sandbox(sizes: list[int], to: int, surge: str, noted: int | None) -> None:
    """The sandbox's Deployment controller was written by itself; both must foresee the same sizes."""
    live = workload(replicas=sum(sizes), max_surge=surge, status_replicas=sum(sizes))
    sets = [
        replica_set(f"rs-{n}", size, revision=n, created_at=float(n), desired_replicas=99, max_replicas=noted)
        for n, size in enumerate(sizes)
    ]
    lost = removals(live, sets, [p for rs in sets for p in members(rs.uid, rs.replicas)], to_replicas=to)
    *old, new = [
        Sized(
            name=rs.uid,
            created_at=datetime.fromtimestamp(rs.created_at, UTC),
            replicas=rs.replicas,
            desired_annotation=99,
            max_annotation=noted,
        )
        for rs in sets
    ]
    strategy = Strategy(max_surge=surge if surge.endswith("%") else int(surge))
    emulated = next_step(
        Deployed(replicas=to, strategy=strategy, new=new, old=tuple(old), status_replicas=sum(sizes))
    ).sizes
    assert lost == {rs.uid: max(0, rs.replicas - emulated.get(rs.uid, rs.replicas)) for rs in sets}


@given(sizes=st.lists(st.integers(1, 20), min_size=1, max_size=3), to=st.integers(0, 20))
def test_no_replica_set_loses_more_than_it_has(sizes: list[int], to: int) -> None:
    """And all that is beyond replicas plus surge goes."""
    lost = split({f"rs-{n}": size for n, size in enumerate(sizes)}, sum(sizes), to)
    assert all(0 <= lost[f"rs-{n}"] <= size for n, size in enumerate(sizes))
    allowed = to if len(sizes) == 1 or to == 0 else to + -(-Fraction(to, 4) // 1)
    assert sum(lost.values()) >= sum(sizes) - allowed


# Whether a rollout is in progress.


@pytest.mark.parametrize(
    ("sets", "pods", "fields", "expected"),
    [
        ([replica_set("old", 0), replica_set("new", 8)], members("new", 8), {}, False),
        ([replica_set("old", 2), replica_set("new", 8)], members("new", 8), {}, True),
        ([replica_set("old", 0), replica_set("new", 8)], members("new", 8) + members("old", 1), {}, True),
        ([replica_set("new", 8)], members("new", 8), {"observed_generation": 2}, True),
    ],
    ids=["settled", "old one wanted", "old pod left", "last change not seen"],
)
def test_a_rollout_is_two_replica_sets_in_use_or_a_change_not_yet_seen(
    sets: list[ReplicaSet], pods: list[Pod], fields: dict[str, int], expected: bool
) -> None:
    """Then a scale-down is split in ways that can change under our hands."""
    assert is_rollout(workload(**fields), sets, pods) is expected


def test_old_pods_that_are_terminating_are_no_rollout() -> None:
    """They may take hours to finish their tasks."""
    old = [pod("old-0", owner_uid="old", is_terminating=True)]
    assert not is_rollout(workload(), [replica_set("old", 0), replica_set("new", 8)], members("new", 8) + old)
