"""Rollouts: what a scale-down amid one takes from each ReplicaSet, against recordings and the sandbox."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from deploy.sandbox.controllers.replicasets import Candidate, choose_victims
from deploy.sandbox.controllers.rollouts import Deployed, Sized, Step, Strategy, next_step
from drain_hook.rollouts import is_rollout, seconds_without_progress
from drain_hook.victims import removals
from shared.pods import Pod, ReplicaSet, Workload
from tests.drain_hook.builders import NOW, leaving, plan, pod, pool, replica_set, task, unready, workload

RECORDINGS = Path("tests/recordings/kubernetes")


def recorded(name: str) -> Any:
    return json.loads((RECORDINGS / f"{name}.json").read_text())


def members(uid: str, count: int, ready: int | None = None) -> list[Pod]:
    """Pods of a ReplicaSet, the first of them ready."""
    ready = count if ready is None else ready
    return [
        (pod if index < ready else unready)(f"{uid}-{index}", owner_uid=uid, uid=f"{uid}-{index}")
        for index in range(count)
    ]


def split(sizes: dict[str, int], replicas: int, to: int) -> dict[str, int]:
    """What ReplicaSets of these sizes lose; the last is the newest, and the surge is 25 %."""
    sets = [
        replica_set(
            uid,
            size,
            revision=n,
            created_at=float(n),
            desired_replicas=replicas,
            max_replicas=replicas + -(-replicas // 4),
        )
        for n, (uid, size) in enumerate(sizes.items())
    ]
    pods = [p for uid, size in sizes.items() for p in members(uid, size)]
    return dict(removals(workload(replicas=replicas), sets, pods, to_replicas=to))


def test_all_go_from_the_only_replica_set() -> None:
    """The usual case; an old ReplicaSet without replicas changes nothing."""
    assert split({"old": 0, "new": 8}, 8, 5) == {"old": 0, "new": 3}
    assert split({"new": 8}, 8, 0) == {"new": 8}


def test_missing_pods_do_not_have_to_go() -> None:
    """Active pods minus the new size, not old minus new: three of ten are not there yet."""
    sets, pods = [replica_set(replicas=10)], [pod(f"w-{n}") for n in range(7)]
    assert removals(workload(replicas=10), sets, pods, to_replicas=8) == {"rs-1": 0}
    assert removals(workload(replicas=10), sets, pods, to_replicas=5) == {"rs-1": 2}


def test_pods_that_terminate_or_are_finished_do_not_count() -> None:
    """They are on their way already."""
    pods = [*(pod(f"w-{n}") for n in range(4)), pod("t", is_terminating=True), pod("f", phase="Failed")]
    assert removals(workload(replicas=4), [replica_set(replicas=4)], pods, to_replicas=3) == {"rs-1": 1}


def test_a_deletion_that_has_not_happened_yet_is_counted_too() -> None:
    """Scaled from 8 to 6 a moment ago and now to 5: eight pods are there, and three have to go."""
    pods = [pod(f"w-{n}") for n in range(8)]
    assert removals(workload(replicas=6), [replica_set(replicas=8)], pods, to_replicas=5) == {"rs-1": 3}


@pytest.mark.parametrize(
    ("before", "replicas", "to", "lost"),
    [((8, 5), 10, 8, (2, 1)), ((8, 2), 10, 8, (2, 0)), ((15, 10), 20, 10, (7, 5)), ((15, 5), 20, 10, (7, 0))],
)
def test_a_scale_down_amid_a_rollout_takes_from_both(
    before: tuple[int, int], replicas: int, to: int, lost: tuple[int, int]
) -> None:
    """In proportion, counted from replicas plus surge; then old pods that are not needed any more."""
    expected = dict(zip(("old", "new"), lost, strict=True))
    assert split(dict(zip(("old", "new"), before, strict=True)), replicas, to) == expected


CASES = recorded("e1_scale_down_during_rolling_update")["cases"]
# In the one the new ReplicaSet shrinks and grows again, in the other there is nothing to remove.
STEADY = sorted(CASES.keys() - {"half_surge50_unavail0", "stuck_scale_up"})


def recorded_sets(case: dict[str, Any]) -> tuple[list[ReplicaSet], list[Pod]]:
    """ReplicaSets and pods as they were before the scale-down."""
    sets = [
        replica_set(
            rs["name"],
            rs["spec"],
            revision=int(rs["rev"]),
            created_at=float(rs["rev"]),
            desired_replicas=int(rs["desired_ann"]),
            max_replicas=int(rs["max_ann"]),
        )
        for rs in case["before"]
    ]
    return sets, [p for rs in case["before"] for p in members(rs["name"], rs["status"], rs["ready"])]


def fences(case: dict[str, Any]) -> dict[str, str]:
    """A recorded strategy, as a Workload has it."""
    rolling = case["strategy"].get("rollingUpdate", {})
    return {
        "strategy": case["strategy"]["type"],
        "max_surge": str(rolling.get("maxSurge", "25%")),
        "max_unavailable": str(rolling.get("maxUnavailable", "25%")),
    }


@pytest.mark.parametrize("name", STEADY)
def test_the_recorded_splits_are_foreseen(name: str) -> None:
    """What was left of each ReplicaSet on a real control plane is what we expect to be left."""
    case = CASES[name]
    sets, pods = recorded_sets(case)
    lost = removals(workload(replicas=case["replicas"], **fences(case)), sets, pods, to_replicas=case["to"])
    left = {rs.uid: rs.replicas - lost[rs.uid] for rs in sets}
    assert left == {rs["name"]: rs["spec"] for rs in case["after"]}


def test_what_the_rollout_trims_after_the_split_is_foreseen() -> None:
    """Recorded, half done: 7 and 8 become 4 and 5; then one old pod more goes, and a new one is made."""
    case = CASES["half_surge50_unavail0"]
    sets, pods = recorded_sets(case)
    lost = removals(workload(replicas=case["replicas"], **fences(case)), sets, pods, to_replicas=case["to"])
    old, new = [rs.replicas - lost[rs.uid] for rs in sets]
    assert old == case["after"][0]["spec"] == 3
    assert new == case["after_scale"][0]["rs"][1][1] == 5


def test_costs_do_not_move_pods_between_replica_sets() -> None:
    """Recorded: the lowest costs on all new pods, the highest on all old ones, and the same split."""
    case = recorded("e2_costs_do_not_move_pods_between_replicasets")
    sets, pods = recorded_sets(case)
    lost = removals(workload(replicas=8), sets, pods, to_replicas=4)
    assert {rs.uid: rs.replicas - lost[rs.uid] for rs in sets} == {
        rs["name"]: rs["spec"] for rs in case["after"]
    }


def test_without_a_note_of_the_former_size_the_status_counts() -> None:
    """The annotation max-replicas can be missing; with nothing known the largest ReplicaSet takes it all."""
    sets = [replica_set("old", 8, revision=1), replica_set("new", 5, revision=2)]
    pods = [*members("old", 8), *members("new", 5)]
    by_status = removals(workload(replicas=10, status_replicas=13), sets, pods, to_replicas=5)
    unknown = removals(workload(replicas=10, status_replicas=0), sets, pods, to_replicas=5)
    assert (by_status, unknown) == ({"old": 4, "new": 2}, {"old": 6, "new": 0})


def test_an_old_replica_set_goes_as_a_whole_when_the_new_one_is_complete() -> None:
    """All pods of the new template are there and ready at the size asked for."""
    sets = [replica_set("old", 3, revision=1), replica_set("new", 5, revision=2, desired_replicas=5)]
    pods = [*members("old", 3), *members("new", 5)]
    assert removals(workload(), sets, pods, to_replicas=5) == {"old": 3, "new": 0}


def test_no_replica_sets_lose_nothing() -> None:
    """A Deployment that has just been made."""
    assert removals(workload(), [], [], to_replicas=3) == {}


SURGES = st.sampled_from(["25%", "0", "3", "100%", "33%"])


def live(deployed: Deployed, **fields: Any) -> Workload:
    """The workload of what the sandbox's controller looks at."""
    strategy = deployed.strategy
    return workload(
        replicas=deployed.replicas,
        max_surge=str(strategy.max_surge),
        max_unavailable=str(strategy.max_unavailable),
        status_replicas=deployed.status_replicas,
        is_paused=deployed.is_paused,
        **fields,
    )


