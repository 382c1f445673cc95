"""Where pod-deletion-cost counts for nothing: a Deployment loses what Kubernetes picks by itself. Pure.

That is before Kubernetes 1.22, and where its feature gate PodDeletionCost is off. The order without costs can
still be foreseen, so these pods are drained and waited for as the highest ordinals of a StatefulSet are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from enum import Enum

from drain_hook.ordinals import no_others
from drain_hook.plans import Refusal, Victim
from drain_hook.victims import deletion_order
from shared.pods import Pod, Workload, WorkloadState

STEADY_S = 2.0
"""Ages are compared by powers of two, so who is next may change with time. For so long, before and after, the
same ones must be next: clocks differ, and Kubernetes takes a moment to delete."""


class Costs(Enum):
    """What pod-deletion-cost does in this cluster."""

    COUNT = "count"
    """As it does by default since Kubernetes 1.22; also what we believe until the API server has told."""
    IGNORED = "ignored"
    """Its feature gate is off."""
    UNKNOWN = "unknown"
    """Kubernetes is older than 1.22, which compares ages in another way too: its order is not ported."""

    def choose(self, workload: Workload) -> bool:
        """Whether what we write decides which of its pods go; OpenKruise reads costs in every cluster."""
        return not workload.goes_by_ordinals and (self is Costs.COUNT or workload.owns_pods)


def no_choice(workload: Workload, costs: Costs) -> str:
    """Why it is these pods, as a sentence to go on from; empty where costs choose."""
    if costs.choose(workload):
        return ""
    return no_others(workload.kind) or (
        "This cluster ignores pod-deletion-cost (the feature gate PodDeletionCost is off), so the Deployment"
        " loses the pods that Kubernetes picks by itself, and no others. "
    )


def unknown_order(workload: Workload, costs: Costs) -> Refusal | None:
    """A refusal where nobody can tell which pods would go."""
    if costs is not Costs.UNKNOWN or costs.choose(workload) or workload.goes_by_ordinals:
        return None
    return Refusal(
        reason="CannotPredict",
        sentence=(
            "This cluster has no pod-deletion-cost, so nobody can choose which pods of the Deployment go: it"
            " came with Kubernetes 1.22 (feature gate PodDeletionCost). Upgrade, or run these workers as a"
            " StatefulSet or as an OpenKruise CloneSet."
        ),
    )


def own_order(pods: Collection[Pod], *, related: Collection[Pod], now: float) -> tuple[Pod, ...]:
    """The active pods of one ReplicaSet in the order in which they go when nobody's cost counts."""
    return deletion_order(pods, related=related, costs_count=False, now=now)


def unsteady_order(victims: Collection[Victim], state: WorkloadState, *, now: float) -> Refusal | None:
    """A refusal when Kubernetes might pick others; not so in a StatefulSet.

    A little earlier or later, or because it finds two of the same age and takes any of them.
    """
    if state.workload.goes_by_ordinals:
        return None
    leaving = {victim.pod.uid for victim in victims}
    counts = Counter(victim.pod.owner_uid for victim in victims)
    is_steady = all(
        leaving.issuperset(pod.uid for pod in own_order(pods, related=state.pods, now=now + shift)[:count])
        for owner_uid, count in counts.items()
        for pods in _both_ways([pod for pod in state.pods if pod.owner_uid == owner_uid])
        for shift in (-STEADY_S, 0.0, STEADY_S)
    )
    return None if is_steady else _UNSTEADY


def _both_ways(pods: list[Pod]) -> tuple[list[Pod], list[Pod]]:
    """Sorting keeps those that nothing tells apart as it finds them."""
    return pods, pods[::-1]


_UNSTEADY = Refusal(
    reason="CannotPredict",
    sentence=(
        "This cluster ignores pod-deletion-cost (the feature gate PodDeletionCost is off), and nobody can"
        " tell which pods Kubernetes picks by itself: some are of the same age, or take each other's turn as"
        " they grow older. Ask again in a moment, or for another number of replicas."
    ),
)
