"""What a mark says, and how long it lives: from the mark and the live objects alone. Pure.

A mark stays while its pod goes away, while Kubernetes has pods left to delete for a scale-down that was let
through, and while a refused round is still being asked for. In every other case it is taken back.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from enum import StrEnum

from drain_hook.admission import ScaleDown
from drain_hook.plans import DrainPlan, Victim
from shared.marks import Mark
from shared.pods import Pod, ReplicaSet, Workload, WorkloadState

MOST_SKEW_S = 300.0
"""How far the clock of whoever wrote a mark may be ahead; an edited record must not live for ever."""


class Ending(StrEnum):
    """Why a mark is taken back."""

    COPIED = "Copied"
    """The record is about another pod, or nobody can read it: a template or a person copied it."""
    FOREIGN = "Foreign"
    """Made for another workload, such as one of the same name that was deleted since."""
    SCALED_UP = "ScaledUp"
    """The workload was scaled since, and wants no fewer pods than before the round."""
    SPARED = "Spared"
    """The scale-down is done and Kubernetes deleted another pod in place of this one."""
    LEFT = "Left"
    """The scale-down is done; it was one of several of whom Kubernetes was to take any."""
    FORGOTTEN = "Forgotten"
    """Refused, and no review has asked for it again in time."""
    DISMISSED = "Dismissed"
    """The configuration does not name its pool any more."""


def record_of(
    victim: Victim, plan: DrainPlan, *, scale_down: ScaleDown, state: WorkloadState, now: float
) -> Mark:
    """The record to write on a victim; what an earlier round wrote there is carried on."""
    pod, earlier = victim.pod, victim.pod.mark
    if earlier and victim.is_going:
        # It goes by the scale-down that was let through, whatever becomes of this one.
        return replace(earlier, cost=victim.cost, foreign_cost=_foreign_cost(victim))
    goes_on = (
        earlier is not None and is_of_round(earlier, scale_down) and is_unscaled_since(earlier, pod, state)
    )
    return Mark(
        round=plan.round,
        workload_uid=state.workload.uid,
        pod_uid=pod.uid,
        from_replicas=scale_down.from_replicas,
        to_replicas=scale_down.to_replicas,
        generation=earlier.generation if earlier and goes_on else state.workload.generation,
        replica_set_generation=_replica_set_generation(pod, state),
        since=earlier.since if earlier else plan.since,
        asked_at=now,
        queues=victim.queues,
        cost=victim.cost,
        foreign_cost=_foreign_cost(victim),
        may_stay=victim.may_stay or None,
    )


def _foreign_cost(victim: Victim) -> str | None:
    """The cost that the mark's replaces; none where it writes none."""
    return None if victim.cost is None else victim.pod.foreign_cost


def is_of_round(mark: Mark, scale_down: ScaleDown) -> bool:
    """Whether it was written for such a scale-down."""
    return mark.is_of(
        workload_uid=scale_down.workload_uid,
        from_replicas=scale_down.from_replicas,
        to_replicas=scale_down.to_replicas,
    )


def is_unscaled_since(mark: Mark, pod: Pod, state: WorkloadState) -> bool:
    """Whether the workload was at most annotated since its pod was marked, as far as its objects tell."""
    workload = state.workload
    return mark.workload_uid == workload.uid and (
        mark.generation == workload.generation
        or (mark.from_replicas, mark.replica_set_generation)
        == (workload.replicas, _replica_set_generation(pod, state))
    )


def was_drained(victim: Victim, workload: Workload, *, now: float, settle_s: float) -> bool:
    """Whether an earlier review has cancelled its consumers; a green worker must have had time to settle."""
    mark, is_green = victim.pod.mark, victim.worker is not None and victim.worker.is_green
    if mark is None or mark.workload_uid != workload.uid:
        return False
    return not is_green or now - mark.asked_at > settle_s


def is_outdated(victim: Victim, record: Mark, *, after_s: float) -> bool:
    """Whether what stands on the pod must be replaced by this record: it says something else, or is old."""
    pod, mark = victim.pod, victim.pod.mark
    return (
        mark is None
        or pod.own_cost != record.cost
        or mark != replace(record, asked_at=mark.asked_at)
        or record.asked_at - mark.asked_at > after_s
    )


def ending_of(pod: Pod, state: WorkloadState, *, now: float, ttl_s: float) -> Ending | None:
    """Why the mark on this pod must be taken back now; None when it stays, or there is none."""
    if pod.is_terminating or not pod.has_mark_annotation:
        return None
    if pod.mark is None:
        return Ending.COPIED
    if pod.mark.workload_uid != state.workload.uid:
        return Ending.FOREIGN
    if was_let_through(pod.mark, state.workload):
        if is_deletion_pending(state):
            return None
        return Ending.LEFT if pod.mark.may_stay else Ending.SPARED
    if _was_scaled_up(pod, pod.mark, state):
        return Ending.SCALED_UP
    return None if -MOST_SKEW_S <= now - pod.mark.asked_at <= ttl_s else Ending.FORGOTTEN


def was_let_through(mark: Mark, workload: Workload) -> bool:
    """Whether the workload has been lowered since the mark was written; an older view does not tell."""
    return workload.replicas < mark.from_replicas and workload.generation > mark.generation


def _was_scaled_up(pod: Pod, mark: Mark, state: WorkloadState) -> bool:
    """Beyond its old size, or back to it after it was lowered; a view older than the mark tells neither.

    A Deployment that was only annotated since, by a person or a controller, still has its round.
    """
    if state.workload.generation <= mark.generation:
        return False
    return (
        state.workload.replicas > mark.from_replicas
        or _replica_set_generation(pod, state) > mark.replica_set_generation
    )


def _replica_set_generation(pod: Pod, state: WorkloadState) -> int:
    return next((rs.generation for rs in state.replica_sets if rs.uid == pod.owner_uid), 0)


def is_deletion_pending(state: WorkloadState) -> bool:
    """Whether the controllers still have pods to delete for the replicas that the workload wants now."""
    workload, counts = state.workload, _active_pods(state)
    in_use = [rs for rs in state.replica_sets if rs.replicas > 0 or counts[rs.uid] > 0]
    return (
        any(counts[rs.uid] > rs.replicas for rs in in_use)
        or any(_has_not_heard(rs, workload) for rs in in_use)
        # During a rollout there are more pods than replicas by right; the lines above see those deletions.
        or (len(in_use) <= 1 and counts.total() > workload.replicas)
    )


def may_be_lowered_unseen(state: WorkloadState) -> bool:
    """Whether the controller may be about to carry out a scale-down that was let through and then reverted.

    It has not seen the workload's last change, which is most often an annotation; but somebody has been
    drained since an earlier one.
    """
    workload = state.workload
    return workload.observed_generation < workload.generation and any(
        pod.is_active
        and pod.mark is not None
        and pod.mark.workload_uid == workload.uid
        and pod.mark.generation < workload.generation
        for pod in state.pods
    )


def _has_not_heard(replica_set: ReplicaSet, workload: Workload) -> bool:
    """Whether our copy of a ReplicaSet dates from before the Deployment controller passed the new size on.

    What else changes the workload's generation, as annotations do, is of no interest here.
    """
    if replica_set.replicas == 0:
        return False
    if replica_set.desired_replicas is None:
        return workload.observed_generation < workload.generation
    return replica_set.desired_replicas != workload.replicas


def _active_pods(state: WorkloadState) -> Counter[str]:
    return Counter(pod.owner_uid for pod in state.pods if pod.is_active)
