"""The few fields of pods, ReplicaSets and workloads that matter, read from Kubernetes' JSON. Pure values."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

from shared.marks import MARK_ANNOTATION, Mark, parse_mark

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
BYPASS_ANNOTATION = "celery-hpa.io/bypass"
"""On a workload, with the value "true": the break-glass, scale-downs are let through unprepared."""

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
_CANONICAL = re.compile(r"0|-\d+|[1-9]\d*", re.ASCII)
"""Kubernetes looks at the first character only: `-`, 1 to 9, or `0` alone."""

_TEMPLATE_HASH = "pod-template-hash"

Document = Mapping[str, Any]
"""An object as Kubernetes' JSON has it."""

OWN_THEIR_PODS = frozenset({"StatefulSet", "CloneSet"})
"""Kinds of workloads without ReplicaSets between them and their pods."""


class WorkloadKey(NamedTuple):
    """Which workload."""

    kind: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod of a workload."""

    name: str
    uid: str
    namespace: str = ""
    owner_uid: str = ""
    """uid of the ReplicaSet that controls it, or of the StatefulSet or CloneSet."""
    host: str = ""
    """Kubernetes' node it is bound to; empty while it is unassigned. (A node name, here, is Celery's.)"""
    phase: str = "Running"
    is_ready: bool = True
    is_available: bool = True
    """False where a CloneSet counts it so: it has not been ready for minReadySeconds yet."""
    ready_since: float | None = None
    """Seconds since the epoch."""
    created_at: float = 0.0
    """Seconds since the epoch."""
    restarts: int = 0
    """Highest restart count of its containers."""
    sidecar_restarts: int = 0
    """Highest restart count of its sidecars: init containers that are restarted always."""
    is_terminating: bool = False
    terminates_by: float | None = None
    """When its grace period is over, seconds since the epoch; None while nobody has deleted it."""
    cost_annotation: str | None = None
    """pod-deletion-cost as it stands on the pod, ours or foreign."""
    mark: Mark | None = None
    """Our record, when it is about this very pod; a copied one is no mark."""
    has_mark_annotation: bool = False
    """True also for a record that was copied from another pod or cannot be read."""
    resource_version: str = field(default="", compare=False)
    """Of which state of the pod this is; for a write that must not pass over somebody else's."""

    @property
    def deletion_cost(self) -> int:
        """The cost as the ReplicaSet controller reads it: missing or invalid is 0."""
        return parse_cost(self.cost_annotation)

    @property
    def own_cost(self) -> int | None:
        """The cost that we wrote, while it still stands there; another is somebody else's, written later."""
        cost = self.mark.cost if self.mark else None
        return cost if cost is not None and self.cost_annotation == str(cost) else None

    @property
    def foreign_cost(self) -> str | None:
        """The annotation as it would be without us: what we wrote over, or what stands there now."""
        return self.mark.foreign_cost if self.mark and self.own_cost is not None else self.cost_annotation

    def is_newer_than(self, other: Pod) -> bool:
        """Whether this is a later state of the same pod; False where the two versions do not tell."""
        versions = self.resource_version, other.resource_version
        return all(version.isdecimal() for version in versions) and int(versions[0]) > int(versions[1])

    @property
    def is_active(self) -> bool:
        """What a ReplicaSet counts: neither finished nor being deleted."""
        return not self.is_terminating and self.phase not in ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSet:
    """A ReplicaSet of a Deployment."""

    name: str
    uid: str
    replicas: int
    """spec.replicas."""
    owner_uid: str = ""
    """uid of the workload that controls it."""
    created_at: float = 0.0
    desired_replicas: int | None = None
    """The annotation deployment.kubernetes.io/desired-replicas."""
    max_replicas: int | None = None
    """The annotation deployment.kubernetes.io/max-replicas."""
    revision: int = 0
    generation: int = 0
    template: str = ""
    """A digest of its pod template."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The Deployment, StatefulSet or CloneSet whose replicas are scaled."""

    kind: str
    namespace: str
    name: str
    uid: str
    replicas: int
    """spec.replicas."""
    selector: str = ""
    """Its label selector, in the form a list request takes."""
    generation: int = 0
    observed_generation: int = 0
    status_replicas: int = 0
    max_surge: str = "25%"
    max_unavailable: str = "25%"
    strategy: str = "RollingUpdate"
    template: str = ""
    """A digest of a Deployment's pod template, the same as that of its ReplicaSet; empty for other kinds."""
    is_paused: bool = False
    progressed_at: float = 0.0
    """When its condition Progressing was last updated, seconds since the epoch; 0 when it has none."""
    is_bypassed: bool = False
    first_ordinal: int = 0
    """A StatefulSet's spec.ordinals.start."""
    min_ready_s: int = 0
    """spec.minReadySeconds."""
    is_updating: bool = False
    """A StatefulSet or CloneSet that has pods of two revisions, or will have; of a Deployment the ReplicaSets
    tell."""

    @property
    def owns_pods(self) -> bool:
        """Whether its pods have no ReplicaSet between."""
        return self.kind in OWN_THEIR_PODS

    @property
    def goes_by_ordinals(self) -> bool:
        """Whether its highest ordinals are removed, whatever stands on the pods."""
        return self.kind == "StatefulSet"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadState:
    """A workload with what belongs to it, at one moment."""

    workload: Workload
    replica_sets: tuple[ReplicaSet, ...] = ()
    """Those it controls, by name; for a workload that owns its pods itself one that stands for it."""
    pods: tuple[Pod, ...] = ()
    """Those its ReplicaSets, or it, control, by name; terminating ones too."""
    as_of: float = 0.0
    """Seconds since the epoch: nothing newer than this is known."""

    def with_workload(self, workload: Workload) -> WorkloadState:
        """The same with a newer state of the workload."""
        sets = (_stand_in(workload),) if workload.owns_pods else self.replica_sets
        return replace(self, workload=workload, replica_sets=sets)

    @property
    def counted_pods(self) -> int:
        """Pods as the workload's status.replicas counts them: a StatefulSet's terminating ones too."""
        return len(self.pods) if self.workload.goes_by_ordinals else sum(pod.is_active for pod in self.pods)