def sets_and_pods(deployed: Deployed) -> tuple[list[ReplicaSet], list[Pod]]:
    """Its ReplicaSets, the newest last, and their pods."""
    everyone = [*deployed.old, *([deployed.new] if deployed.new else [])]
    sets = [
        replica_set(
            one.name,
            one.replicas,
            revision=n,
            created_at=one.created_at.timestamp(),
            desired_replicas=one.desired_annotation,
            max_replicas=one.max_annotation,
        )
        for n, one in enumerate(everyone)
    ]
    return sets, [p for one in everyone for p in members(one.name, one.replicas, one.available)]


def rollout(sizes: list[int], available: list[int], **fields: Any) -> Deployed:
    """ReplicaSets of these sizes with so many available pods; the last is the new one."""
    noted = fields.pop("noted", None)
    *old, new = [
        Sized(
            name=f"rs-{n}",
            created_at=datetime.fromtimestamp(n, UTC),
            replicas=size,
            available=min(size, ready),
            desired_annotation=fields["replicas"],
            max_annotation=noted,
        )
        for n, (size, ready) in enumerate(zip(sizes, available, strict=True))
    ]
    return Deployed(new=new, old=tuple(old), status_replicas=sum(sizes), **fields)


def at_rest(deployed: Deployed) -> list[Deployed]:
    """The states that the sandbox's controller goes through while no further pod gets ready."""
    states = [deployed]
    while (after := carried_out(states[-1], next_step(states[-1]))) != states[-1]:
        states.append(after)
        assert len(states) < 100, "the rollout does not come to rest"
    return states


