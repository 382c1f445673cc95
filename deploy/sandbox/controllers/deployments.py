"""What the deployment controller writes: the ReplicaSet of a template, and the Deployment's status."""

import hashlib
import json
from collections.abc import Sequence
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

from deploy.sandbox.controllers.replicasets import parse_time
from deploy.sandbox.controllers.rollouts import Deployed, Sized, Strategy

REVISION = "deployment.kubernetes.io/revision"
DESIRED_REPLICAS = "deployment.kubernetes.io/desired-replicas"
MAX_REPLICAS = "deployment.kubernetes.io/max-replicas"
TEMPLATE_HASH = "pod-template-hash"

_NOT_COPIED = frozenset(
    {REVISION, DESIRED_REPLICAS, MAX_REPLICAS, "kubectl.kubernetes.io/last-applied-configuration"}
)
_SAFE_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # Kubernetes' own: no vowels, so no words
_DEFAULT_PROGRESS_DEADLINE_S = 600

Object = dict[str, Any]


def template_hash(template: Object) -> str:
    """A short name for a pod template, the same whenever the template is."""
    digest = hashlib.sha256(json.dumps(_without_hash(template), sort_keys=True).encode()).digest()
    return "".join(_SAFE_ALPHABET[byte % len(_SAFE_ALPHABET)] for byte in digest[:10])


def split_by_template(
    deployment: Object, replica_sets: Sequence[Object]
) -> tuple[Object | None, list[Object]]:
    """The (oldest) ReplicaSet of the present template, None if there is none yet, and all the others."""
    wanted = _without_hash(deployment["spec"]["template"])
    by_age = sorted(replica_sets, key=lambda one: str(one["metadata"].get("creationTimestamp")))
    for one in by_age:
        if _without_hash(one["spec"]["template"]) == wanted:
            return one, [other for other in by_age if other is not one]
    return None, by_age


def new_replica_set(deployment: Object, *, replicas: int, revision: int) -> Object:
    """The ReplicaSet to create for the Deployment's present template."""
    metadata, spec = deployment["metadata"], deployment["spec"]
    digest = template_hash(spec["template"])
    template = deepcopy(spec["template"])
    labels = {**(template.setdefault("metadata", {}).get("labels") or {}), TEMPLATE_HASH: digest}
    template["metadata"]["labels"] = labels
    selector = deepcopy(spec["selector"])
    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), TEMPLATE_HASH: digest}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{metadata['name']}-{digest}",
            "namespace": metadata["namespace"],
            "labels": labels,
            "annotations": {
                **copied_annotations(deployment),
                REVISION: str(revision),
                **size_annotations(deployment),
            },
            "ownerReferences": [owner_reference(deployment, "apps/v1", "Deployment")],
        },
        "spec": {
            "replicas": replicas,
            "minReadySeconds": spec.get("minReadySeconds") or 0,
            "selector": selector,
            "template": template,
        },
    }


def owner_reference(owner: Object, api_version: str, kind: str) -> Object:
    """The controller reference that a dependent of `owner` carries."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def size_annotations(deployment: Object) -> dict[str, str]:
    """The Deployment's size as its ReplicaSets remember it, to notice a scaling and to share it out."""
    desired = replicas_of(deployment)
    surge, _ = strategy_of(deployment).fenceposts(desired)
    return {DESIRED_REPLICAS: str(desired), MAX_REPLICAS: str(desired + surge)}


def copied_annotations(deployment: Object) -> dict[str, str]:
    annotations = deployment["metadata"].get("annotations") or {}
    return {key: value for key, value in annotations.items() if key not in _NOT_COPIED}


def revision_of(replica_set: Object) -> int:
    revision = (replica_set["metadata"].get("annotations") or {}).get(REVISION, "")
    return int(revision) if revision.isdecimal() else 0


def replicas_of(scalable: Object) -> int:
    """spec.replicas of a Deployment or ReplicaSet; 1 where it is left out."""
    replicas = scalable["spec"].get("replicas")
    return 1 if replicas is None else int(replicas)


def strategy_of(deployment: Object) -> Strategy:
    strategy = deployment["spec"].get("strategy") or {}
    rolling = strategy.get("rollingUpdate") or {}
    return Strategy(
        is_rolling=strategy.get("type", "RollingUpdate") == "RollingUpdate",
        max_surge=rolling.get("maxSurge", "25%"),
        max_unavailable=rolling.get("maxUnavailable", "25%"),
    )


def deployed(
    deployment: Object, new: Object | None, old: Sequence[Object], *, old_pods_exist: bool
) -> Deployed:
    """What the next step of the rollout is decided on."""
    return Deployed(
        replicas=replicas_of(deployment),
        strategy=strategy_of(deployment),
        new=None if new is None else sized(new),
        old=tuple(sized(one) for one in old),
        is_paused=bool(deployment["spec"].get("paused")),
        old_pods_exist=old_pods_exist,
        status_replicas=(deployment.get("status") or {}).get("replicas", 0),
    )


def sized(replica_set: Object) -> Sized:
    metadata, status = replica_set["metadata"], replica_set.get("status") or {}
    annotations = metadata.get("annotations") or {}
    return Sized(
        name=metadata["name"],
        created_at=parse_time(metadata.get("creationTimestamp")) or datetime.fromtimestamp(0, UTC),
        replicas=replicas_of(replica_set),
        actual=status.get("replicas", 0),
        available=status.get("availableReplicas", 0),
        desired_annotation=_count(annotations.get(DESIRED_REPLICAS)),
        max_annotation=_count(annotations.get(MAX_REPLICAS)),
    )


