"""What keeps a scale-down from being prepared at all, in sentences that say what to do instead. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from drain_hook.admission import ScaleDown
from drain_hook.candidates import Candidate, most_removable
from drain_hook.explanations import describe_protected, duration, enumerate_some, why_first
from drain_hook.mark_life import is_deletion_pending, may_be_lowered_unseen
from drain_hook.plans import Refusal, Victim
from drain_hook.refusals import BY_HAND
from drain_hook.rollouts import (
    is_rollout,
    present_set,
    seconds_since_a_pod_moved,
    seconds_without_progress,
)
from drain_hook.victims import removals_at
from shared.pods import DELETION_COST, WorkloadState
from shared.pools import Pool

CANNOT_PREDICT = Refusal(
    reason="CannotPredict",
    sentence=(
        "Nobody can tell which pods Kubernetes would remove: more of them than are to go carry the lowest"
        f" possible {DELETION_COST}. Remove that annotation from some and ask again."
    ),
)


def rollout_in_the_way(state: WorkloadState, *, pool: Pool, now: float) -> Refusal | None:
    """A refusal while the workload is between two templates, unless its pool allows to scale then.

    A rollout that has not moved for `drain.maxRolloutWait` is stuck: it must not keep the workload large for
    ever, and what a scale-down takes from it can be foreseen as nothing else moves.
    """
    workload, drain = state.workload, pool.drain
    if workload.kind == "CloneSet" and workload.is_updating:
        return Refusal(reason="RolloutInProgress", sentence=_two_revisions(state))
    if drain.during_rollout == "allow" or not is_rollout(workload, state.replica_sets, state.pods):
        return None
    if workload.owns_pods and workload.observed_generation < workload.generation:
        return _not_yet(state, "its controller")
    if _stuck_s(state, now=now) >= drain.max_rollout_wait:
        return None
    return Refusal(reason="RolloutInProgress", sentence=_amid_a_rollout(state, pool=pool))


def deletions_in_the_way(victims: Iterable[Victim], state: WorkloadState) -> Refusal | None:
    """A refusal while Kubernetes still picks pods for an earlier scale-down, and others were to be marked.

    With their low cost it could pick those at once, in place of those that were drained for it. Idle ones are
    no exception before they are cancelled: that they are idle is a memory, seconds old. Not so where no cost
    decides, as in a StatefulSet.
    """
    new = [victim for victim in victims if not victim.is_going]
    busy = [victim for victim in new if victim.is_busy]
    unmarked = [victim for victim in new if victim.pod.mark is None and victim.worker is not None]
    if ((busy or unmarked) and is_deletion_pending(state)) or (
        may_be_lowered_unseen(state) and any(victim.pod.mark is None for victim in busy)
    ):
        return _not_yet(state, "its pods")
    return None


def labels_in_the_way(
    candidates: Iterable[Candidate], state: WorkloadState, *, problem: str
) -> Refusal | None:
    """A refusal when labels could not be read, unless all workers are idle: then there is none to honour.

    Neither drain.maxWait nor whenBusy: proceed ends it: no wait makes a protected task an unprotected one.
    """
    working = sorted(candidate.pod.name for candidate in candidates if not candidate.is_idle)
    if not problem or not working:
        return None
    return Refusal(
        reason="LabelsUnknown",
        sentence=(
            f"Which tasks of {_name(state)} must not be stopped is not known, since Airflow's metadata"
            f" database cannot be read: {problem} Workers with tasks, or without an answer:"
            f" {enumerate_some(working)}. Ask again when it can be read, or when all are idle. {BY_HAND}"
        ),
    )


def protected_in_the_way(
    candidates: Mapping[str, Sequence[Candidate]],
    state: WorkloadState,
    scale_down: ScaleDown,
    *,
    pool: Pool,
    no_choice: str,
) -> Refusal | None:
    """A refusal when so many pods could only go if a worker with a protected task went too."""
    most = {uid: most_removable(group) for uid, group in candidates.items()}
    counts = removals_at(state.workload, state.replica_sets, state.pods)(scale_down.to_replicas)
    short = [uid for uid in candidates if counts[uid] > most[uid]]
    if not short:
        return None
    possible = _lowest_possible(most, state, scale_down)
    names = [
        describe_protected(
            c.pod,
            c.untouchable,
            why_first="" if state.workload.goes_by_ordinals else why_first(c.pod),
        )
        for uid in short
        for c in sorted(candidates[uid], key=lambda c: c.pod.name)
        if c.is_protected
    ]
    are_known = all(pool.is_protected(t) for uid in short for c in candidates[uid] for t in c.untouchable)
    what = "a protected task" if are_known else "a task that is protected, or whose labels cannot be told"
    return Refusal(
        reason="Protected" if are_known else "LabelsUnknown",
        sentence=(
            f"{scale_down.to_replicas} replicas would stop {what}: "
            f"{enumerate_some(names, separator=' | ')}. {no_choice}{_advice(possible)}"
        ),
        possible_replicas=possible,
    )


def _stuck_s(state: WorkloadState, *, now: float) -> float:
    if state.workload.owns_pods:
        return seconds_since_a_pod_moved(state.pods, now=now)
    return seconds_without_progress(state.workload, state.replica_sets, now=now)


def _two_revisions(state: WorkloadState) -> str:
    return (
        f"{_name(state)} is being updated, or holds pods of two revisions by its updateStrategy. How many of"
        " each a scale-down removes cannot be told; ask again when all pods have one revision."
    )


def _amid_a_rollout(state: WorkloadState, *, pool: Pool) -> str:
    limit = duration(pool.drain.max_rollout_wait)
    return (
        f"A rollout of {_name(state)} is in progress{_former_pods(state)}. Ask again when it is done, or set"
        f" drain.duringRollout: allow for pool {pool.name}. When it has made no progress for {limit},"
        " scale-downs go on beside it."
    )


def _former_pods(state: WorkloadState) -> str:
    if state.workload.owns_pods:
        return ""
    present = present_set(state.workload, state.replica_sets)
    pods = [pod for pod in state.pods if pod.is_active]
    former = sum(present is None or pod.owner_uid != present.uid for pod in pods)
    return f": {former} of its {len(pods)} pods are of a former template"


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
    """The lowest number of replicas at which nobody protected has to go; None when there is none.

    Amid a rollout a number may be possible below one that is not, as shares are rounded: so try all.
    """
    counts_at = removals_at(state.workload, state.replica_sets, state.pods)

    def is_possible(replicas: int) -> bool:
        return all(count <= most[uid] for uid, count in counts_at(replicas).items())

    return next(filter(is_possible, range(scale_down.to_replicas, scale_down.from_replicas)), None)
