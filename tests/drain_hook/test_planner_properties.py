"""What holds for every plan, whatever the pods, marks and tasks are."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from drain_hook.mark_life import is_deletion_pending, record_of
from drain_hook.planner import decide, decide_dry_run, plan_drain
from drain_hook.plans import DrainPlan, Refusal, Victim
from drain_hook.victims import deletion_order, removal_class, removals
from shared.pods import INT32_MIN, Pod, ReplicaSet, Workload, WorkloadState
from shared.pools import Pool
from shared.workers import Fleet, Task, WorkerSnapshot
from tests.drain_hook.builders import (
    NOW,
    fleet,
    mark,
    marked,
    names,
    pod,
    pool,
    replica_set,
    scale_down,
    task,
    worker,
    workload,
)

RUNNING_S = st.none() | st.integers(0, 10_000).map(float)
TASKS = st.builds(task, st.sampled_from(["reports.build", "heavy.crunch", "weightless.ping"]), RUNNING_S)
PROTECTED_TASKS = st.builds(task, st.just("billing.close"), RUNNING_S)
LABELS = [
    {"task": "billing.*", "protect": True},
    {"task": "heavy.*", "weight": 5},
    {"task": "weightless.*", "weight": 0},
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """All that a plan is made of."""

    workload: Workload
    replica_sets: tuple[ReplicaSet, ...]
    pods: tuple[Pod, ...]
    fleet: Fleet
    pool: Pool
    to_replicas: int

    @property
    def state(self) -> WorkloadState:
        return WorkloadState(workload=self.workload, replica_sets=self.replica_sets, pods=self.pods)

    def plan(self, **changes: Any) -> DrainPlan:
        inputs: dict[str, Any] = {
            "scale_down": scale_down(self.workload.replicas, self.to_replicas),
            "workload": self.workload,
            "replica_sets": self.replica_sets,
            "pods": self.pods,
            "fleet": self.fleet,
            "pool": self.pool,
            "now": NOW,
        }
        return plan_drain(**(inputs | changes))

    def survivors(self, plan: DrainPlan, owner_uid: str) -> list[Pod]:
        """Active pods of a ReplicaSet that the plan leaves alone."""
        leaving = {victim.pod.uid for victim in plan.victims}
        return [p for p in self.pods if p.owner_uid == owner_uid and p.is_active and p.uid not in leaving]

    def answer(self, p: Pod) -> WorkerSnapshot | None:
        node = f"celery@{p.name}"
        return None if node in self.fleet.silent else self.fleet.workers.get(node)


def is_protected(snapshot: WorkerSnapshot | None) -> bool:
    return snapshot is not None and any(t.name.startswith("billing.") for t in snapshot.tasks)


@st.composite
def some_pods(draw: st.DrawFn, index: int, owner_uid: str) -> Pod:
    """Ready as a rule, so that there is something to choose."""
    name = f"w-{index}"
    is_ready = draw(st.sampled_from([True, True, True, False]))
    record = draw(
        st.none()
        | st.builds(
            mark,
            st.just(name),
            to_replicas=st.integers(0, 8),
            generation=st.sampled_from([2, 3]),
            cost=st.sampled_from([-1, -2]),
            workload_uid=st.sampled_from(["deployment-1", "deployment-1", "former"]),
        )
    )
    foreign = draw(st.sampled_from([None, None, None, "7", "-3", str(INT32_MIN)]))
    return pod(
        name,
        owner_uid=owner_uid,
        is_ready=is_ready,
        host="" if not is_ready and draw(st.booleans()) else draw(st.sampled_from(["a", "b", "c"])),
        phase="Running" if is_ready else draw(st.sampled_from(["Pending", "Unknown", "Running"])),
        ready_since=NOW - draw(st.integers(1, 10_000)) if is_ready else None,
        is_terminating=draw(st.sampled_from([False] * 6 + [True])),
        cost_annotation=str(record.cost) if record and draw(st.booleans()) else foreign,
        mark=record,
    )


@st.composite
def scenes(
    draw: st.DrawFn, *, replica_sets: int = 2, lowest_costs: bool = True, protected: bool = True
) -> Scene:
    """Up to ten pods of one or two ReplicaSets, with whatever workers can be."""
    tasks = TASKS | PROTECTED_TASKS if protected else TASKS
    uids = [f"rs-{n}" for n in range(draw(st.integers(1, replica_sets)))]
    count = draw(st.integers(1, 10))
    pods = [draw(some_pods(index, draw(st.sampled_from(uids)))) for index in range(count)]
    if not lowest_costs:
        pods = [replace(p, cost_annotation=None) if p.deletion_cost == INT32_MIN else p for p in pods]
    workers = [
        worker(p.name, *draw(st.lists(tasks, max_size=3)), reserved=tuple(draw(st.lists(tasks, max_size=1))))
        for p in pods
        if p.host and draw(st.sampled_from([True] * 5 + [False]))
    ]
    sizes = Counter(p.owner_uid for p in pods if p.is_active)
    replicas = max(1, sum(sizes.values()) + draw(st.integers(-2, 2)))
    return Scene(
        workload=workload(replicas=replicas, status_replicas=replicas),
        replica_sets=tuple(
            replica_set(uid, sizes[uid], revision=n, created_at=float(n), desired_replicas=replicas)
            for n, uid in enumerate(uids)
        ),
        pods=tuple(pods),
        fleet=Fleet(workers={w.node: w for w in workers}),
        pool=pool(labels=LABELS, drain={"duringRollout": "allow"}),
        to_replicas=draw(st.integers(0, replicas - 1)),
    )


def by_owner(plan: DrainPlan) -> dict[str, list[Victim]]:
    owners = {victim.pod.owner_uid for victim in plan.victims}
    return {uid: [v for v in plan.victims if v.pod.owner_uid == uid] for uid in owners}


@given(scene=scenes())
def test_no_victim_is_protected(scene: Scene) -> None:
    """Not a forced one either: then the whole scale-down is refused."""
    plan = scene.plan()
    assert not [v.pod.name for v in plan.victims if is_protected(scene.answer(v.pod))]


@given(scene=scenes())
def test_as_many_leave_as_kubernetes_removes(scene: Scene) -> None:
    """In each ReplicaSet; or none at all, with a refusal."""
    plan = scene.plan()
    expected = removals(scene.workload, scene.replica_sets, scene.pods, to_replicas=scene.to_replicas)
    leaving = Counter(v.pod.owner_uid for v in plan.victims)
    assert plan.refusal or {uid: leaving[uid] for uid in expected} == expected
    assert not (plan.refusal and plan.victims)


@given(scene=scenes())
def test_kubernetes_removes_exactly_the_victims(scene: Scene) -> None:
    """Once the costs are written, and while unused marks still have theirs."""
    plan = scene.plan()
    costs = {v.pod.uid: str(v.cost) for v in plan.victims}
    written = [replace(p, cost_annotation=costs.get(p.uid, p.cost_annotation)) for p in scene.pods]
    for uid, victims in by_owner(plan).items():
        order = deletion_order([p for p in written if p.owner_uid == uid], related=written, now=NOW)
        assert {p.uid for p in order[: len(victims)]} == {v.pod.uid for v in victims}


@given(scene=scenes())
def test_the_cost_to_write_is_one_and_the_lowest(scene: Scene) -> None:
    """Below 0 and below every pod that stays in its ReplicaSet, unless that one is forced behind anyway."""
    plan = scene.plan()
    for uid, victims in by_owner(plan).items():
        (cost,) = {v.cost for v in victims if v.cost is not None}
        others = [p for p in scene.survivors(plan, uid) if p.deletion_cost > INT32_MIN]
        assert INT32_MIN <= cost < min([0, *(p.deletion_cost for p in others)])


@given(scene=scenes())
def test_nobody_busy_leaves_while_somebody_idle_stays(scene: Scene) -> None:
    """Where there is a choice: same ReplicaSet, same class, not forced."""
    plan = scene.plan()
    for victim in plan.victims:
        if not victim.is_busy or victim.is_forced:
            continue
        stayed = [
            p.name
            for p in scene.survivors(plan, victim.pod.owner_uid)
            if removal_class(p) == removal_class(victim.pod) and (w := scene.answer(p)) and w.is_idle
        ]
        assert stayed == []


@given(scene=scenes(protected=False))
def test_no_busy_worker_is_marked_while_kubernetes_picks_pods(scene: Scene) -> None:
    """It would pick that one, for an earlier scale-down; but for one that it is about to remove anyway."""
    newly = [v for v in scene.plan().victims if v.pod.mark is None or v.pod.mark.generation == 3]
    assert not is_deletion_pending(scene.state) or not any(v.is_busy for v in newly)


@given(scene=scenes())
def test_forced_means_that_there_was_no_choice(scene: Scene) -> None:
    """Who stays is of a higher class, unless the forced one's cost or deletion was out of our hands."""
    plan = scene.plan()
    for victim in plan.victims:
        record = victim.pod.mark
        lowest = str(INT32_MIN) in (victim.pod.cost_annotation, record and record.foreign_cost)
        let_go = record is not None and record.generation < scene.workload.generation
        if victim.is_forced and not lowest and not let_go:
            stayed = scene.survivors(plan, victim.pod.owner_uid)
            assert all(removal_class(p) > removal_class(victim.pod) for p in stayed)


