"""The order in which a ReplicaSet gives up pods, criterion by criterion."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.sandbox.controllers.replicasets import (
    Candidate,
    candidate,
    choose_victims,
    parse_deletion_cost,
    status_of,
)

RECORDINGS = Path(__file__).parents[2] / "recordings" / "kubernetes"
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
MAX_COST, MIN_COST = 2**31 - 1, -(2**31)


def pod(name: str, *, ready_s: float | None = 100, age_s: float = 100, **fields: Any) -> Candidate:
    """A running pod that has been ready for `ready_s` seconds; None for one that is not ready."""
    return Candidate(
        **{
            "name": name,
            "uid": name,
            "ready_since": None if ready_s is None else NOW - timedelta(seconds=ready_s),
            "created_at": NOW - timedelta(seconds=age_s),
            **fields,
        }
    )


def victims(*pods: Candidate, desired: int, related: tuple[Candidate, ...] = ()) -> list[str]:
    return [one.name for one in choose_victims(pods, desired=desired, related=related, now=NOW)]


def first_to_go(*pods: Candidate, related: tuple[Candidate, ...] = ()) -> str:
    forward = victims(*pods, desired=len(pods) - 1, related=related)
    assert forward == victims(*reversed(pods), desired=len(pods) - 1, related=related)
    return forward[0]


def test_the_recorded_order_of_one_by_one() -> None:
    """Unscheduled, Pending and unready pods go before any ready one, whatever their cost; then by cost."""
    steps = json.loads((RECORDINGS / "d2_order_unscheduled_pending_unready_cost.json").read_text())["steps"]
    unbound: dict[str, Any] = {"ready_s": None, "phase": "Pending", "deletion_cost": MAX_COST}
    fleet = [
        *(pod(f"unscheduled(cost max){i}", node="", **unbound) for i in range(2)),
        *(pod(f"Pending(cost max){i}", **unbound) for i in range(2)),
        *(pod(f"unready(cost max){i}", ready_s=None, deletion_cost=MAX_COST) for i in range(2)),
        *(pod(f"ready(cost min){i}", deletion_cost=MIN_COST) for i in range(3)),
        *(pod(f"ready(no cost){i}") for i in range(5)),
    ]
    gone = victims(*fleet, desired=5)
    assert [name[:-1] for name in gone] == [name for step in steps for name in step["deleted"]]


def test_unknown_comes_between_pending_and_running() -> None:
    """Pending, then Unknown, then Running."""
    pods = [pod(phase, phase=phase, ready_s=None) for phase in ("Running", "Unknown", "Pending")]
    assert victims(*pods, desired=1) == ["Pending", "Unknown"]


def test_a_negative_cost_on_the_victims_alone_is_enough() -> None:
    """A missing cost is zero."""
    assert first_to_go(pod("a"), pod("b", deletion_cost=-1), pod("c", deletion_cost=10)) == "b"
    assert first_to_go(pod("a"), pod("b", deletion_cost=10)) == "a"


def test_a_crowded_node_gives_up_a_pod_first() -> None:
    """Pods of the whole Deployment are counted, the terminating ones not."""
    a, b = pod("a", node="n1"), pod("b", node="n2")
    crowd = (pod("x", node="n2"), pod("y", node="n1", is_active=False), pod("z", node="n1", is_active=False))
    assert first_to_go(a, b, related=(a, b, *crowd)) == "b"


def test_the_pod_that_became_ready_last_goes_first() -> None:
    """Ages count by powers of two."""
    assert first_to_go(pod("young", ready_s=1), pod("old", ready_s=20)) == "young"


def test_among_pods_of_like_age_the_uid_decides() -> None:
    """70 s and 100 s fall into one power of two of nanoseconds, so the younger one has no precedence."""
    assert first_to_go(pod("a", ready_s=130, uid="1"), pod("b", ready_s=100, uid="2")) == "a"
    assert first_to_go(pod("a", ready_s=130, uid="2"), pod("b", ready_s=100, uid="1")) == "b"


def test_more_restarts_go_first_when_readiness_is_of_the_same_moment() -> None:
    """Criterion 7 is reached only by equal ready times, or by two pods that are not ready."""
    assert first_to_go(pod("calm"), pod("shaky", restarts=3)) == "shaky"
    assert first_to_go(pod("calm", ready_s=None), pod("shaky", ready_s=None, restarts=3)) == "shaky"


def test_restarts_of_sidecars_are_looked_at_after_those_of_containers() -> None:
    """So do the ReplicaSet controllers of late; they are init containers that are restarted always."""
    assert first_to_go(pod("calm"), pod("shaky", sidecar_restarts=3)) == "shaky"
    assert first_to_go(pod("worse", restarts=1), pod("shaky", sidecar_restarts=3)) == "worse"
    source = pod_object(conditions=READY, initContainerStatuses=[{"name": "proxy", "restartCount": 2}])
    assert candidate(source).sidecar_restarts == 0
    source["spec"]["initContainers"] = [{"name": "proxy", "restartPolicy": "Always"}]
    assert candidate(source).sidecar_restarts == 2


def test_the_newer_pod_goes_first_when_all_else_is_equal() -> None:
    """Criterion 8, by powers of two again."""
    assert first_to_go(pod("old", age_s=1000), pod("new", age_s=1)) == "new"


def test_terminating_pods_are_not_counted_again() -> None:
    """A pod that is going already is no victim and no pod to keep."""
    assert victims(pod("a"), pod("b"), pod("gone", is_active=False), desired=1) == ["a"]
    assert victims(pod("a"), pod("gone", is_active=False), desired=1) == []


def test_scaling_to_zero_takes_all_without_sorting() -> None:
    """With nothing to keep, costs have no say."""
    assert victims(pod("dear", deletion_cost=9), pod("cheap", deletion_cost=-9), desired=0) == [
        "dear",
        "cheap",
    ]


@given(
    pods=st.lists(
        st.builds(
            Candidate,
            name=st.just("p"),
            uid=st.uuids().map(str),
            node=st.sampled_from(["", "n1", "n2"]),
            phase=st.sampled_from(["Pending", "Unknown", "Running"]),
            ready_since=st.sampled_from([None, NOW - timedelta(seconds=5), NOW - timedelta(seconds=900)]),
            deletion_cost=st.integers(-2, 2),
            restarts=st.integers(0, 2),
            created_at=st.sampled_from([NOW, NOW - timedelta(seconds=1000)]),
        ),
        max_size=12,
    ),
    desired=st.integers(0, 12),
)
def test_no_pod_that_stays_is_less_ready_or_cheaper_than_one_that_goes(
    pods: list[Candidate], desired: int
) -> None:
    """Scheduled, phase, ready, cost: in this order, and exactly as many as there are too many."""
    gone = choose_victims(pods, desired=desired, related=pods, now=NOW)
    assert len(gone) == max(0, len(pods) - desired)
    phases = ["Pending", "Unknown", "Running"]

    def worth(one: Candidate) -> tuple[bool, int, bool, int]:
        return bool(one.node), phases.index(one.phase), one.ready_since is not None, one.deletion_cost

    stay = [one for one in pods if one not in gone]
    assert desired == 0 or not gone or not stay or max(map(worth, gone)) <= min(map(worth, stay))


@pytest.mark.parametrize("text", ["abc", "1.5", "+5", "007", "", " 1", "1e3", "2147483648", "-2147483649"])
def test_costs_that_kubernetes_refuses_count_as_none(text: str) -> None:
    """Only canonical int32 values are costs."""
    recorded = json.loads((RECORDINGS / "d4_cost_values.json").read_text())["patch_pod"]
    assert recorded[text][0] == 422
    assert parse_deletion_cost(text) == 0


@pytest.mark.parametrize(("text", "cost"), [("-2147483648", MIN_COST), ("2147483647", MAX_COST), ("-0", 0)])
def test_costs_reach_to_both_ends_of_an_int32(text: str, cost: int) -> None:
    """And a missing annotation is zero."""
    assert parse_deletion_cost(text) == cost
    assert parse_deletion_cost(None) == 0


def pod_object(**status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "w-1",
            "uid": "u",
            "labels": {"app": "w"},
            "creationTimestamp": "2026-11-23T11:00:00Z",
        },
        "spec": {"nodeName": "n"},
        "status": {"phase": "Running", **status},
    }


READY = [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-23T11:59:50Z"}]


def test_a_pod_object_is_read_once() -> None:
    """Node, phase, readiness, restarts, cost and whether it is going."""
    source = pod_object(conditions=READY, containerStatuses=[{"restartCount": 1}, {"restartCount": 4}])
    source["metadata"]["annotations"] = {"controller.kubernetes.io/pod-deletion-cost": "-7"}
    one = candidate(source)
    assert (one.node, one.restarts, one.deletion_cost, one.is_active) == ("n", 4, -7, True)
    assert one.ready_since == datetime(2026, 11, 23, 11, 59, 50, tzinfo=UTC)
    source["metadata"]["deletionTimestamp"] = "2026-11-23T11:59:59Z"
    assert not candidate(source).is_active


def test_the_status_counts_active_pods_and_terminating_ones_beside_them() -> None:
    """Available means ready for minReadySeconds."""
    going = pod_object(conditions=READY)
    going["metadata"]["deletionTimestamp"] = "2026-11-23T11:59:59Z"
    replica_set = {
        "metadata": {"generation": 3},
        "spec": {"template": {"metadata": {"labels": {"app": "w"}}}, "minReadySeconds": 60},
    }
    assert status_of(replica_set, [pod_object(conditions=READY), pod_object(), going], now=NOW) == {
        "replicas": 2,
        "fullyLabeledReplicas": 2,
        "readyReplicas": 1,
        "terminatingReplicas": 1,
        "observedGeneration": 3,
    }
