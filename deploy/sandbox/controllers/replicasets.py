"""Which pods a ReplicaSet deletes, and its status: the rules of Kubernetes 1.36's ReplicaSet controller."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cmp_to_key
from typing import Any

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_CANONICAL_INT32 = re.compile(r"0|-?[1-9][0-9]{0,9}|-0")
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_PHASE_ORDER = {"Pending": 0, "Unknown": 1, "Running": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A pod as far as the choice of victims looks at it."""

    name: str
    uid: str = ""
    node: str = "node"
    phase: str = "Running"
    ready_since: datetime | None = None
    deletion_cost: int = 0
    restarts: int = 0
    sidecar_restarts: int = 0
    created_at: datetime | None = None
    is_active: bool = True


def choose_victims(
    pods: Sequence[Candidate],
    *,
    desired: int,
    related: Iterable[Candidate] = (),
    honours_costs: bool = True,
    now: datetime,
) -> list[Candidate]:
    """The active pods to delete so that `desired` are left, those to go first at the front.

    `related` are the pods of all ReplicaSets of the same Deployment; the more active ones share a node, the
    sooner one of them goes. With nothing to keep there is nothing to sort. `honours_costs` is the feature
    gate PodDeletionCost.
    """
    active = [pod for pod in pods if pod.is_active]
    if not honours_costs:
        active = [replace(pod, deletion_cost=0) for pod in active]
    surplus = len(active) - desired
    if surplus <= 0:
        return []
    if desired <= 0:
        return active
    colocated = Counter(pod.node for pod in related if pod.is_active)

    def compare(first: Candidate, second: Candidate) -> int:
        return _compare(first, second, colocated, now)

    return sorted(active, key=cmp_to_key(compare))[:surplus]


def parse_deletion_cost(annotation: str | None) -> int:
    """The int32 of a pod-deletion-cost annotation; absent or not canonical counts as 0."""
    if annotation is None or not _CANONICAL_INT32.fullmatch(annotation):
        return 0
    cost = int(annotation)
    return cost if -(2**31) <= cost < 2**31 else 0


def candidate(pod: dict[str, Any]) -> Candidate:
    """The fields of a Pod object that the choice looks at."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    return Candidate(
        name=metadata["name"],
        uid=metadata["uid"],
        node=(pod.get("spec") or {}).get("nodeName") or "",
        phase=_phase(pod),
        ready_since=ready_since(pod),
        deletion_cost=parse_deletion_cost((metadata.get("annotations") or {}).get(DELETION_COST)),
        restarts=max((item["restartCount"] for item in status.get("containerStatuses") or []), default=0),
        sidecar_restarts=sidecar_restarts(pod),
        created_at=parse_time(metadata.get("creationTimestamp")),
        is_active=is_active(pod),
    )


def is_active(pod: dict[str, Any]) -> bool:
    """Whether a ReplicaSet counts the pod: it is neither finished nor being deleted."""
    return "deletionTimestamp" not in pod["metadata"] and _phase(pod) not in ("Succeeded", "Failed")


def _phase(pod: dict[str, Any]) -> str:
    return (pod.get("status") or {}).get("phase") or "Pending"


def sidecar_restarts(pod: dict[str, Any]) -> int:
    """Of its init containers with restartPolicy Always; those of others do not count."""
    init_containers = (pod.get("spec") or {}).get("initContainers") or []
    sidecars = [item["name"] for item in init_containers if item.get("restartPolicy") == "Always"]
    statuses = (pod.get("status") or {}).get("initContainerStatuses") or []
    return max((item["restartCount"] for item in statuses if item["name"] in sidecars), default=0)


def ready_since(pod: dict[str, Any]) -> datetime | None:
    """When the pod became Ready; None if it is not."""
    for condition in (pod.get("status") or {}).get("conditions") or []:
        if condition["type"] == "Ready" and condition["status"] == "True":
            return parse_time(condition.get("lastTransitionTime")) or _LONG_AGO
    return None


def parse_time(text: str | None) -> datetime | None:
    """A metav1.Time of the API; None if there is none."""
    return datetime.fromisoformat(text) if text else None


def status_of(
    replica_set: dict[str, Any], pods: Sequence[dict[str, Any]], *, now: datetime
) -> dict[str, Any]:
    """The status of a ReplicaSet that owns these pods: active ones, and terminating ones beside them."""
    active = [pod for pod in pods if is_active(pod)]
    ready = [since for pod in active if (since := ready_since(pod)) is not None]
    template_labels = (replica_set["spec"]["template"].get("metadata") or {}).get("labels") or {}
    labelled = [
        pod for pod in active if template_labels.items() <= (pod["metadata"].get("labels") or {}).items()
    ]
    min_ready_s = replica_set["spec"].get("minReadySeconds") or 0
    available = [since for since in ready if (now - since).total_seconds() >= min_ready_s]
    counts = {
        "fullyLabeledReplicas": len(labelled),
        "readyReplicas": len(ready),
        "availableReplicas": len(available),
    }
    terminating = sum(1 for pod in pods if "deletionTimestamp" in pod["metadata"])
    return {
        "replicas": len(active),
        **{name: count for name, count in counts.items() if count},
        "terminatingReplicas": terminating,
        "observedGeneration": replica_set["metadata"].get("generation", 1),
    }


def _compare(first: Candidate, second: Candidate, colocated: Counter[str], now: datetime) -> int:
    """Negative if the first pod goes before the second: Kubernetes' eight criteria, in its order."""
    plain = _sign(_rank(first, colocated), _rank(second, colocated))
    if plain:
        return plain
    if first.ready_since is not None and second.ready_since is not None:
        by_ready_time = _younger_first(first, second, first.ready_since, second.ready_since, now)
        if by_ready_time:
            return by_ready_time
    if first.restarts != second.restarts:
        return second.restarts - first.restarts
    if first.sidecar_restarts != second.sidecar_restarts:
        return second.sidecar_restarts - first.sidecar_restarts
    return _younger_first(first, second, first.created_at, second.created_at, now)


def _rank(pod: Candidate, colocated: Counter[str]) -> tuple[bool, int, bool, int, int]:
    """Criteria 1 to 5: unscheduled, phase, not ready, cost, crowded node."""
    return (
        bool(pod.node),
        _PHASE_ORDER.get(pod.phase, 2),
        pod.ready_since is not None,
        pod.deletion_cost,
        -colocated[pod.node],
    )


def _younger_first(
    first: Candidate, second: Candidate, one: datetime | None, other: datetime | None, now: datetime
) -> int:
    """Ages are compared by powers of two; among pods of like age the uid decides, as good as by chance."""
    if one == other:
        return 0
    if one is None or other is None:
        return -1 if one is None else 1
    by_age = _log_age(one, now) - _log_age(other, now)
    return by_age or _sign(first.uid, second.uid)


def _log_age(since: datetime, now: datetime) -> int:
    nanoseconds = (now - since).total_seconds() * 1e9
    return int(math.log2(nanoseconds)) if nanoseconds >= 1 else -1


def _sign(first: Any, second: Any) -> int:
    return int(first > second) - int(first < second)
