"""What a StatefulSet does next, and its status: the rules of Kubernetes 1.36's StatefulSet controller.

Old revisions are not kept: a pod that is missing is made from the present template, whatever its ordinal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deploy.sandbox.controllers.deployments import replicas_of, template_hash
from deploy.sandbox.controllers.replicasets import ready_since

REVISION_LABEL = "controller-revision-hash"

Object = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Ordinals to create and pods to delete now; in OrderedReady one pod at most."""

    create: tuple[int, ...] = ()
    delete: tuple[Object, ...] = ()


def next_step(stateful_set: Object, pods: Sequence[Object]) -> Step:
    """From the lowest ordinal up to the first that is not ready; only then are surplus ones deleted.

    The highest goes first, and the next when it is gone; only then does an update go on.
    """
    wanted = _wanted(stateful_set)
    by_ordinal = {ordinal_of(pod): pod for pod in pods}
    condemned = [by_ordinal[o] for o in sorted(by_ordinal, reverse=True) if o not in wanted]
    ended = tuple(pod for pod in pods if _phase(pod) in ("Succeeded", "Failed") and not is_terminating(pod))
    missing = tuple(ordinal for ordinal in wanted if ordinal not in by_ordinal)
    if stateful_set["spec"].get("podManagementPolicy") == "Parallel":
        surplus = tuple(pod for pod in condemned if not is_terminating(pod))
        if missing or surplus or ended:
            return Step(create=missing, delete=(*ended, *(pod for pod in surplus if pod not in ended)))
        return _update(stateful_set, by_ordinal)
    if ended:
        return Step(delete=ended[:1])
    for ordinal in wanted:
        if ordinal not in by_ordinal:
            return Step(create=(ordinal,))
        if not _is_healthy(by_ordinal[ordinal]):
            return Step()
    if condemned:
        return _condemn(condemned)
    return _update(stateful_set, by_ordinal)


def _condemn(condemned: Sequence[Object]) -> Step:
    """One at a time, highest first; one that is not ready is waited for, unless it is the lowest of those."""
    highest = condemned[0]
    unhealthy = [pod for pod in condemned if not _is_healthy(pod)]
    if is_terminating(highest) or (highest in unhealthy and highest is not unhealthy[-1]):
        return Step()
    return Step(delete=(highest,))


def _update(stateful_set: Object, by_ordinal: dict[int, Object]) -> Step:
    strategy = stateful_set["spec"].get("updateStrategy") or {}
    if strategy.get("type") == "OnDelete":
        return Step()
    partition = (strategy.get("rollingUpdate") or {}).get("partition") or 0
    for ordinal in sorted(by_ordinal, reverse=True):
        pod = by_ordinal[ordinal]
        if ordinal < partition:
            return Step()
        if revision_of(pod) != revision_name(stateful_set) and not is_terminating(pod):
            return Step(delete=(pod,))
        if not _is_healthy(pod):
            return Step()
    return Step()


def new_pod(stateful_set: Object, pod: Object, ordinal: int) -> Object:
    """A pod from the template with what a StatefulSet adds to it."""
    metadata = pod["metadata"]
    labels = {
        **(metadata.get("labels") or {}),
        "statefulset.kubernetes.io/pod-name": metadata["name"],
        "apps.kubernetes.io/pod-index": str(ordinal),
        REVISION_LABEL: revision_name(stateful_set),
    }
    network = {"hostname": metadata["name"], "subdomain": stateful_set["spec"].get("serviceName", "")}
    return {**pod, "metadata": {**metadata, "labels": labels}, "spec": {**pod["spec"], **network}}


def status_of(stateful_set: Object, pods: Sequence[Object]) -> Object:
    """`replicas` counts terminating pods too, other than that of a Deployment."""
    update = revision_name(stateful_set)
    current = (stateful_set.get("status") or {}).get("currentRevision", update)
    staying = [pod for pod in pods if not is_terminating(pod)]
    ready = sum(ready_since(pod) is not None for pod in pods)
    updated = sum(revision_of(pod) == update for pod in staying)
    if updated == len(pods) == ready:
        current = update
    return {
        "observedGeneration": stateful_set["metadata"]["generation"],
        "replicas": len(pods),
        "readyReplicas": ready,
        "availableReplicas": ready,
        "currentReplicas": sum(revision_of(pod) == current for pod in staying),
        "updatedReplicas": updated,
        "currentRevision": current,
        "updateRevision": update,
        "collisionCount": 0,
    }


def revision_name(owner: Object) -> str:
    """The name of the ControllerRevision of a workload's present template."""
    return f"{owner['metadata']['name']}-{template_hash(owner['spec']['template'])}"


def revision_of(pod: Object) -> str:
    return str((pod["metadata"].get("labels") or {}).get(REVISION_LABEL, ""))


def ordinal_of(pod: Object) -> int:
    return int(pod["metadata"]["name"].rpartition("-")[2])


def is_terminating(pod: Object) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _wanted(stateful_set: Object) -> range:
    start = (stateful_set["spec"].get("ordinals") or {}).get("start", 0)
    return range(start, start + replicas_of(stateful_set))


def _phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase", ""))


def _is_healthy(pod: Object) -> bool:
    return _phase(pod) == "Running" and ready_since(pod) is not None and not is_terminating(pod)