def carried_out(deployed: Deployed, step: Step) -> Deployed:
    surge, _ = deployed.strategy.fenceposts(deployed.replicas)

    def scaled(one: Sized) -> Sized:
        size = step.sizes.get(one.name, one.replicas)
        if size != one.replicas or one.name in step.annotate:
            total = deployed.replicas + surge
            one = replace(one, desired_annotation=deployed.replicas, max_annotation=total)
        return replace(one, replicas=size, available=min(size, one.available))

    assert deployed.new is not None
    return replace(deployed, new=scaled(deployed.new), old=tuple(map(scaled, deployed.old)))


def lowest_sizes(states: list[Deployed]) -> dict[str, int]:
    """The smallest that each ReplicaSet was."""
    sizes: dict[str, int] = {}
    for one in (one for state in states for one in (*state.old, state.new) if one is not None):
        sizes[one.name] = min(one.replicas, sizes.get(one.name, one.replicas))
    return sizes


@given(
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=4),
    to=st.integers(0, 40),
    surge=SURGES,
    noted=st.none() | st.integers(1, 60),
)
def test_the_split_agrees_with_the_sandbox(sizes: list[int], to: int, surge: str, noted: int | None) -> None:
    """The sandbox's Deployment controller was written by itself; both must foresee the same sizes.

    While the Deployment is paused the split is all there is.
    """
    strategy = Strategy(max_surge=surge if surge.endswith("%") else int(surge))
    now = rollout(sizes, sizes, replicas=sum(sizes), strategy=strategy, noted=noted, is_paused=True)
    sets, pods = sets_and_pods(now)
    emulated = next_step(replace(now, replicas=to)).sizes
    lost = removals(live(now), sets, pods, to_replicas=to)
    assert lost == {rs.uid: max(0, rs.replicas - emulated.get(rs.uid, rs.replicas)) for rs in sets}