@given(scene=scenes())
def test_marks_are_used_or_released(scene: Scene) -> None:
    """Every marked pod that is active, once; with a refusal all stay as they are."""
    plan = scene.plan()
    leaving = {v.pod.uid for v in plan.victims}
    released = {p.uid for p in plan.releases}
    marked = {p.uid for p in scene.pods if p.mark and p.is_active}
    assert not leaving & released
    assert released == (set() if plan.refusal else marked - leaving)


@given(scene=scenes(protected=False), more=TASKS | PROTECTED_TASKS, data=st.data())
def test_more_tasks_never_make_a_worker_likelier_to_go(scene: Scene, more: Task, data: st.DataObject) -> None:
    """Who stays goes on staying when it gets another task."""
    plan = scene.plan()
    staying = [p for rs in scene.replica_sets for p in scene.survivors(plan, rs.uid) if scene.answer(p)]
    assume(staying and not plan.refusal)
    lucky = data.draw(st.sampled_from(staying))
    snapshot = scene.answer(lucky)
    assert snapshot is not None
    busier = replace(snapshot, active=(*snapshot.active, more))
    after = scene.plan(fleet=Fleet(workers={**scene.fleet.workers, busier.node: busier}))
    assert lucky.uid not in {v.pod.uid for v in after.victims}


