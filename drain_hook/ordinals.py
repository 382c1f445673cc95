"""Which pods a StatefulSet loses: its highest ordinals, whatever runs and whatever stands on them. Pure."""

from __future__ import annotations

from collections.abc import Collection

from shared.pods import Pod, Workload


def no_others(kind: str) -> str:
    """Why it is these pods of a StatefulSet, as a sentence to go on from; empty for other kinds."""
    return "A StatefulSet always loses its highest ordinals, and no others. " if kind == "StatefulSet" else ""


def ordinal_of(pod: Pod) -> int:
    """The number at the end of its name; -1, below all others, for a pod that has none."""
    _, _, number = pod.name.rpartition("-")
    return int(number) if number.isascii() and number.isdecimal() else -1


def highest_first(pods: Collection[Pod]) -> tuple[Pod, ...]:
    """The active pods in the order in which they go."""
    return tuple(sorted((pod for pod in pods if pod.is_active), key=ordinal_of, reverse=True))


def count_beyond(workload: Workload, pods: Collection[Pod], *, to_replicas: int) -> int:
    """How many active pods have an ordinal that is not among the first `to_replicas`.

    A pod missing below saves none above: its ordinal is filled again.
    """
    end = workload.first_ordinal + to_replicas
    return sum(pod.is_active and ordinal_of(pod) >= end for pod in pods)