@given(
    sizes=st.lists(st.integers(1, 20), min_size=2, max_size=3),
    share=st.lists(st.integers(0, 20), min_size=3, max_size=3),
    missing=st.integers(0, 10),
    to=st.integers(0, 40),
    surge=SURGES,
    unavailable=st.sampled_from(["25%", "0", "1", "50%"]),
)
def test_what_a_stuck_rollout_loses_agrees_with_the_sandbox(
    sizes: list[int], share: list[int], missing: int, to: int, surge: str, unavailable: str
) -> None:
    """From where a rollout has come to rest, split and trimming are what the sandbox's controller does."""
    strategy = Strategy(
        max_surge=surge if surge.endswith("%") else int(surge),
        max_unavailable=unavailable if unavailable.endswith("%") else int(unavailable),
    )
    start = rollout(
        sizes, share[: len(sizes)], replicas=max(1, sum(sizes) - missing), strategy=strategy, noted=sum(sizes)
    )
    stuck = at_rest(start)[-1]
    assume(any(one.replicas for one in stuck.old))
    target = to % stuck.replicas
    sets, pods = sets_and_pods(stuck)
    lost = removals(live(stuck), sets, pods, to_replicas=target)
    lowest = lowest_sizes(at_rest(replace(stuck, replicas=target)))
    assert lost == {rs.uid: rs.replicas - lowest[rs.uid] for rs in sets}


def as_kubernetes_sees(p: Pod, costs: dict[str, int]) -> Candidate:
    since = None if p.ready_since is None else datetime.fromtimestamp(p.ready_since, UTC)
    return Candidate(
        name=p.name,
        uid=p.uid,
        node=p.host,
        phase=p.phase,
        ready_since=since,
        deletion_cost=costs.get(p.name, 0),
        created_at=datetime.fromtimestamp(p.created_at, UTC),
    )


def deleted(pods: list[Candidate], scaled: Deployed) -> list[str]:
    """Names of the pods that the ReplicaSets delete until the rollout is at rest again."""
    return [
        victim.name
        for uid, size in lowest_sizes(at_rest(scaled)).items()
        for victim in choose_victims(
            [p for p in pods if p.name.startswith(f"{uid}-")],
            desired=size,
            related=pods,
            now=datetime.fromtimestamp(NOW, UTC),
        )
    ]


@given(
    ready=st.integers(0, 8),
    to=st.integers(0, 7),
    surge=SURGES,
    work=st.lists(st.sampled_from(["", "", "reports.build", "billing.close"]), min_size=30, max_size=30),
)
def test_amid_a_stuck_rollout_exactly_the_planned_pods_go(
    ready: int, to: int, surge: str, work: list[str]
) -> None:
    """The sandbox's controllers share out, trim and pick pods by cost; no protected one is among them."""
    strategy = Strategy(max_surge=surge if surge.endswith("%") else int(surge))
    begun = rollout([8, 0], [8, ready], replicas=8, strategy=strategy)
    stuck = at_rest(replace(begun, new=replace(begun.new, available=ready) if begun.new else None))[-1]
    sets, pods = sets_and_pods(stuck)
    tasks = {p.name: [task(name)] if name else [] for p, name in zip(pods, work, strict=False)}
    made = plan(
        pods,
        to,
        busy=tasks,
        from_replicas=8,
        workload=live(stuck),
        replica_sets=sets,
        pool=pool(drain={"duringRollout": "allow"}),
    )
    assume(made.refusal is None)
    costs = {victim.pod.name: victim.cost or 0 for victim in made.victims}
    gone = deleted([as_kubernetes_sees(p, costs) for p in pods], replace(stuck, replicas=to))
    assert sorted(gone) == leaving(made)
    assert not [name for name in gone if tasks[name] and tasks[name][0].name == "billing.close"]