def parse_cost(text: str | None) -> int:
    """pod-deletion-cost as Kubernetes parses it: canonical int32, anything else is 0."""
    if text is None or not _CANONICAL.fullmatch(text):
        return 0
    value = int(text)
    return value if INT32_MIN <= value <= INT32_MAX else 0


def parse_time(text: str | None) -> float | None:
    """RFC 3339 as Kubernetes writes it, to seconds since the epoch."""
    return None if not text else datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def pod_from(document: Document) -> Pod:
    """A Pod from its JSON."""
    metadata, spec, status = document["metadata"], document.get("spec", {}), document.get("status", {})
    annotations = metadata.get("annotations") or {}
    ready = _condition(status, "Ready")
    record = annotations.get(MARK_ANNOTATION)
    mark = parse_mark(record)
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        namespace=metadata.get("namespace", ""),
        owner_uid=_controller_uid(metadata),
        host=spec.get("nodeName") or "",
        phase=status.get("phase") or "Pending",
        is_ready=ready.get("status") == "True",
        ready_since=parse_time(ready.get("lastTransitionTime")) if ready.get("status") == "True" else None,
        created_at=parse_time(metadata.get("creationTimestamp")) or 0.0,
        restarts=_most_restarts(status.get("containerStatuses")),
        sidecar_restarts=_most_restarts(_sidecar_statuses(spec, status)),
        is_terminating=bool(metadata.get("deletionTimestamp")),
        terminates_by=parse_time(metadata.get("deletionTimestamp")),
        cost_annotation=annotations.get(DELETION_COST),
        mark=mark if mark is not None and mark.pod_uid == metadata["uid"] else None,
        has_mark_annotation=record is not None,
        resource_version=metadata.get("resourceVersion", ""),
    )


def replica_set_from(document: Document) -> ReplicaSet:
    """A ReplicaSet from its JSON."""
    metadata = document["metadata"]
    annotations = metadata.get("annotations") or {}
    return ReplicaSet(
        name=metadata["name"],
        uid=metadata["uid"],
        replicas=document.get("spec", {}).get("replicas", 1),
        owner_uid=_controller_uid(metadata),
        created_at=parse_time(metadata.get("creationTimestamp")) or 0.0,
        desired_replicas=_integer(annotations.get("deployment.kubernetes.io/desired-replicas")),
        max_replicas=_integer(annotations.get("deployment.kubernetes.io/max-replicas")),
        revision=_integer(annotations.get("deployment.kubernetes.io/revision")) or 0,
        generation=metadata.get("generation", 0),
        template=_template_digest(document),
    )


def workload_from(document: Document, *, kind: str = "Deployment") -> Workload:
    """A Workload from the JSON of a Deployment, StatefulSet or CloneSet."""
    metadata, spec, status = document["metadata"], document["spec"], document.get("status", {})
    strategy = spec.get("strategy") or {}
    rolling = strategy.get("rollingUpdate") or {}
    return Workload(
        kind=kind,
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        replicas=spec.get("replicas", 1),
        selector=selector_text(spec.get("selector") or {}),
        generation=metadata.get("generation", 0),
        observed_generation=status.get("observedGeneration", 0),
        status_replicas=status.get("replicas", 0),
        max_surge=str(rolling.get("maxSurge", "25%")),
        max_unavailable=str(rolling.get("maxUnavailable", "25%")),
        strategy=strategy.get("type", "RollingUpdate"),
        template="" if kind in OWN_THEIR_PODS else _template_digest(document),
        is_paused=bool(spec.get("paused")),
        progressed_at=parse_time(_condition(status, "Progressing").get("lastUpdateTime")) or 0.0,
        is_bypassed=(metadata.get("annotations") or {}).get(BYPASS_ANNOTATION) == "true",
        first_ordinal=(spec.get("ordinals") or {}).get("start") or 0,
        min_ready_s=spec.get("minReadySeconds") or 0,
        is_updating=kind in OWN_THEIR_PODS and _is_updating(kind, spec, status),
    )


