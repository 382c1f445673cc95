"""Pods, ReplicaSets and workloads, read from what a real API server sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.sandbox.controllers.deployments import new_replica_set
from shared.marks import MARK_ANNOTATION, Mark, parse_mark, render_mark
from shared.pods import (
    BYPASS_ANNOTATION,
    DELETION_COST,
    INT32_MAX,
    INT32_MIN,
    Pod,
    answering_nodes,
    celery_node,
    parse_cost,
    parse_time,
    pod_from,
    replica_set_from,
    selector_text,
    state_of,
    workload_from,
)

MARK = Mark(
    round="8to5",
    workload_uid="w",
    pod_uid="p",
    from_replicas=8,
    to_replicas=5,
    generation=3,
    replica_set_generation=2,
    since=1.5,
    asked_at=2.0,
    queues=("default", "größe"),
    cost=-1,
    foreign_cost="7",
)


def pod(**annotations: str) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "worker-1",
            "namespace": "default",
            "uid": "p",
            "creationTimestamp": "2026-11-23T11:03:52Z",
            "annotations": {key.replace("__", "/"): value for key, value in annotations.items()},
            "ownerReferences": [
                {"uid": "somebody", "kind": "ConfigMap"},
                {"uid": "rs", "kind": "ReplicaSet", "controller": True},
            ],
        },
        "spec": {"nodeName": "node-1"},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-23T11:04:00Z"}],
            "containerStatuses": [{"restartCount": 1}, {"restartCount": 4}],
        },
    }


@pytest.mark.parametrize(
    ("text", "cost"),
    [
        ("0", 0),
        ("-0", 0),
        ("17", 17),
        ("-007", -7),
        (str(INT32_MIN), INT32_MIN),
        (str(INT32_MAX), INT32_MAX),
        *((text, 0) for text in (None, "", "abc", "+5", "007", " 1", "1.5", "1e3", "--1", "-", "²", "1\n")),
        (str(INT32_MAX + 1), 0),
    ],
)
def test_a_cost_is_read_as_kubernetes_reads_it(text: str | None, cost: int) -> None:
    """Canonical int32; whatever validation would refuse, and old objects may carry, is 0."""
    assert parse_cost(text) == cost


@given(st.text())
def test_no_text_breaks_the_cost(text: str) -> None:
    assert INT32_MIN <= parse_cost(text) <= INT32_MAX


def test_a_pod_keeps_what_decides_its_fate() -> None:
    read = pod_from(pod(controller__x="y") | {})
    assert (read.owner_uid, read.host, read.phase, read.is_ready) == ("rs", "node-1", "Running", True)
    assert read.ready_since == parse_time("2026-11-23T11:04:00Z")
    assert read.restarts == 4
    assert read.is_active
    assert not read.has_mark_annotation


def test_restarts_of_sidecars_are_counted_by_themselves() -> None:
    """Init containers that are restarted always; what others took to start is over."""
    document = pod()
    document["spec"]["initContainers"] = [
        {"name": "proxy", "restartPolicy": "Always"},
        {"name": "logs", "restartPolicy": "Always"},
        {"name": "migrate"},
    ]
    document["status"]["initContainerStatuses"] = [
        {"name": "proxy", "restartCount": 2},
        {"name": "logs", "restartCount": 5},
        {"name": "migrate", "restartCount": 9},
    ]
    read = pod_from(document)
    assert (read.restarts, read.sidecar_restarts) == (4, 5)


def test_a_pod_that_is_not_bound_yet_is_pending() -> None:
    document = pod()
    document["spec"], document["status"] = {}, {}
    read = pod_from(document)
    assert (read.host, read.phase, read.is_ready, read.ready_since) == ("", "Pending", False, None)


def test_a_finished_or_terminating_pod_is_not_active() -> None:
    """A ReplicaSet does not count it."""
    finished, terminating = pod(), pod()
    finished["status"]["phase"] = "Failed"
    terminating["metadata"]["deletionTimestamp"] = "2026-11-23T11:05:00Z"
    assert not pod_from(finished).is_active
    assert not pod_from(terminating).is_active


def test_a_mark_is_one_only_on_the_pod_it_names() -> None:
    """A record that came from a template or another pod is seen, and is no mark."""
    own = pod()
    own["metadata"]["annotations"] = {MARK_ANNOTATION: render_mark(MARK), DELETION_COST: "-1"}
    assert pod_from(own).mark == MARK
    assert pod_from(own).deletion_cost == -1
    own["metadata"]["uid"] = "another"
    assert pod_from(own).mark is None
    assert pod_from(own).has_mark_annotation


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '{"round": "x"}'])
def test_a_record_that_cannot_be_read_is_no_mark(text: str) -> None:
    assert parse_mark(text) is None


def test_a_record_reads_back_as_it_was_written() -> None:
    assert parse_mark(render_mark(MARK)) == MARK
    assert "foreign_cost" not in json.loads(render_mark(Mark(**{**_fields(MARK), "foreign_cost": None})))


def test_a_workload_from_a_deployment() -> None:
    document = {
        "metadata": {
            "name": "worker",
            "namespace": "default",
            "uid": "u",
            "generation": 4,
            "resourceVersion": "17",
            "annotations": {BYPASS_ANNOTATION: "true"},
        },
        "spec": {
            "selector": {"matchLabels": {"app": "worker"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        },
        "status": {"observedGeneration": 3, "replicas": 2, "updatedReplicas": 1},
    }
    read = workload_from(document)
    assert read.replicas == 1, "spec.replicas defaults to 1 in a Deployment"
    assert (read.max_surge, read.max_unavailable, read.is_bypassed) == ("1", "0", True)
    assert (read.generation, read.observed_generation, read.status_replicas) == (4, 3, 2)


def test_a_replica_set_has_the_template_of_its_deployment() -> None:
    """But for one label of its own; a template that was changed since is another."""
    labels = {"creationTimestamp": None, "labels": {"app": "worker"}}
    template = {"metadata": labels, "spec": {"containers": [{"name": "worker", "image": "worker:1"}]}}
    deployment: dict[str, Any] = {
        "metadata": {"name": "worker", "namespace": "default", "uid": "u"},
        "spec": {"selector": {"matchLabels": {"app": "worker"}}, "template": template},
    }
    owned = new_replica_set(deployment, replicas=1, revision=1)
    owned["metadata"]["uid"] = "r"
    restarted = {**template, "metadata": {**labels, "annotations": {"restartedAt": "now"}}}
    changed = {**deployment, "spec": {**deployment["spec"], "template": restarted}}
    assert workload_from(deployment).template == replica_set_from(owned).template != ""
    assert workload_from(changed).template != replica_set_from(owned).template


def test_when_a_rollout_made_progress_is_read_from_its_condition() -> None:
    """And whether it is paused."""
    progressing = {"type": "Progressing", "status": "False", "lastUpdateTime": "2026-11-23T11:06:34Z"}
    read = workload_from(
        {
            "metadata": {"name": "worker", "namespace": "default", "uid": "u"},
            "spec": {"paused": True},
            "status": {"conditions": [{"type": "Available"}, progressing]},
        }
    )
    assert (read.progressed_at, read.is_paused) == (parse_time("2026-11-23T11:06:34Z"), True)


def test_a_replica_set_tells_what_its_deployment_told_it() -> None:
    annotations = {
        "deployment.kubernetes.io/desired-replicas": "8",
        "deployment.kubernetes.io/max-replicas": "10",
        "deployment.kubernetes.io/revision": "2",
    }
    read = replica_set_from(
        {"metadata": {"name": "r", "uid": "u", "annotations": annotations}, "spec": {"replicas": 0}}
    )
    assert (read.replicas, read.desired_replicas, read.max_replicas, read.revision) == (0, 8, 10, 2)


def test_a_selector_is_written_sorted() -> None:
    """As client-go writes it, so that caches and logs agree."""
    selector = {
        "matchLabels": {"z": "1", "b": "2"},
        "matchExpressions": [
            {"key": "q", "operator": "NotIn", "values": ["2", "1"]},
            {"key": "a", "operator": "Exists"},
            {"key": "n", "operator": "DoesNotExist"},
            {"key": "i", "operator": "In", "values": ["y", "x"]},
        ],
    }
    assert selector_text(selector) == "a,b=2,i in (x,y),!n,q notin (1,2),z=1"


def test_a_worker_is_named_after_its_pod() -> None:
    assert celery_node("worker-1", worker_name="celery@{pod}") == "celery@worker-1"


def test_those_that_cannot_answer_are_not_asked() -> None:
    """One dead name costs the whole time-out; a worker that shuts down answers nothing."""
    pods = [
        Pod(name="w-0", uid="0"),
        Pod(name="w-1", uid="1", is_terminating=True),
        Pod(name="w-2", uid="2", phase="Pending", is_ready=False),
        Pod(name="w-3", uid="3", is_ready=False),
        Pod(name="w-4", uid="4", mark=MARK),
    ]
    assert answering_nodes(pods, worker_name="{pod}@celery") == {"w-0@celery", "w-3@celery", "w-4@celery"}


def _fields(mark: Mark) -> dict[str, Any]:
    return {name: getattr(mark, name) for name in Mark.__slots__}


def owner_document(kind: str, **parts: Any) -> dict[str, Any]:
    """A StatefulSet or CloneSet of four; `parts` are added to its spec or, as `status`, make its status."""
    status = {"observedGeneration": 1, "replicas": 4, **parts.pop("status", {})}
    spec = {"replicas": 4, "selector": {"matchLabels": {"app": "w"}}, **parts}
    metadata = {"name": "w", "namespace": "apps", "uid": "u-1", "generation": 1}
    return {"kind": kind, "metadata": metadata, "spec": spec, "status": status}


TWO_REVISIONS = {"currentRevision": "w-a", "updateRevision": "w-b", "updatedReplicas": 1}


@pytest.mark.parametrize(
    ("kind", "parts", "is_updating"),
    [
        ("StatefulSet", {}, False),
        ("StatefulSet", {"status": TWO_REVISIONS}, True),
        ("StatefulSet", {"status": TWO_REVISIONS, "updateStrategy": {"type": "OnDelete"}}, False),
        (
            "StatefulSet",
            {"status": TWO_REVISIONS, "updateStrategy": {"rollingUpdate": {"partition": 3}}},
            False,
        ),
        (
            "StatefulSet",
            {"status": TWO_REVISIONS, "updateStrategy": {"rollingUpdate": {"partition": 2}}},
            True,
        ),
        ("StatefulSet", {"status": TWO_REVISIONS | {"updatedReplicas": 4}}, False),
        ("CloneSet", {"status": {"currentRevision": "w-a", "updateRevision": "w-a"}}, False),
        ("CloneSet", {"status": TWO_REVISIONS, "updateStrategy": {"partition": 3}}, True),
    ],
)
def test_an_update_is_read_from_the_revisions(kind: str, parts: dict[str, Any], is_updating: bool) -> None:
    """A StatefulSet's that stay by the user's wish are none; in a CloneSet two revisions always matter."""
    assert workload_from(owner_document(kind, **parts), kind=kind).is_updating is is_updating


@pytest.mark.parametrize("kind", ["StatefulSet", "CloneSet"])
def test_a_workload_that_owns_its_pods_stands_for_its_replica_set(kind: str) -> None:
    """Also with a newer state of it: what is planned with must not be of two moments."""
    document = owner_document(kind, ordinals={"start": 2}, minReadySeconds=5)
    workload = workload_from(document, kind=kind)
    assert (workload.first_ordinal, workload.min_ready_s) == (2, 5)
    pods = [Pod(name=f"w-{i}", uid=f"p-{i}", owner_uid=owner) for i, owner in enumerate(("u-1", "u-2"))]
    state = state_of(workload, (), pods, as_of=0.0)
    assert [pod.name for pod in state.pods] == ["w-0"]
    document["spec"]["replicas"], document["metadata"]["generation"] = 1, 2
    (stand_in,) = state.with_workload(workload_from(document, kind=kind)).replica_sets
    assert (stand_in.uid, stand_in.replicas, stand_in.generation) == ("u-1", 1, 2)


@pytest.mark.parametrize(("kind", "counted"), [("StatefulSet", 2), ("CloneSet", 1)])
def test_terminating_pods_count_in_the_status_of_a_stateful_set(kind: str, counted: int) -> None:
    """A cache that is to be compared with status.replicas must count in the same way."""
    pods = [Pod(name=f"w-{i}", uid=f"p-{i}", owner_uid="u-1", is_terminating=i == 1) for i in range(2)]
    state = state_of(workload_from(owner_document(kind), kind=kind), (), pods, as_of=0.0)
    assert state.counted_pods == counted
