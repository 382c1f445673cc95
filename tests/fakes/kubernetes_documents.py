"""Deployments, ReplicaSets and pods as the API server shows them, for tests that need some."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from shared.errors import KubernetesError
from shared.pods import DELETION_COST, parse_cost

_uids = Counter[str]()


def workload_document(
    name: str,
    *,
    replicas: int,
    namespace: str = "default",
    kind: str = "Deployment",
    uid: str | None = None,
    annotations: Mapping[str, str] = {},
) -> dict[str, Any]:
    """A settled workload as the API server shows it."""
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid or _fresh_uid(name),
            "generation": 1,
            "annotations": dict(annotations),
        },
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}},
        "status": {"observedGeneration": 1, "replicas": replicas, "updatedReplicas": replicas},
    }


def replica_set_document(
    name: str, *, owner: Mapping[str, Any], replicas: int, revision: int = 1
) -> dict[str, Any]:
    metadata = owner["metadata"]
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "uid": _fresh_uid(name),
            "generation": 1,
            "labels": dict(owner["spec"]["selector"]["matchLabels"]),
            "annotations": {
                "deployment.kubernetes.io/revision": str(revision),
                "deployment.kubernetes.io/desired-replicas": str(owner["spec"]["replicas"]),
            },
            "ownerReferences": [_reference(owner)],
            "creationTimestamp": _rfc3339(0),
        },
        "spec": {"replicas": replicas},
    }


def pod_document(
    name: str,
    *,
    owner: Mapping[str, Any],
    uid: str | None = None,
    age_s: float = 3600.0,
    annotations: Mapping[str, str] = {},
    **fields: Any,
) -> dict[str, Any]:
    """A Running and ready pod of a ReplicaSet or workload; `fields` as in FakeCluster.edit_pod."""
    metadata = owner["metadata"]
    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "uid": uid or _fresh_uid(name),
            "labels": dict(
                metadata["labels"] if "labels" in metadata else owner["spec"]["selector"]["matchLabels"]
            ),
            "annotations": dict(annotations),
            "ownerReferences": [_reference(owner)],
            "creationTimestamp": _rfc3339(time.time() - age_s),
        },
        "spec": {},
        "status": {},
    }
    defaults: dict[str, Any] = {"phase": "Running", "is_ready": True, "host": "host-1", "restarts": 0}
    set_pod_fields(document, **(defaults | fields))
    return document


def set_pod_fields(
    document: dict[str, Any],
    *,
    phase: str | None = None,
    is_ready: bool | None = None,
    host: str | None = None,
    restarts: int | None = None,
    is_terminating: bool | None = None,
) -> None:
    status = document["status"]
    if phase is not None:
        status["phase"] = phase
    if is_ready is not None:
        since = document["metadata"]["creationTimestamp"]
        ready = {"type": "Ready", "status": str(is_ready), "lastTransitionTime": since}
        status["conditions"] = [ready]
    if host is not None:
        document["spec"]["nodeName"] = host
    if restarts is not None:
        status["containerStatuses"] = [{"restartCount": restarts}]
    if is_terminating:
        document["metadata"]["deletionTimestamp"] = _rfc3339(time.time())


def annotate(document: dict[str, Any], annotations: Mapping[str, str | None]) -> dict[str, Any]:
    merged = {**document["metadata"].get("annotations", {}), **annotations}
    document["metadata"]["annotations"] = {k: v for k, v in merged.items() if v is not None}
    return document


def refuse_invalid_cost(document: Mapping[str, Any], annotations: Mapping[str, str | None]) -> None:
    """Raises KubernetesError for a cost that is no int32, unless the pod had such a one before."""
    costs = [
        (document["metadata"].get("annotations") or {}).get(DELETION_COST),
        annotations.get(DELETION_COST),
    ]
    was_invalid, is_invalid = (cost not in (None, "-0", str(parse_cost(cost))) for cost in costs)
    if is_invalid and not was_invalid:
        field = f"metadata.annotations[{DELETION_COST}]"
        raise KubernetesError(
            f'Pod "{document["metadata"]["name"]}" is invalid: {field}: Invalid value: "{costs[1]}":'
            " must be a 32bit integer (422)",
            status=422,
        )


def _reference(owner: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }


def controller_uid(document: Mapping[str, Any]) -> str:
    references = document["metadata"].get("ownerReferences") or ()
    return next((str(r["uid"]) for r in references if r.get("controller")), "")


def fits(document: Mapping[str, Any], selector: str) -> bool:
    """Equality terms only: that is what the documents above have."""
    labels = document["metadata"].get("labels", {})
    return all(
        labels.get(k) == v for k, _, v in (term.partition("=") for term in selector.split(",") if term)
    )


def _fresh_uid(name: str) -> str:
    _uids[name] += 1
    return f"uid-{name}-{_uids[name]}"


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