def state_of(
    workload: Workload, replica_sets: Collection[ReplicaSet], pods: Collection[Pod], *, as_of: float
) -> WorkloadState:
    """What belongs to the workload: its selector may fit others' objects too."""
    if workload.owns_pods:
        own = [_stand_in(workload)]
    else:
        own = sorted((s for s in replica_sets if s.owner_uid == workload.uid), key=lambda s: s.name)
    owners = {s.uid for s in own}
    return WorkloadState(
        workload=workload,
        replica_sets=tuple(own),
        pods=tuple(sorted((p for p in pods if p.owner_uid in owners), key=lambda p: p.name)),
        as_of=as_of,
    )


def selector_text(selector: Document) -> str:
    """A LabelSelector document as a labelSelector parameter writes it: sorted by key, values sorted too."""
    terms = [(key, f"{key}={value}") for key, value in (selector.get("matchLabels") or {}).items()]
    for expression in selector.get("matchExpressions") or ():
        key, values = expression["key"], ",".join(sorted(expression.get("values") or ()))
        terms.append((key, _EXPRESSIONS[expression["operator"]].format(key=key, values=values)))
    return ",".join(text for _, text in sorted(terms))


def celery_node(pod_name: str, *, worker_name: str) -> str:
    """The Celery node name of a pod; `worker_name` is the pool's pattern, as `celery@{pod}`."""
    return worker_name.replace("{pod}", pod_name)


def answering_nodes(pods: Iterable[Pod], *, worker_name: str) -> frozenset[str]:
    """Celery node names of the workers that can answer.

    A worker that shuts down answers nothing, and one name that cannot costs a question its whole time-out.
    """
    return frozenset(
        celery_node(pod.name, worker_name=worker_name)
        for pod in pods
        if pod.phase == "Running" and not pod.is_terminating
    )


def _most_restarts(statuses: Iterable[Document] | None) -> int:
    return max((one.get("restartCount", 0) for one in statuses or ()), default=0)


def _sidecar_statuses(spec: Document, status: Document) -> list[Document]:
    containers = spec.get("initContainers") or ()
    names = {one["name"] for one in containers if one.get("restartPolicy") == "Always"}
    return [one for one in status.get("initContainerStatuses") or () if one["name"] in names]


def _stand_in(workload: Workload) -> ReplicaSet:
    """A workload that owns its pods, as the ReplicaSet it has not; its generation moves with spec only."""
    return ReplicaSet(
        name=workload.name,
        uid=workload.uid,
        replicas=workload.replicas,
        owner_uid=workload.uid,
        generation=workload.generation,
    )


def _is_updating(kind: str, spec: Document, status: Document) -> bool:
    if status.get("currentRevision") == status.get("updateRevision"):
        return False
    strategy = spec.get("updateStrategy") or {}
    if kind != "StatefulSet":
        return True
    if strategy.get("type") == "OnDelete":
        return False
    # Below the partition the old revision stays, for as long as the user likes.
    kept: int = (strategy.get("rollingUpdate") or {}).get("partition") or 0
    return bool(status.get("updatedReplicas", 0) < spec.get("replicas", 1) - kept)


def _template_digest(document: Document) -> str:
    """The same for a Deployment and the ReplicaSet of its template, which has one label more."""
    template = document.get("spec", {}).get("template")
    if not template:
        return ""
    metadata = template.get("metadata") or {}
    labels = {k: v for k, v in (metadata.get("labels") or {}).items() if k != _TEMPLATE_HASH}
    text = json.dumps({**template, "metadata": {**metadata, "labels": labels}}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _condition(status: Document, kind: str) -> Document:
    return next((c for c in status.get("conditions") or () if c.get("type") == kind), {})


def _controller_uid(metadata: Document) -> str:
    return next((o["uid"] for o in metadata.get("ownerReferences") or () if o.get("controller")), "")


def _integer(text: str | None) -> int | None:
    return int(text) if text and text.lstrip("-").isdigit() else None


_EXPRESSIONS = {
    "In": "{key} in ({values})",
    "NotIn": "{key} notin ({values})",
    "Exists": "{key}",
    "DoesNotExist": "!{key}",
}
