"""The ReplicaSets that a Deployment makes, and the status it shows."""

from datetime import UTC, datetime, timedelta
from typing import Any

from deploy.sandbox.controllers.deployments import (
    new_replica_set,
    revision_of,
    split_by_template,
    status_of,
    template_hash,
)

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def deployment(size: int = 4, /, image: str = "worker:1", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "worker",
            "namespace": "default",
            "uid": "d-1",
            "generation": 2,
            "annotations": {"team": "data", "deployment.kubernetes.io/revision": "7"},
        },
        "spec": {
            "replicas": size,
            "selector": {"matchLabels": {"app": "worker"}},
            "template": {
                "metadata": {"labels": {"app": "worker"}},
                "spec": {"containers": [{"name": "worker", "image": image}]},
            },
        },
        "status": status,
    }


def with_status(replica_set: dict[str, Any], **status: int) -> dict[str, Any]:
    return {**replica_set, "status": status}


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {one["type"]: (one["status"], one["reason"]) for one in status["conditions"]}


def test_a_replicaset_carries_the_hash_of_its_template_and_the_size_it_was_made_for() -> None:
    """Name, labels and selector by the hash; annotations as kubectl shows them."""
    made = new_replica_set(deployment(10), replicas=3, revision=8)
    digest = template_hash(deployment()["spec"]["template"])
    assert made["metadata"]["name"] == f"worker-{digest}"
    assert made["spec"]["selector"] == {"matchLabels": {"app": "worker", "pod-template-hash": digest}}
    assert made["spec"]["template"]["metadata"]["labels"] == {"app": "worker", "pod-template-hash": digest}
    assert made["metadata"]["annotations"] == {
        "team": "data",
        "deployment.kubernetes.io/revision": "8",
        "deployment.kubernetes.io/desired-replicas": "10",
        "deployment.kubernetes.io/max-replicas": "13",
    }
    assert made["metadata"]["ownerReferences"][0]["uid"] == "d-1"
    assert revision_of(made) == 8


def test_making_a_replicaset_leaves_the_deployment_as_it_was() -> None:
    """The template of the Deployment never gets the hash."""
    source = deployment()
    new_replica_set(source, replicas=1, revision=1)
    assert source == deployment()


def test_replicasets_are_told_apart_by_their_template() -> None:
    """The one of the present template is the new one, whatever its hash label."""
    first = new_replica_set(deployment(image="worker:1"), replicas=4, revision=1)
    second = new_replica_set(deployment(image="worker:2"), replicas=4, revision=2)
    assert split_by_template(deployment(image="worker:2"), [first, second]) == (second, [first])
    assert split_by_template(deployment(image="worker:3"), [first]) == (None, [first])


def test_a_fresh_deployment_is_unavailable_and_progressing() -> None:
    """As kubectl describes it right after creation."""
    made = new_replica_set(deployment(), replicas=4, revision=1)
    status = status_of(deployment(), made, [], now=NOW)
    assert (status["observedGeneration"], status["unavailableReplicas"]) == (2, 4)
    assert conditions(status) == {
        "Available": ("False", "MinimumReplicasUnavailable"),
        "Progressing": ("True", "NewReplicaSetCreated"),
    }


def test_a_complete_deployment_says_so_and_keeps_saying_it_while_scaling() -> None:
    """The last rollout stays successful when only the size changes."""
    made = new_replica_set(deployment(), replicas=4, revision=1)
    full = with_status(made, replicas=4, readyReplicas=4, availableReplicas=4)
    complete = status_of(deployment(), full, [], now=NOW)
    assert conditions(complete) == {
        "Available": ("True", "MinimumReplicasAvailable"),
        "Progressing": ("True", "NewReplicaSetAvailable"),
    }
    assert (complete["replicas"], complete["updatedReplicas"], complete["availableReplicas"]) == (4, 4, 4)
    scaled = status_of(deployment(8, **complete), full, [], now=NOW + timedelta(seconds=5))
    assert conditions(scaled)["Progressing"] == ("True", "NewReplicaSetAvailable")
    assert conditions(scaled)["Available"] == ("False", "MinimumReplicasUnavailable")


def test_transition_times_change_only_with_the_status() -> None:
    """A condition that stays as it is keeps its time, so that nothing is written for nothing."""
    made = new_replica_set(deployment(), replicas=4, revision=1)
    full = with_status(made, replicas=4, readyReplicas=4, availableReplicas=4)
    first = status_of(deployment(), full, [], now=NOW)
    assert status_of(deployment(**first), full, [], now=NOW + timedelta(hours=1)) == first


def test_replicas_of_all_replicasets_are_added_up() -> None:
    """Only those of the present template are updated ones."""
    old = with_status(
        new_replica_set(deployment(image="worker:1"), replicas=3, revision=1),
        replicas=3,
        readyReplicas=3,
        availableReplicas=3,
    )
    new = with_status(
        new_replica_set(deployment(image="worker:2"), replicas=2, revision=2),
        replicas=2,
        terminatingReplicas=1,
    )
    status = status_of(deployment(image="worker:2"), new, [old], now=NOW)
    names = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas")
    assert [status[name] for name in names] == [5, 2, 3, 3, 2]
    assert status["terminatingReplicas"] == 1


def test_a_rollout_without_progress_times_out() -> None:
    """After progressDeadlineSeconds, counted from the last progress."""
    made = new_replica_set(deployment(), replicas=4, revision=1)
    begun = status_of(deployment(), made, [], now=NOW)
    late = status_of(deployment(**begun), made, [], now=NOW + timedelta(seconds=601))
    assert conditions(late)["Progressing"] == ("False", "ProgressDeadlineExceeded")
