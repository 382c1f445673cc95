"""Our record on a pod that is being drained: enough for whoever comes next to take it back. Pure.

It is written before the first command is sent to the pod's worker, so a crash at any instant leaves either
nothing or something that names itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

MARK_ANNOTATION = "celery-hpa.io/drain"
SUMMARY_ANNOTATION = "celery-hpa.io/draining"
"""The same in a sentence, for `kubectl describe pod`; nothing reads it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What a round wrote on one of its victims."""

    round: str
    """Short name of the round, for people and logs."""
    workload_uid: str
    pod_uid: str
    """A record that names another pod was copied (from a template, by hand) and is no mark."""
    from_replicas: int
    to_replicas: int
    generation: int
    """metadata.generation of the workload when the round was planned. A higher one means that its spec was
    changed, or an annotation: Kubernetes counts both for a Deployment."""
    replica_set_generation: int
    """metadata.generation of the pod's ReplicaSet then, which annotations do not raise: a higher one means
    that the workload was scaled since, also when it has its old size again. A StatefulSet
    and a CloneSet have no ReplicaSets, and are like one in this themselves."""
    since: float
    """When draining began, seconds since the epoch."""
    asked_at: float
    """When a review last wanted this round, seconds since the epoch."""
    queues: tuple[str, ...]
    """What the worker consumed before; given back on release."""
    cost: int | None = None
    """The pod-deletion-cost we wrote; another value on the pod is somebody else's, written later. None in a
    StatefulSet, where costs decide nothing and none is written."""
    foreign_cost: str | None = None
    """The pod-deletion-cost that stood there before; restored on release."""
    may_stay: bool | None = None
    """True on one of several of whom Kubernetes takes any, where costs do not count; else it is left out."""

    def is_of(self, *, workload_uid: str, from_replicas: int, to_replicas: int) -> bool:
        """Whether this is the round of such a scale-down; request uids would change with every retry."""
        return (self.workload_uid, self.from_replicas, self.to_replicas) == (
            workload_uid,
            from_replicas,
            to_replicas,
        )


_RECORD: TypeAdapter[Mark] = TypeAdapter(Mark)


def parse_mark(text: str | None) -> Mark | None:
    """The record in an annotation; None when there is none or it cannot be read."""
    if text is None:
        return None
    try:
        return _RECORD.validate_json(text)
    except ValidationError:
        return None


def render_mark(mark: Mark) -> str:
    """The record as one line of JSON."""
    return _RECORD.dump_json(mark, exclude_none=True).decode()