def carried_out(scene: Scene, plan: DrainPlan, *, now: float = NOW) -> Scene:
    """The victims are marked, and marks that the plan does not use are given back."""
    request = scale_down(scene.workload.replicas, scene.to_replicas)
    records = {
        v.pod.uid: record_of(v, plan, scale_down=request, state=scene.state, now=now) for v in plan.victims
    }
    released = {p.uid for p in plan.releases}

    def after(p: Pod) -> Pod:
        if record := records.get(p.uid):
            return replace(p, mark=record, cost_annotation=str(record.cost))
        return replace(p, mark=None, cost_annotation=p.foreign_cost) if p.uid in released else p

    return replace(scene, pods=tuple(map(after, scene.pods)))


DELETION_PENDING = Scene(
    workload=workload(replicas=3),
    replica_sets=(replica_set(replicas=4, desired_replicas=3),),
    pods=(marked("w-0", 4, 3, generation=2), pod("w-1"), pod("w-2"), pod("w-3")),
    fleet=fleet(worker("w-0", task()), worker("w-1"), worker("w-2"), worker("w-3")),
    pool=pool(),
    to_replicas=1,
)
"""4 to 3 was let through with a victim that still works, it is not deleted yet, and now 3 to 1 is asked."""


@given(scene=scenes(protected=False))
@example(scene=DELETION_PENDING)
def test_a_plan_that_was_carried_out_is_adopted(scene: Scene) -> None:
    """The next review of the same scale-down finds its victims marked, and chooses the same ones."""
    plan = scene.plan()
    assume(plan.victims)
    again = carried_out(scene, plan).plan()
    assert (again.adopts, again.round) == (True, plan.round)
    assert {v.pod.uid for v in again.victims} == {v.pod.uid for v in plan.victims}