@given(sizes=st.lists(st.integers(1, 20), min_size=1, max_size=3), to=st.integers(0, 20))
def test_no_replica_set_loses_more_than_it_has(sizes: list[int], to: int) -> None:
    """And all that is beyond replicas plus surge goes."""
    lost = split({f"rs-{n}": size for n, size in enumerate(sizes)}, sum(sizes), to)
    assert all(0 <= lost[f"rs-{n}"] <= size for n, size in enumerate(sizes))
    allowed = to if len(sizes) == 1 or to == 0 else to + -(-Fraction(to, 4) // 1)
    assert sum(lost.values()) >= sum(sizes) - allowed


# Whether a rollout is in progress.


def revisions(**replicas: int) -> list[ReplicaSet]:
    """ReplicaSets of these sizes, from the oldest; their templates are called as they are."""
    return [
        replica_set(uid, size, revision=n, created_at=NOW - 60 + n, template=uid)
        for n, (uid, size) in enumerate(replicas.items())
    ]


@pytest.mark.parametrize(
    ("sets", "pods", "fields", "expected"),
    [
        (revisions(old=0, new=8), members("new", 8), {}, False),
        (revisions(old=2, new=8), members("new", 8), {}, True),
        (revisions(old=0, new=8), members("new", 8) + members("old", 1), {}, True),
        (revisions(new=8), members("new", 8), {"observed_generation": 2}, False),
        (revisions(old=8), members("old", 8), {"observed_generation": 2}, True),
        (revisions(new=0, old=8), members("old", 8), {}, True),
        (revisions(old=0), [], {}, False),
        (revisions(old=4, new=4), members("old", 4) + members("new", 4), {"is_paused": True}, False),
        (revisions(old=4, new=4), [], {"is_paused": True, "observed_generation": 2}, True),
    ],
    ids=[
        "settled",
        "old one wanted",
        "old pod left",
        "annotated, not seen",
        "new template, not seen",
        "back to a former template",
        "no pods",
        "paused",
        "about to be paused",
    ],
)
def test_a_rollout_is_pods_of_another_template(
    sets: list[ReplicaSet], pods: list[Pod], fields: dict[str, Any], expected: bool
) -> None:
    """Then a scale-down is split in ways that can change under our hands.

    Not so for each change that the controller has yet to see: an annotation is one, too.
    """
    assert is_rollout(workload(template="new", **fields), sets, pods) is expected


def test_old_pods_that_are_terminating_are_no_rollout() -> None:
    """They may take hours to finish their tasks."""
    old = [pod("old-0", owner_uid="old", is_terminating=True)]
    sets = revisions(old=0, new=8)
    assert not is_rollout(workload(template="new"), sets, members("new", 8) + old)


def test_where_templates_are_not_known_two_replica_sets_in_use_are_a_rollout() -> None:
    """As of an API server that leaves them out."""
    one, two = [replica_set("new", 8)], [replica_set("old", 1), replica_set("new", 8)]
    assert (is_rollout(workload(), one, []), is_rollout(workload(), two, [])) == (False, True)


@pytest.mark.parametrize(
    ("sets", "fields", "seconds"),
    [
        (revisions(old=4, new=4), {}, 59),
        (revisions(old=4, new=4), {"progressed_at": NOW - 30}, 30),
        (revisions(old=4, new=4), {"progressed_at": NOW + 9}, 0),
        (revisions(old=8), {"observed_generation": 2}, 0),
        (revisions(old=8), {}, 60),
    ],
    ids=["no condition", "progressed", "clock behind", "not begun", "cannot begin"],
)
def test_a_rollout_is_as_old_as_its_last_progress(
    sets: list[ReplicaSet], fields: dict[str, Any], seconds: float
) -> None:
    """By the condition Progressing and the newest ReplicaSet; one that has not begun has no age."""
    assert seconds_without_progress(workload(template="new", **fields), sets, now=NOW) == seconds
