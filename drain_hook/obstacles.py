"""What keeps a scale-down from being prepared at all, in sentences that say what to do instead. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

from drain_hook.admission import ScaleDown
from drain_hook.candidates import Candidate, most_removable
from drain_hook.explanations import describe_protected, enumerate_some, why_first
from drain_hook.mark_life import is_deletion_pending
from drain_hook.ordinals import no_others
from drain_hook.plans import Refusal, Victim
from drain_hook.victims import is_rollout, removals
from shared.pods import DELETION_COST, WorkloadState
from shared.pools import Pool

CANNOT_PREDICT = Refusal(
    reason="CannotPredict",
    sentence=(
        "Nobody can tell which pods Kubernetes would remove: more of them than are to go carry the lowest"
        f" possible {DELETION_COST}. Remove that annotation from some and ask again."
    ),
)


def rollout_in_the_way(state: WorkloadState, *, pool: Pool) -> Refusal | None:
    """A refusal while the workload is between two templates, unless its pool allows to scale then."""
    if state.workload.kind == "CloneSet" and state.workload.is_updating:
        return Refusal(reason="RolloutInProgress", sentence=_two_revisions(state))
    if pool.drain.during_rollout == "allow" or not is_rollout(state.workload, state.replica_sets, state.pods):
        return None
    if state.workload.observed_generation < state.workload.generation:
        return _not_yet(state, "its controller")
    return Refusal(
        reason="RolloutInProgress",
        sentence=(
            f"A rollout of {_name(state)} is in progress. Ask again when it is done, or set"
            f" drain.duringRollout: allow for pool {pool.name}."
        ),
    )


def deletions_in_the_way(victims: Iterable[Victim], state: WorkloadState) -> Refusal | None:
    """A refusal while Kubernetes still picks pods for an earlier scale-down, and busy ones were to be marked.

    With their low cost it could pick those at once, in place of others and before they are idle. Not so in a
    StatefulSet, where no cost decides.
    """
    if state.workload.goes_by_ordinals:
        return None
    if not is_deletion_pending(state) or not any(v.is_busy and not v.is_going for v in victims):
        return None
    return _not_yet(state, "its pods")


def protected_in_the_way(
    candidates: Mapping[str, Sequence[Candidate]],
    state: WorkloadState,
    scale_down: ScaleDown,
    *,
    pool: Pool,
    now: float,
) -> Refusal | None:
    """A refusal when so many pods could only go if a worker with a protected task went too."""
    most = {uid: most_removable(group) for uid, group in candidates.items()}
    counts = _counts(state, scale_down.to_replicas)
    short = [uid for uid in candidates if counts[uid] > most[uid]]
    if not short:
        return None
    possible = _lowest_possible(most, state, scale_down)
    names = [
        describe_protected(
            c.pod,
            filter(pool.is_protected, c.worker.tasks),
            why_first="" if state.workload.goes_by_ordinals else why_first(c.pod),
            now=now,
        )
        for uid in short
        for c in candidates[uid]
        if c.is_protected and c.worker
    ]
    return Refusal(
        reason="Protected",
        sentence=(
            f"{scale_down.to_replicas} replicas would stop a protected task: "
            f"{enumerate_some(names, separator=' | ')}. {no_others(state.workload.kind)}{_advice(possible)}"
        ),
        possible_replicas=possible,
    )


def _two_revisions(state: WorkloadState) -> str:
    return (
        f"{_name(state)} is being updated, or holds pods of two revisions by its updateStrategy. How many of"
        " each a scale-down removes cannot be told; ask again when all pods have one revision."
    )


def _not_yet(state: WorkloadState, who: str) -> Refusal:
    return Refusal(
        reason="RolloutInProgress",
        sentence=f"The last change of {_name(state)} has not reached {who} yet; ask again in a moment.",
    )


def _name(state: WorkloadState) -> str:
    return f"{state.workload.kind} {state.workload.namespace}/{state.workload.name}"


def _advice(possible: int | None) -> str:
    if possible is None:
        return "No pod can be removed now; ask again when these tasks are done."
    return f"The lowest number possible now is {possible}; ask for that, or again when these tasks are done."


def _lowest_possible(most: Mapping[str, int], state: WorkloadState, scale_down: ScaleDown) -> int | None:
    """The lowest number of replicas at which nobody protected has to go; None when there is none."""

    def is_possible(replicas: int) -> bool:
        return all(count <= most[uid] for uid, count in _counts(state, replicas).items())

    # Fewer replicas never make fewer pods go, so the possible ones are all at the upper end.
    range_ = range(scale_down.to_replicas, scale_down.from_replicas)
    first = bisect_left(range_, True, key=is_possible)
    return range_[first] if first < len(range_) and is_possible(range_[first]) else None


def _counts(state: WorkloadState, to_replicas: int) -> Mapping[str, int]:
    return removals(state.workload, state.replica_sets, state.pods, to_replicas=to_replicas)
