"""plan_drain(): which pods leave, and decide(): whether they may leave now. Pure."""

from __future__ import annotations

from collections.abc import Collection

from drain_hook.admission import ScaleDown, Verdict
from drain_hook.plans import DrainPlan
from shared.pods import Pod, ReplicaSet, Workload
from shared.pools import Pool
from shared.workers import Fleet


def plan_drain(
    *,
    scale_down: ScaleDown,
    workload: Workload,
    replica_sets: Collection[ReplicaSet],
    pods: Collection[Pod],
    fleet: Fleet,
    pool: Pool,
    now: float,
) -> DrainPlan:
    """Who leaves. A worker that is in neither part of `fleet` counts as silent."""
    raise NotImplementedError


def decide(plan: DrainPlan, *, scale_down: ScaleDown, pool: Pool, now: float) -> Verdict:
    """The verdict on a plan made from what the victims said after their consumers were cancelled.

    Drained or Proceeding allow; Busy and the plan's refusal deny.
    """
    raise NotImplementedError


def decide_dry_run(plan: DrainPlan, *, scale_down: ScaleDown, pool: Pool, now: float) -> Verdict:
    """Always allows; the warnings say who would leave, or why it would be refused."""
    raise NotImplementedError
