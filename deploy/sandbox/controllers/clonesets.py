"""What an OpenKruise CloneSet does next, and its status, as far as scaling needs it. Pure.

It sorts pods as a ReplicaSet does, pod-deletion-cost included, but those that are not available go before all
others; with two revisions it takes pods of the old one first. Updates are by re-creation, one pod at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from deploy.sandbox.controllers.deployments import replicas_of
from deploy.sandbox.controllers.replicasets import candidate, choose_victims, ready_since
from deploy.sandbox.controllers.statefulsets import REVISION_LABEL, revision_name, revision_of
from shared.pods import selector_text

Object = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """How many pods to create, and which to delete."""

    create: int = 0
    delete: tuple[Object, ...] = ()


def next_step(clone_set: Object, pods: Sequence[Object], *, now: datetime) -> Step:
    active = [pod for pod in pods if candidate(pod).is_active]
    surplus = len(active) - replicas_of(clone_set)
    if surplus < 0:
        return Step(create=-surplus)
    old = [pod for pod in active if revision_of(pod) != revision_name(clone_set)]
    if surplus > 0:
        of_old = min(surplus, len(old))
        new = [pod for pod in active if pod not in old]
        return Step(
            delete=(
                *_victims(clone_set, old, of_old, now=now),
                *_victims(clone_set, new, surplus - of_old, now=now),
            )
        )
    is_paused = (clone_set["spec"].get("updateStrategy") or {}).get("paused")
    if old and not is_paused and all(ready_since(pod) is not None for pod in active):
        return Step(delete=_victims(clone_set, old, 1, now=now))
    return Step()


def _victims(clone_set: Object, pods: Sequence[Object], count: int, *, now: datetime) -> tuple[Object, ...]:
    """The first `count` of pods of one revision: those that are not available go before the others."""
    available = [pod for pod in pods if is_available(clone_set, pod, now=now)]
    others = [pod for pod in pods if pod not in available]
    first = _sorted(others, min(count, len(others)), now=now)
    return (*first, *_sorted(available, count - len(first), now=now))


def _sorted(pods: Sequence[Object], count: int, *, now: datetime) -> tuple[Object, ...]:
    by_uid = {pod["metadata"]["uid"]: pod for pod in pods}
    candidates = [candidate(pod) for pod in pods]
    chosen = choose_victims(candidates, desired=len(pods) - count, related=candidates, now=now)
    return tuple(by_uid[one.uid] for one in chosen)


def is_available(clone_set: Object, pod: Object, *, now: datetime) -> bool:
    """Whether it has been ready for minReadySeconds."""
    since = ready_since(pod)
    return since is not None and (now - since).total_seconds() >= (
        clone_set["spec"].get("minReadySeconds") or 0
    )


def new_pod(clone_set: Object, pod: Object) -> Object:
    """A pod from the template with the label of its revision."""
    metadata = pod["metadata"]
    labels = {**(metadata.get("labels") or {}), REVISION_LABEL: revision_name(clone_set)}
    return {**pod, "metadata": {**metadata, "labels": labels}}


def status_of(clone_set: Object, pods: Sequence[Object], *, now: datetime) -> Object:
    update = revision_name(clone_set)
    active = [pod for pod in pods if candidate(pod).is_active]
    ready = [pod for pod in active if ready_since(pod) is not None]
    updated = [pod for pod in active if revision_of(pod) == update]
    current = (clone_set.get("status") or {}).get("currentRevision", update)
    if len(updated) == len(active) == replicas_of(clone_set):
        current = update
    return {
        "observedGeneration": clone_set["metadata"]["generation"],
        "replicas": len(active),
        "readyReplicas": len(ready),
        "availableReplicas": sum(is_available(clone_set, pod, now=now) for pod in active),
        "updatedReplicas": len(updated),
        "updatedReadyReplicas": sum(pod in updated for pod in ready),
        "expectedUpdatedReplicas": replicas_of(clone_set),
        "currentRevision": current,
        "updateRevision": update,
        "labelSelector": selector_text(clone_set["spec"]["selector"]),
    }
