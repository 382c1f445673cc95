"""Where pod-deletion-cost counts for nothing: a Deployment loses what Kubernetes picks by itself. Pure.

That is before Kubernetes 1.22, and where its feature gate PodDeletionCost is off. The order without costs can
still be foreseen, so these pods are drained and waited for as the highest ordinals of a StatefulSet are.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum

from drain_hook.explanations import describe_victims, name_victims
from drain_hook.ordinals import no_others
from drain_hook.plans import Refusal, Victim
from drain_hook.victims import certainly_before, deletion_order
from shared.pods import Pod, Workload, WorkloadState

STEADY_S = 2
"""Ages are compared by powers of two, so who is next may change with time. For so long, before and after, the
same ones must be next: clocks differ, and Kubernetes takes a moment to delete."""


class Costs(Enum):
    """What pod-deletion-cost does in this cluster."""

    COUNT = "count"
    """As it does by default since Kubernetes 1.22."""
    IGNORED = "ignored"
    """Its feature gate is off."""
    UNKNOWN = "unknown"
    """Kubernetes is older than 1.22, which compares ages in another way too: its order is not ported."""
    UNSEEN = "unseen"
    """The API server has not told yet."""
    BELIEVED = "believed"
    """It does not tell, but is of 1.22 or later: most likely they count."""

    def choose(self, workload: Workload) -> bool:
        """Whether what we write decides which of its pods go; OpenKruise reads costs in every cluster."""
        return not workload.goes_by_ordinals and (self in (Costs.COUNT, Costs.BELIEVED) or workload.owns_pods)


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
    if costs.choose(workload) or workload.goes_by_ordinals or costs is Costs.IGNORED:
        return None
    if costs is Costs.UNSEEN:
        return Refusal(reason="CannotPredict", sentence=_NOT_YET_KNOWN)
    return Refusal(
        reason="CannotPredict",
        sentence=(
            "This cluster has no pod-deletion-cost, so nobody can choose which pods of the Deployment go: it"
            " came with Kubernetes 1.22 (feature gate PodDeletionCost). Upgrade, or run these workers as a"
            " StatefulSet or as an OpenKruise CloneSet."
        ),
    )


def doubt(workload: Workload, costs: Costs) -> str:
    """A sentence for whoever scales where it is only believed that costs choose; else empty."""
    if costs is not Costs.BELIEVED or workload.owns_pods:
        return ""
    return (
        "Whether this cluster honours pod-deletion-cost could not be found out; it is taken to do so, as"
        " Kubernetes does by default. /readyz of drain_hook says what stands in the way."
    )


def own_order(pods: Collection[Pod], *, related: Collection[Pod], now: float) -> tuple[Pod, ...]:
    """The active pods of one ReplicaSet in the order in which they go when nobody's cost counts."""
    return deletion_order(pods, related=related, costs_count=False, now=now)


def as_likely(owner_uid: str, state: WorkloadState, count: int, *, now: float) -> frozenset[str]:
    """uids of the pods beyond the first `count` of a ReplicaSet that Kubernetes may take in place of those.

    A little earlier or later, or because it finds pods alike and takes any of them. None in a StatefulSet.
    """
    if state.workload.goes_by_ordinals:
        return frozenset()
    own = [pod for pod in state.pods if pod.owner_uid == owner_uid and pod.is_active]
    # Times are whole seconds: two pods that reach a power of two one after the other are seen between.
    moments = [now + half / 2 for half in range(-2 * STEADY_S, 2 * STEADY_S + 1)]
    is_before = certainly_before(own, related=state.pods, moments=moments)
    order = own_order(own, related=state.pods, now=now)
    end, index = count, 0
    while index < end < len(order):  # whoever may go before one that was added may be taken, too
        caught_up = (i for i in range(len(order) - 1, end - 1, -1) if not is_before(order[index], order[i]))
        end = next(caught_up, end - 1) + 1
        index += 1
    return frozenset(pod.uid for pod in order[count:end])


def unsteady_order(victims: Collection[Victim]) -> Refusal | None:
    """A refusal when somebody works among those of whom Kubernetes takes any.

    As soon as all are idle they are drained together. To drain them before would keep the idle ones from work
    until the last of the others has ended its own.
    """
    alike = {victim.pod.owner_uid for victim in victims if victim.may_stay}
    concerned = [victim for victim in victims if victim.pod.owner_uid in alike]
    busy = [victim for victim in concerned if victim.is_busy]
    if not busy:
        return None
    return Refusal(
        reason="CannotPredict",
        sentence=(
            "This cluster ignores pod-deletion-cost (the feature gate PodDeletionCost is off), and Kubernetes"
            " may take any of these, which are of one age, or take each other's turn as they grow older:"
            f" {name_victims(concerned)}. They are let go when none of them has anything to do, but now"
            f" {describe_victims(busy)}. Ask again then, or for another number of replicas."
        ),
    )


_NOT_YET_KNOWN = (
    "Whether this cluster honours pod-deletion-cost, and so who would go, is not known yet: the API server"
    " was not asked since this hook started, or gave no answer that tells. Ask again in a moment; /readyz of"
    " drain_hook says what stands in the way."
)
