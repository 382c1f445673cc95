"""plan_drain(): which pods leave and what to write on them; decide(): whether they may leave now. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from drain_hook.admission import ScaleDown, Verdict
from drain_hook.availability import with_availability
from drain_hook.candidates import Candidate, candidates_of, choose
from drain_hook.explanations import audit, describe_victims, moment, name_victims
from drain_hook.mark_life import is_of_round, is_unscaled_since
from drain_hook.obstacles import (
    CANNOT_PREDICT,
    deletions_in_the_way,
    labels_in_the_way,
    protected_in_the_way,
    rollout_in_the_way,
)
from drain_hook.own_order import Costs, as_likely, doubt, no_choice, unknown_order, unsteady_order
from drain_hook.plans import DrainPlan, Refusal, Victim
from drain_hook.victims import removal_class, removals
from shared.hook_warnings import DRY_RUN
from shared.pods import INT32_MIN, Pod, ReplicaSet, Workload, WorkloadState, parse_cost
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
    costs: Costs = Costs.COUNT,
    labels_problem: str = "",
    now: float,
) -> DrainPlan:
    """Who leaves. A worker that is in neither part of `fleet` counts as silent, and so does one in both.

    `labels_problem` says why the labels of Airflow's tasks could not be read, where they could not.
    """
    pods = with_availability(workload, pods, now=now)
    state = WorkloadState(workload=workload, replica_sets=tuple(replica_sets), pods=pods)
    candidates = {
        rs.uid: candidates_of(rs.uid, state, fleet=fleet, pool=pool, costs=costs, now=now)
        for rs in state.replica_sets
    }
    everyone = [candidate for group in candidates.values() for candidate in group]
    plan = DrainPlan(
        round=_name(scale_down, state),
        since=now,
        silent=tuple(sorted(c.node for c in everyone if c.is_silent)),
        protected=tuple(sorted(c.node for c in everyone if c.is_protected)),
        no_choice=no_choice(workload, costs),
        doubt=doubt(workload, costs),
    )
    if refusal := (
        unknown_order(workload, costs)
        or rollout_in_the_way(state, pool=pool, now=now)
        or labels_in_the_way(everyone, state, problem=labels_problem)
        or protected_in_the_way(candidates, state, scale_down, pool=pool, no_choice=plan.no_choice)
    ):
        return replace(plan, refusal=refusal)
    writes_costs = costs.choose(workload)
    counts = removals(workload, state.replica_sets, state.pods, to_replicas=scale_down.to_replicas)
    besides = {
        uid: frozenset() if writes_costs else as_likely(uid, state, counts[uid], now=now)
        for uid in candidates
    }
    leaving = {
        uid: _victims(group, counts[uid], besides=besides[uid], writes_costs=writes_costs, pool=pool)
        for uid, group in candidates.items()
    }
    plan = replace(plan, spares=sum(map(len, besides.values())))
    victims = tuple(victim for group in leaving.values() for victim in group)
    if refusal := (
        _unpredictable(leaving, candidates) or deletions_in_the_way(victims, state)
        if writes_costs
        else unsteady_order(victims)
    ):
        return replace(plan, refusal=refusal)
    return _complete(plan, victims, [c.pod for c in everyone], scale_down=scale_down, state=state)


def decide(plan: DrainPlan, *, scale_down: ScaleDown, pool: Pool, now: float) -> Verdict:
    """The verdict on a plan made from what the victims said after their consumers were cancelled.

    Drained and Proceeding allow; Busy and the plan's own refusal deny.
    """
    notes = audit(plan)
    if plan.refusal:
        return Verdict(allowed=False, reason=plan.refusal.reason, message=plan.refusal.sentence, audit=notes)
    if not plan.busy:
        why = plan.no_choice.strip() if scale_down.kind == "Deployment" else ""
        warnings = tuple(filter(None, (why, plan.doubt)))
        message = _drained(plan, scale_down)
        return Verdict(allowed=True, reason="Drained", message=message, warnings=warnings, audit=notes)
    share = f"{len(plan.busy)} of the {len(plan.victims)} workers to go"
    work = describe_victims(plan.busy)
    if because := _reason_to_proceed(plan, pool=pool, now=now):
        message = (
            f"Allowed with work left on {share}, because {because}."
            f" They have their grace period to end it: {work}."
        )
        warnings = tuple(filter(None, (message, plan.doubt)))
        return Verdict(allowed=True, reason="Proceeding", message=message, warnings=warnings, audit=notes)
    message = (
        f"Waiting for {share}: {work}. {plan.no_choice}They take no new tasks and finish what"
        " they have; ask again later, as a HorizontalPodAutoscaler does by itself."
        f"{_end_of_wait(plan, pool=pool)}"
    )
    return Verdict(allowed=False, reason="Busy", message=message, audit=notes)


def decide_dry_run(plan: DrainPlan, *, scale_down: ScaleDown, pool: Pool, now: float) -> Verdict:
    """Always allows; the warnings say who would leave, each once, or why it would be refused."""
    real = decide(plan, scale_down=scale_down, pool=pool, now=now)
    outcome = "allowed" if real.allowed else "refused"
    message = f"{DRY_RUN} {outcome} now. {real.message}"
    idle = [victim for victim in plan.victims if not victim.is_busy]
    # Where nobody is busy the message has named them.
    others = (f"To go beside them: {describe_victims(idle)}.",) if plan.busy and idle else ()
    more = [warning for warning in real.warnings if warning not in message]
    return Verdict(
        allowed=True, reason="DryRun", message=message, warnings=(message, *others, *more), audit=real.audit
    )


def _victims(
    candidates: Sequence[Candidate],
    count: int,
    *,
    besides: frozenset[str],
    writes_costs: bool,
    pool: Pool,
) -> tuple[Victim, ...]:
    """`besides`: uids of pods that may go in place of the first `count`."""
    chosen = list(choose(candidates, count))
    chosen += [(candidate, True) for candidate in candidates if candidate.pod.uid in besides]
    leaving = {candidate.pod.uid for candidate, _ in chosen}
    survivors = [candidate.pod for candidate in candidates if candidate.pod.uid not in leaving]
    cost = _cost_to_write([c.pod for c, _ in chosen], survivors=survivors) if writes_costs else None
    return tuple(
        Victim(
            pod=candidate.pod,
            node=candidate.node,
            worker=candidate.worker,
            is_silent=candidate.is_silent,
            believed=candidate.believed,
            is_forced=is_forced,
            is_going=candidate.is_going,
            may_stay=bool(besides),
            cost=cost,
            queues=tuple(sorted(candidate.queues)) or pool.queues,
        )
        for candidate, is_forced in chosen
    )


def _cost_to_write(leaving: Sequence[Pod], *, survivors: Sequence[Pod]) -> int:
    """One value below every survivor's and below 0; one that stands there from before, if it is so low."""
    limit = min(map(_lowest_cost, survivors), default=0)
    written = [cost for pod in leaving if (cost := pod.own_cost) is not None and cost < min(limit, 0)]
    return min(written, default=max(INT32_MIN, min(limit, 0) - 1))