def status_of(deployment: Object, new: Object | None, old: Sequence[Object], *, now: datetime) -> Object:
    """The Deployment's status by its ReplicaSets; a transition time changes only with its condition."""
    before = deployment.get("status") or {}
    everyone = [*old, *([new] if new else [])]
    desired = replicas_of(deployment)
    counts = {
        "replicas": _sum(everyone, "replicas"),
        "updatedReplicas": _sum([new] if new else [], "replicas"),
        "readyReplicas": _sum(everyone, "readyReplicas"),
        "availableReplicas": _sum(everyone, "availableReplicas"),
        "terminatingReplicas": _sum(everyone, "terminatingReplicas"),
    }
    missing = sum(replicas_of(one) for one in everyone) - counts["availableReplicas"]
    counts["unavailableReplicas"] = max(0, missing)
    status = {
        "observedGeneration": deployment["metadata"].get("generation", 1),
        **{name: count for name, count in counts.items() if count or name == "terminatingReplicas"},
    }
    conditions = {condition["type"]: condition for condition in before.get("conditions") or []}
    _, max_unavailable = strategy_of(deployment).fenceposts(desired)
    _set(conditions, _availability(counts["availableReplicas"] >= desired - max_unavailable), now)
    progress = _progress(deployment, counts, conditions.get("Progressing"), new, now)
    if progress is not None:
        _set(conditions, progress, now, always=progress["reason"] == "ReplicaSetUpdated")
    return {**status, "conditions": list(conditions.values())}


def _availability(is_available: bool) -> Object:
    if is_available:
        reason, message = "MinimumReplicasAvailable", "Deployment has minimum availability."
    else:
        reason, message = "MinimumReplicasUnavailable", "Deployment does not have minimum availability."
    return {"type": "Available", "status": str(is_available), "reason": reason, "message": message}


def _progress(
    deployment: Object, counts: dict[str, int], current: Object | None, new: Object | None, now: datetime
) -> Object | None:
    """The Progressing condition to set; None to leave what there is."""
    spec, before = deployment["spec"], deployment.get("status") or {}
    name = (
        f'ReplicaSet "{new["metadata"]["name"]}"' if new else f'Deployment "{deployment["metadata"]["name"]}"'
    )
    if spec.get("paused"):
        return _progressing("Unknown", "DeploymentPaused", "Deployment is paused")
    is_complete_already = current is not None and current["reason"] == "NewReplicaSetAvailable"
    if is_complete_already and counts["replicas"] == counts["updatedReplicas"]:
        return None
    desired = replicas_of(deployment)
    if counts["updatedReplicas"] == counts["replicas"] == counts["availableReplicas"] == desired:
        return _progressing("True", "NewReplicaSetAvailable", f"{name} has successfully progressed.")
    if _has_progressed(before, counts):
        return _progressing("True", "ReplicaSetUpdated", f"{name} is progressing.")
    if current is None:
        created = f'Created new replica set "{new["metadata"]["name"]}"' if new else f"{name} is progressing."
        return _progressing("True", "NewReplicaSetCreated", created)
    if _has_timed_out(spec, current, now):
        return _progressing("False", "ProgressDeadlineExceeded", f"{name} has timed out progressing.")
    return None


def _has_progressed(before: Object, counts: dict[str, int]) -> bool:
    old_before = before.get("replicas", 0) - before.get("updatedReplicas", 0)
    return bool(
        counts["updatedReplicas"] > before.get("updatedReplicas", 0)
        or counts["replicas"] - counts["updatedReplicas"] < old_before
        or counts["readyReplicas"] > before.get("readyReplicas", 0)
        or counts["availableReplicas"] > before.get("availableReplicas", 0)
    )


def _has_timed_out(spec: Object, current: Object, now: datetime) -> bool:
    if current["reason"] in ("NewReplicaSetAvailable", "ProgressDeadlineExceeded"):
        return False
    last = parse_time(current.get("lastUpdateTime"))
    deadline_s = spec.get("progressDeadlineSeconds", _DEFAULT_PROGRESS_DEADLINE_S)
    return last is not None and bool((now - last).total_seconds() > deadline_s)


def _progressing(status: str, reason: str, message: str) -> Object:
    return {"type": "Progressing", "status": status, "reason": reason, "message": message}


def _set(conditions: dict[str, Object], new: Object, now: datetime, *, always: bool = False) -> None:
    old = conditions.get(new["type"])
    if old and not always and (old["status"], old["reason"]) == (new["status"], new["reason"]):
        return
    stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    unchanged_since = old["lastTransitionTime"] if old and old["status"] == new["status"] else stamp
    conditions[new["type"]] = {**new, "lastUpdateTime": stamp, "lastTransitionTime": unchanged_since}


def _without_hash(template: Object) -> Object:
    labels = (template.get("metadata") or {}).get("labels") or {}
    kept = {key: value for key, value in labels.items() if key != TEMPLATE_HASH}
    return {**template, "metadata": {**(template.get("metadata") or {}), "labels": kept}}


def _sum(replica_sets: Sequence[Object], field: str) -> int:
    return sum((one.get("status") or {}).get(field, 0) for one in replica_sets)


def _count(annotation: str | None) -> int | None:
    return int(annotation) if annotation is not None and annotation.isdecimal() else None