WORK = st.lists(TASKS, min_size=1, max_size=2)
WORK_OR_NONE = st.integers(0, 4).flatmap(lambda chance: WORK if chance else st.just([]))


@st.composite
def busy_scenes(draw: st.DrawFn) -> Scene:
    """Up to six ready pods whose workers all have something to do, or do not answer."""
    crowd = names(draw(st.integers(2, 6)))
    answers = [worker(name, *draw(WORK)) for name in crowd if draw(st.integers(0, 5))]
    return Scene(
        workload=workload(replicas=len(crowd)),
        replica_sets=(replica_set(replicas=len(crowd), desired_replicas=len(crowd)),),
        pods=tuple(map(pod, crowd)),
        fleet=fleet(*answers),
        pool=pool(labels=LABELS),
        to_replicas=draw(st.integers(1, len(crowd) - 1)),
    )


@given(scene=busy_scenes() | scenes(protected=False), data=st.data())
def test_busy_victims_are_not_swapped_for_other_busy_workers(scene: Scene, data: st.DataObject) -> None:
    """Review after review, while their tasks grow older and other workers start new ones or end theirs.

    Whoever becomes a victim later is idle, so nobody is drained and let off in turn.
    """
    plan = scene.plan()
    for review in range(1, 4):
        assume(plan.victims)
        now = NOW + 15 * review
        scene = worked_on(carried_out(scene, plan, now=now), plan, data)
        again = scene.plan(now=now)
        before = {v.pod.uid for v in plan.victims}
        assert len(again.victims) == len(before)
        assert not [v.pod.name for v in again.victims if v.pod.uid not in before and v.is_busy]
        plan = again


def worked_on(scene: Scene, plan: DrainPlan, data: st.DataObject) -> Scene:
    """Victims may have ended tasks since, the others may run anything."""
    draining = {v.node for v in plan.victims}

    def later(snapshot: WorkerSnapshot) -> WorkerSnapshot:
        if snapshot.node not in draining:
            return replace(snapshot, active=tuple(data.draw(WORK_OR_NONE)))
        ended = data.draw(st.integers(0, len(snapshot.active)))
        return replace(snapshot, active=snapshot.active[ended:], reserved=())

    return replace(scene, fleet=fleet(*map(later, scene.fleet.workers.values())))


def refused_as_protected(scene: Scene) -> Refusal | None:
    refusal = scene.plan().refusal
    return refusal if refusal and refusal.reason == "Protected" else None


@settings(max_examples=50)
@given(scene=scenes(replica_sets=1, lowest_costs=False))
def test_the_lowest_possible_number_is_the_lowest_possible(scene: Scene) -> None:
    """Trying them one after the other finds the same, or that none is possible."""
    numbers = range(scene.to_replicas, scene.workload.replicas)
    possible = [number for number in numbers if not refused_as_protected(replace(scene, to_replicas=number))]
    refusal = refused_as_protected(scene)
    named = refusal.possible_replicas if refusal else scene.to_replicas
    assert named == (possible[0] if possible else None)


@given(scene=scenes())
def test_no_busy_worker_goes_while_the_pool_waits(scene: Scene) -> None:
    """Nor one whose work is unknown; and a dry run is always allowed."""
    plan = scene.plan()
    request = scale_down(scene.workload.replicas, scene.to_replicas)
    said = decide(plan, scale_down=request, pool=scene.pool, now=NOW)
    idle = [scene.answer(v.pod) for v in plan.victims]
    assert not said.allowed or all(w is None or w.is_idle for w in idle)
    assert said.allowed == (not plan.busy and plan.refusal is None)
    assert "\n" not in said.message
    assert decide_dry_run(plan, scale_down=request, pool=scene.pool, now=NOW).allowed
