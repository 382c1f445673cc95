"""One review of a scale-down, step by step: gather, plan, mark, cancel, look again, hold, decide, tidy up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Protocol

from drain_hook import picture
from drain_hook.admission import ScaleDown, Verdict, check_claim
from drain_hook.cordon import Cordon, Pace, PodWriter, Workers
from drain_hook.mark_life import is_outdated, record_of, was_drained
from drain_hook.metadata_watch import MetadataWatch
from drain_hook.own_order import Costs
from drain_hook.picture import Picture
from drain_hook.planner import decide, decide_dry_run, plan_drain
from drain_hook.plans import DrainPlan, Victim
from drain_hook.refusals import OutOfTime, lost_lock, out_of_time, too_many, unsettled
from drain_hook.round_labels import RoundLabels
from drain_hook.round_locks import ensure_held
from drain_hook.steps import is_hopeless, step_that_fits
from drain_hook.telemetry import Telemetry
from drain_hook.warm_fleet import WarmFleet, WorkloadStates
from drain_hook.write_tally import KnownPaces, WriteTally
from shared.faults import FaultPoint, reach
from shared.leases import Lease
from shared.marks import Mark
from shared.pods import Pod, Workload
from shared.pools import Pool

MOST_PLANS = 4
"""A plan is made anew when a worker took a task while it was being drained; so often at most."""
CONFIRM_AFTER_S = 1.0
"""A round that lasted longer looks at its Lease again before it allows."""
INSPECT_S = 1.0
"""For an answer about tasks; a silent worker costs all of it."""
DATABASE_S = 2.0
"""For labels: the query takes milliseconds, unless the database is away."""


class Cluster(picture.Cluster, PodWriter, Protocol):
    """What a round reads and writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all rounds share."""

    cluster: Cluster
    cache: WorkloadStates
    warm: WarmFleet
    workers: Callable[[Pool], Workers]
    metadata: MetadataWatch
    telemetry: Telemetry
    pace: Pace
    clock: Callable[[], float]
    """Seconds since the epoch."""
    paces: KnownPaces = field(default_factory=KnownPaces)
    """How fast records could be written where there was not the time for all."""
    costs: Callable[[], Costs] = lambda: Costs.COUNT
    """What pod-deletion-cost does in this cluster."""


class Round:
    """A scale-down being prepared; `deadline` is by the event loop's clock."""

    def __init__(
        self, scale_down: ScaleDown, pool: Pool, around: Surroundings, *, ttl_s: float, deadline: float
    ) -> None:
        self.scale_down = scale_down
        self.pool = pool
        self.plan: DrainPlan | None = None
        """The last plan that was made."""
        self.seconds: dict[str, float] = {}
        """Spent in each phase."""
        self.given_back: dict[str, tuple[Pod, ...]] = {}
        """Pods released by this round, by why."""
        self._around = around
        self._ttl_s = ttl_s
        self._deadline = deadline
        self._tally = WriteTally(deadline=deadline, now=asyncio.get_running_loop().time)
        labels = RoundLabels(
            pool,
            around.metadata,
            phase=partial(self._phase, "database"),
            timeout_s=lambda: self._at_most(DATABASE_S),
        )
        self._picture = Picture(
            pool,
            cluster=around.cluster,
            cache=around.cache,
            warm=around.warm,
            labels=labels,
            clock=around.clock,
        )
        self._cordoned: dict[str, int | None] = {}
        """Cost by pod uid, of the victims that this round has marked and cancelled, or found so."""
        self._lease: Lease | None = None
        """Of the workload, while the round may write."""
        self._has_asked_all = False
        self._newly_marked: set[str] = set()
        """uids of those that had no mark before; also when the PATCH failed, for it may have taken effect."""

    # The steps, in order.

    async def check(self) -> Verdict | None:
        """The verdict if the live workload is not what the review claims, or draining is bypassed for it."""
        return check_claim(self.scale_down, await self._picture.look())

    async def rehearse(self) -> Verdict:
        """The answer to a dry run: what would happen now, with nothing touched."""
        if verdict := await self._gather():
            return verdict
        # Memory is good enough to choose by when the chosen are looked at after their cancel. Here nobody is.
        with self._phase("ask"):
            await self._ask(self._picture.fleet.workers)
        plan = self._make_plan()
        verdict = decide_dry_run(plan, scale_down=self.scale_down, pool=self.pool, now=self._now())
        return self._with_doubts(verdict, plan)

    async def prepare(self, lease: Lease) -> Verdict:
        """Drain the victims and decide.

        Raises BrokerUnavailable, KubernetesError, OutOfTime, and WorkloadLocked when the Lease is lost.
        """
        self._lease = lease
        if verdict := await self._gather():
            return verdict
        plan = self._make_plan()
        if verdict := self._too_many(plan):
            return verdict
        for _ in range(MOST_PLANS):
            if plan.refusal is not None:
                return self._decide(plan)
            await self._drain(plan)
            drained, plan = plan, self._make_plan()
            if _targets(plan) == _targets(drained):
                return await self._conclude(plan)
            plan = await self._plan_on_fresh_answers(drained)
        return self._decide(plan) if plan.refusal is not None else unsettled(self.scale_down)

    def out_of_time(self) -> Verdict:
        """The refusal when the time is up, with a step that would have fitted, if one is known."""
        writing = self._tally.so_far
        step = step_that_fits(writing)
        if step is not None:
            self._around.paces.learn(self.pool.key, writing, now=asyncio.get_running_loop().time())
        return out_of_time(self.scale_down, step=step)

    async def release_unused(self) -> None:
        """Give back marked pods that the plan does not use.

        Raises BrokerUnavailable, KubernetesError, and WorkloadLocked when the Lease is lost.
        """
        await self._release(self._unused(), reason="Unused")

    async def take_back(self) -> None:
        """Undo what this round did, unless the workload shows that it was applied after all. Raises too."""
        if self._newly_marked and not await self._was_applied():
            await self._release(self._newly_marked, reason="TakenBack")

    def has_leftovers(self, *, keeps_marks: bool) -> bool:
        """Whether there is something to release, or to take back."""
        return bool(self._unused() if keeps_marks else self._newly_marked)

    @property
    def seconds_left(self) -> float:
        return self._deadline - asyncio.get_running_loop().time()

    @property
    def workload(self) -> Workload | None:
        return self._picture.state.workload if self._picture.state else None

    # Gather and plan.

    async def _gather(self) -> Verdict | None:
        with self._phase("gather"):
            if verdict := await self.check():
                return verdict
            await self._picture.complete(timeout_s=self._at_most(INSPECT_S))
            reach(FaultPoint.AFTER_GATHER)
            return check_claim(self.scale_down, self._picture.known.workload)

    def _make_plan(self) -> DrainPlan:
        known = self._picture.known
        with self._phase("plan"):
            self.plan = plan_drain(
                scale_down=self.scale_down,
                workload=known.workload,
                replica_sets=known.replica_sets,
                pods=known.pods,
                fleet=self._picture.labelled(),
                pool=self.pool,
                costs=self._around.costs(),
                labels_problem=self._picture.labels_problem,
                now=self._now(),
            )
        reach(FaultPoint.AFTER_PLAN)
        return self.plan

    def _too_many(self, plan: DrainPlan) -> Verdict | None:
        """A refusal before anything is touched, when a round a moment ago has shown that there is no time."""
        unmarked = sum(victim.pod.mark is None for victim in plan.victims)
        earlier = self._around.paces.of(self.pool.key, now=asyncio.get_running_loop().time())
        if earlier is None:
            return None
        # At that pace, with the time that this review has: another caller may wait longer than the last one.
        writing = replace(earlier, pods=unmarked, budget_s=self._tally.so_far.budget_s)
        step = step_that_fits(writing)
        return None if step is None or not is_hopeless(writing) else too_many(self.scale_down, step=step)

    async def _plan_on_fresh_answers(self, drained: DrainPlan) -> DrainPlan:
        """What we remembered of the victims was out of date, and so may be the rest: ask everybody, once."""
        if not self._has_asked_all:
            self._has_asked_all = True
            with self._phase("ask"):
                await self._ask(self._picture.fleet.workers)
                if any(v.node in self._picture.fleet.silent for v in drained.victims if not v.is_silent):
                    # It may have died; then one pod less has to go, and nobody else in its place.
                    await self._picture.list_pods()
        return self._make_plan()

    # Mark, cancel, look again.

    async def _drain(self, plan: DrainPlan) -> None:
        """Bring every victim to where it is marked, consumes nothing, and has said what it still runs."""
        fresh = [
            victim for victim in plan.victims if (victim.pod.uid, victim.cost) not in self._cordoned.items()
        ]
        workload, settle_s = self._picture.known.workload, self._around.pace.settle_green_s
        drained = [v for v in fresh if was_drained(v, workload, now=self._now(), settle_s=settle_s)]
        consuming = await self._adopt(drained, plan) if drained else []
        # One that consumes may have been given back a moment ago, which our view of its pod has not heard of.
        unmarked = [victim for victim in fresh if victim not in drained]
        await self._cancel(await self._mark([*unmarked, *consuming], plan))

    async def _adopt(self, victims: Sequence[Victim], plan: DrainPlan) -> list[Victim]:
        """Make victims that are drained already this round's own; returns those that consume after all."""
        with self._phase("adopt"):
            records = {v.pod.uid: self._record(v, plan) for v in victims}
            outdated = [v for v in victims if is_outdated(v, records[v.pod.uid], after_s=self._ttl_s / 4)]
            written = await self._write((v.pod, records[v.pod.uid]) for v in outdated)
            here = [v for v in victims if v not in outdated or v.pod.uid in written]
            await self._look_at(here)
        consuming = [victim for victim in here if self._picture.queues_of(victim.node)]
        self._cordoned |= {v.pod.uid: v.cost for v in here if v not in consuming}
        return consuming

    async def _mark(self, victims: Sequence[Victim], plan: DrainPlan) -> list[Victim]:
        """Write the records; returns the victims without those whose pods are gone."""
        self._may_go_on()
        marks = [(victim.pod, self._record(victim, plan)) for victim in victims]
        self._newly_marked |= {pod.uid for pod, _ in marks if pod.mark is None}
        with self._phase("mark"):
            written = await self._write(marks)
        reach(FaultPoint.AFTER_MARKS)
        self._around.telemetry.marked(self.pool, len(written))
        return [victim for victim in victims if victim.pod.uid in written]

    async def _cancel(self, victims: Sequence[Victim]) -> None:
        self._may_go_on()
        running = [victim for victim in victims if victim.pod.phase == "Running"]
        green = {v.node for v in running if v.worker is not None and v.worker.is_green}
        with ExitStack() as phases:
            phases.enter_context(self._phase("cancel"))
            await self._cordon.cancel_unheard({v.node: v.queues for v in running if v.is_silent})
            asked_at = self._picture.asking()

            def acknowledged() -> None:
                phases.close()
                phases.enter_context(self._phase("confirm"))

            fleet = await self._cordon.cancel(
                {v.node: v.queues for v in running if not v.is_silent},
                within_s=self._at_most(self._around.pace.confirm_within_s(is_green=bool(green))),
                acknowledged=acknowledged,
            )
            await self._picture.learn(fleet, asked_at=asked_at)
        self._cordoned |= {victim.pod.uid: victim.cost for victim in victims}
        if green:
            await self._let_settle([victim for victim in running if victim.node in green])

    async def _let_settle(self, victims: Sequence[Victim]) -> None:
        """A green worker may take one more message after it said that it consumes nothing."""
        with self._phase("settle"):
            await asyncio.sleep(self._at_most(self._around.pace.settle_green_s))
            self._may_go_on()
            await self._look_at(victims)

    async def _look_at(self, victims: Iterable[Victim]) -> None:
        await self._ask([victim.node for victim in victims if victim.pod.phase == "Running"])

    async def _ask(self, nodes: Collection[str]) -> None:
        asked_at = self._picture.asking()
        fleet = await self._workers.inspect(nodes, timeout_s=self._at_most(INSPECT_S))
        await self._picture.learn(fleet, asked_at=asked_at)

    # Hold, decide.

    async def _conclude(self, plan: DrainPlan) -> Verdict:
        held = await self._look_behind_silence(await self._hold(plan))
        if held.refusal is None and _targets(held) != _targets(plan):
            return unsettled(self.scale_down)
        verdict = self._decide(held)
        # The last moment: whoever was paused on the way must not allow what another may be undoing.
        if verdict.allowed and not await self._held_lease.confirm(after_s=CONFIRM_AFTER_S):
            return lost_lock(self.scale_down)
        if verdict.allowed and not self._still_stands(held):
            return unsettled(self.scale_down)
        return verdict

    def _still_stands(self, plan: DrainPlan) -> bool:
        """Whether what others wrote on pods while these were drained leaves the choice as it is."""
        if not self._picture.catch_up():
            return True
        latest = self._make_plan()
        are_marked = all(v.pod.mark is not None and v.cost == v.pod.own_cost for v in latest.victims)
        return are_marked and _targets(latest) == _targets(plan)

    async def _hold(self, plan: DrainPlan) -> DrainPlan:
        """Wait a little for victims that are about to finish; silent ones would not tell."""
        now, pause_s = asyncio.get_running_loop().time, self._around.pace.hold_pause_s
        until = min(now() + self.pool.drain.hold_seconds, self._deadline)
        with self._phase("hold"):
            while plan.busy and not any(v.is_silent for v in plan.victims) and now() + pause_s < until:
                await asyncio.sleep(pause_s)
                await self._look_at(plan.busy)
                plan = self._make_plan()
        return plan

    async def _look_behind_silence(self, plan: DrainPlan) -> DrainPlan:
        """Before silent victims go: they do not say what they took since; Airflow's database may know."""
        if not (any(v.is_silent for v in plan.victims) and self._decide(plan).allowed):
            return plan
        await self._picture.read_labels_again()
        return self._make_plan()

    def _decide(self, plan: DrainPlan) -> Verdict:
        verdict = decide(plan, scale_down=self.scale_down, pool=self.pool, now=self._now())
        return self._with_doubts(verdict, plan)

    def _with_doubts(self, verdict: Verdict, plan: DrainPlan) -> Verdict:
        """Warned of victims whose versions are too old to be sure of."""
        workers = [victim.worker for victim in plan.victims if victim.worker is not None]
        doubt = self._around.warm.software.warning(self.pool, workers)
        return replace(verdict, warnings=(*verdict.warnings, doubt)) if doubt else verdict

    # Tidy up.

    def _unused(self) -> frozenset[str]:
        return frozenset(pod.uid for pod in self.plan.releases) if self.plan else frozenset()

    async def _release(self, uids: Collection[str], *, reason: str) -> None:
        """As the pods are now: what somebody else has written on them since they were planned with stays."""
        with self._phase("release"):
            state = await self._around.cluster.workload_state(**self.pool.workload_key._asdict())
            marked = [pod for pod in state.pods if pod.uid in uids and pod.has_mark_annotation]
            free = await self._cordon_while(self._ensure_held).release(marked)
        self.given_back[reason] = free
        self._around.telemetry.released(self.pool, reason, len(free))

    async def _was_applied(self) -> bool:
        planned_with = self._picture.known.workload
        workload = await self._picture.look()
        return (
            workload is not None
            and workload.generation != planned_with.generation
            and workload.replicas <= self.scale_down.to_replicas
        )

    # What the steps share.

    @cached_property
    def _workers(self) -> Workers:
        return self._around.workers(self.pool)

    @cached_property
    def _cordon(self) -> Cordon:
        """For what is of no use any more when the time is up."""
        return self._cordon_while(self._may_go_on)

    def _cordon_while(self, may_go_on: Callable[[], None]) -> Cordon:
        around = self._around
        return Cordon(
            self.pool,
            cluster=around.cluster,
            workers=self._workers,
            pace=around.pace,
            may_go_on=may_go_on,
        )

    @property
    def _held_lease(self) -> Lease:
        assert self._lease is not None, "prepare() has not begun"
        return self._lease

    def _ensure_held(self) -> None:
        ensure_held(self._held_lease)

    def _record(self, victim: Victim, plan: DrainPlan) -> Mark:
        return record_of(victim, plan, scale_down=self.scale_down, state=self._picture.known, now=self._now())

    async def _write(self, marks: Iterable[tuple[Pod, Mark]]) -> set[str]:
        """Put records on pods and see what became of them; returns the uids of those still there."""
        asked = list(marks)
        with self._tally.writing(len(asked)):
            written = await self._cordon.mark(asked, each=self._tally.one_more)
        self._picture.see(written, gone={pod.uid for pod, _ in asked} - {pod.uid for pod in written})
        return {pod.uid for pod in written}

    def _now(self) -> float:
        return self._around.clock()

    def _phase(self, name: str) -> AbstractContextManager[None]:
        return self._around.telemetry.phase(name, self.seconds)

    def _at_most(self, seconds: float) -> float:
        """So long, or until the deadline."""
        return max(0.05, min(seconds, self.seconds_left))

    def _may_go_on(self) -> None:
        """Before a step, or before the next of many requests: what has been sent may still take effect."""
        if self.seconds_left <= 0:
            raise OutOfTime("the budget of the review is used up")
        self._ensure_held()


def _targets(plan: DrainPlan) -> frozenset[tuple[str, int | None]]:
    return frozenset((victim.pod.uid, victim.cost) for victim in plan.victims)
