"""Which pods a CloneSet counts as available: it removes the others first, whatever their cost. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from shared.pods import Pod, Workload


def with_availability(workload: Workload, pods: Collection[Pod], *, now: float) -> tuple[Pod, ...]:
    """The pods with `is_available` as the workload's controller sees it; others look at ready only."""
    if workload.kind != "CloneSet" or not workload.min_ready_s:
        return tuple(pods)
    return tuple(replace(pod, is_available=_is_available(pod, workload, now=now)) for pod in pods)


def _is_available(pod: Pod, workload: Workload, *, now: float) -> bool:
    return pod.is_ready and now - (pod.ready_since or now) >= workload.min_ready_s
