"""Kubernetes' choice of pods, against recordings of a real control plane and a slow second opinion."""

import json
from collections import Counter
from collections.abc import Callable
from math import log2
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drain_hook.victims import deletion_order
from shared.pods import INT32_MAX, INT32_MIN, Pod
from tests.drain_hook.builders import NOW, pending, pod, unready

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


def test_restarts_of_sidecars_decide_among_equals() -> None:
    """After those of containers."""
    calm, shaky = pod("calm"), pod("shaky", sidecar_restarts=7)
    assert first([calm, shaky], 1) == ["shaky"]
    assert first([pod("restless", restarts=1), shaky], 1) == ["restless"]


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
            sidecar_restarts=draw(st.integers(0, 2)),
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
    if one.sidecar_restarts != other.sidecar_restarts:
        return one.sidecar_restarts > other.sidecar_restarts
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