def _unpredictable(
    leaving: Mapping[str, Sequence[Victim]], candidates: Mapping[str, Sequence[Candidate]]
) -> Refusal | None:
    return None if all(_is_predictable(leaving[uid], candidates[uid]) for uid in leaving) else CANNOT_PREDICT


def _is_predictable(victims: Sequence[Victim], candidates: Sequence[Candidate]) -> bool:
    """Whether Kubernetes will remove exactly these, without criteria that change all the time."""
    leaving = {victim.pod.uid for victim in victims}
    last = max(((*removal_class(v.pod), v.cost or 0) for v in victims), default=None)
    first = min(
        ((*removal_class(c.pod), _lowest_cost(c.pod)) for c in candidates if c.pod.uid not in leaving),
        default=None,
    )
    return last is None or first is None or last < first


def _lowest_cost(survivor: Pod) -> int:
    """Of what stands on it now and what it gets back when it is released, perhaps before the victims go."""
    if survivor.mark is None:
        return survivor.deletion_cost
    return min(survivor.deletion_cost, parse_cost(survivor.foreign_cost))


def _complete(
    plan: DrainPlan,
    victims: tuple[Victim, ...],
    pods: Sequence[Pod],
    *,
    scale_down: ScaleDown,
    state: WorkloadState,
) -> DrainPlan:
    """The plan with its victims, and what the marks of earlier reviews mean for it."""
    leaving = {victim.pod.uid for victim in victims}
    releases = tuple(pod for pod in pods if pod.mark and pod.uid not in leaving)
    started = [
        pod.mark.since
        for pod in pods
        if pod.mark
        and is_unscaled_since(pod.mark, pod, state)
        and (pod.uid in leaving or is_of_round(pod.mark, scale_down))
    ]
    return replace(
        plan,
        victims=victims,
        releases=releases,
        since=min((plan.since, *started)),
        adopts=bool(victims) and not releases and all(_is_marked(v, scale_down, state) for v in victims),
    )


def _name(scale_down: ScaleDown, state: WorkloadState) -> str:
    """The same until the workload is scaled: annotations do not change a ReplicaSet's generation."""
    generation = max((rs.generation for rs in state.replica_sets), default=state.workload.generation)
    return f"{scale_down.from_replicas}to{scale_down.to_replicas}-g{generation}"


def _is_marked(victim: Victim, scale_down: ScaleDown, state: WorkloadState) -> bool:
    """Whether all that this round writes on the pod stands there already."""
    mark = victim.pod.mark
    return (
        mark is not None
        and (
            victim.is_going or (is_of_round(mark, scale_down) and is_unscaled_since(mark, victim.pod, state))
        )
        and victim.pod.own_cost == victim.cost
    )


def _drained(plan: DrainPlan, scale_down: ScaleDown) -> str:
    change = f"From {scale_down.from_replicas} to {scale_down.to_replicas} replicas"
    if not plan.victims:
        return f"{change} no pod has to go."
    if plan.spares:
        leaving = len(plan.victims) - plan.spares
        go = "goes" if leaving == 1 else "go"
        return (
            f"{change} {leaving} of these {go}, whichever Kubernetes takes, with nothing left to do:"
            f" {name_victims(plan.victims)}. The others work again after that."
        )
    return f"{change} these go, with nothing left to do: {name_victims(plan.victims)}."


def _reason_to_proceed(plan: DrainPlan, *, pool: Pool, now: float) -> str:
    """Why busy workers may go; empty when they may not."""
    if pool.drain.when_busy == "proceed":
        return f"drain.whenBusy of pool {pool.name} is proceed"
    if pool.drain.max_wait is not None and now - plan.since >= pool.drain.max_wait:
        return (
            f"they have been waited for since {moment(plan.since)}, longer than the drain.maxWait of pool"
            f" {pool.name}"
        )
    return ""


def _end_of_wait(plan: DrainPlan, *, pool: Pool) -> str:
    if pool.drain.max_wait is not None:
        return f" They go in any case from {moment(plan.since + pool.drain.max_wait)} on (drain.maxWait)."
    if any(victim.is_silent for victim in plan.busy):
        return (
            " Nothing ends the waiting for one that never answers: look at its pod and delete it if it hangs,"
            f" or set drain.maxWait of pool {pool.name}."
        )
    return ""
