"""Sizes of ReplicaSets during rollouts, against recordings of stuck and half-done ones."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.sandbox.controllers.rollouts import Deployed, Sized, Step, Strategy, next_step

RECORDINGS = Path(__file__).parents[2] / "recordings" / "kubernetes"
STUCK = json.loads((RECORDINGS / "e1_scale_down_during_rolling_update.json").read_text())["cases"]
COSTS = json.loads((RECORDINGS / "e2_costs_do_not_move_pods_between_replicasets.json").read_text())


def settle(deployed: Deployed, *, ready_at_most: int | None = None) -> list[Deployed]:
    """Carry out steps until nothing changes, all old pods available and new ones up to `ready_at_most`."""
    states = [deployed]
    for _ in range(100):
        step = next_step(states[-1])
        after = carry_out(states[-1], step, ready_at_most)
        if after == states[-1]:
            return states
        states.append(after)
    raise AssertionError(f"the rollout does not come to rest: {states[-3:]}")


def carry_out(deployed: Deployed, step: Step, ready_at_most: int | None) -> Deployed:
    surge, _ = deployed.strategy.fenceposts(deployed.replicas)

    def scaled(one: Sized, ready: int | None) -> Sized:
        size = step.sizes.get(one.name, one.replicas)
        if size != one.replicas or one.name in step.annotate:
            total = deployed.replicas + surge
            one = replace(one, desired_annotation=deployed.replicas, max_annotation=total)
        return replace(one, replicas=size, available=size if ready is None else min(size, ready))

    new = deployed.new
    if step.create is not None:
        new = Sized(
            name="new",
            created_at=datetime(2026, 2, 1, tzinfo=UTC),
            replicas=step.create,
            desired_annotation=deployed.replicas,
            max_annotation=deployed.replicas + surge,
        )
    return replace(
        deployed,
        new=None if new is None else scaled(new, ready_at_most),
        old=tuple(scaled(one, None) for one in deployed.old),
    )


def sizes(deployed: Deployed) -> tuple[int, int]:
    """The sizes of the old ReplicaSets together, and of the new one."""
    return sum(one.replicas for one in deployed.old), deployed.new.replicas if deployed.new else 0


def recorded(sets: list[dict[str, Any]]) -> tuple[Sized, Sized]:
    old, new = (
        Sized(
            name=f"rev{one['rev']}",
            created_at=datetime(2026, 1, int(one["rev"]), tzinfo=UTC),
            replicas=one["spec"],
            available=one["ready"],
            desired_annotation=int(one["desired_ann"]),
            max_annotation=int(one["max_ann"]),
        )
        for one in sorted(sets, key=lambda one: str(one["rev"]))
    )
    return old, new


def strategy(source: dict[str, Any]) -> Strategy:
    rolling = source.get("rollingUpdate", {})
    return Strategy(
        is_rolling=source["type"] == "RollingUpdate",
        max_surge=rolling.get("maxSurge", "25%"),
        max_unavailable=rolling.get("maxUnavailable", "25%"),
    )


@pytest.mark.parametrize("name", STUCK)
def test_scaling_amid_a_rollout_gives_the_recorded_sizes(name: str) -> None:
    """Both ReplicaSets lose or gain by size; then the old one is trimmed as far as availability lets it."""
    case = STUCK[name]
    old, new = recorded(case["before"])
    start = Deployed(replicas=case["to"], strategy=strategy(case["strategy"]), new=new, old=(old,))
    end = settle(start, ready_at_most=new.available)[-1]
    after_old, after_new = recorded(case["after"])
    assert sizes(end) == (after_old.replicas, after_new.replicas)
    assert end.new is not None
    assert end.new.max_annotation == after_new.max_annotation


@pytest.mark.parametrize(
    "name", [name for name, case in STUCK.items() if case["strategy"]["type"] != "Recreate"]
)
def test_a_rollout_whose_pods_never_get_ready_stops_where_it_was_recorded(name: str) -> None:
    """From one ReplicaSet of the full size to the recorded stuck state."""
    case = STUCK[name]
    before_old, before_new = recorded(case["before"])
    start = Deployed(
        replicas=case["replicas"],
        strategy=strategy(case["strategy"]),
        new=None,
        old=(
            replace(
                before_old,
                replicas=case["replicas"],
                available=case["replicas"],
                desired_annotation=case["replicas"],
            ),
        ),
    )
    end = settle(start, ready_at_most=before_new.available)[-1]
    assert sizes(end) == (before_old.replicas, before_new.replicas)


def test_deletion_costs_do_not_move_pods_between_replicasets() -> None:
    """The split is by size alone: 6 and 4 for 8 become 3 and 2 for 4."""
    old, new = recorded(COSTS["before"])
    end = settle(Deployed(replicas=4, strategy=Strategy(), new=new, old=(old,)), ready_at_most=0)[-1]
    assert sizes(end) == tuple(one["spec"] for one in COSTS["after"])


NEW = Sized(
    name="new",
    created_at=datetime(2026, 2, 1, tzinfo=UTC),
    replicas=4,
    available=4,
    desired_annotation=4,
    max_annotation=5,
)
OLD = replace(NEW, name="old", created_at=datetime(2026, 1, 1, tzinfo=UTC))


def test_a_first_replicaset_is_created_in_full() -> None:
    """Nothing is there that would have to give way."""
    assert next_step(Deployed(replicas=4, strategy=Strategy(), new=None)).create == 4


def test_a_lone_replicaset_takes_the_whole_size() -> None:
    """Ordinary scaling, the drained ones of earlier templates left alone."""
    drained = replace(OLD, replicas=0, available=0)
    assert next_step(Deployed(replicas=2, strategy=Strategy(), new=NEW, old=(drained,))).sizes == {"new": 2}


def test_scaling_from_zero_wakes_the_newest() -> None:
    """With no active ReplicaSet the present template's one is meant."""
    asleep = replace(NEW, replicas=0, available=0, desired_annotation=0)
    assert next_step(Deployed(replicas=3, strategy=Strategy(), new=asleep)).sizes == {"new": 3}


def test_scaling_to_zero_amid_a_rollout_empties_every_replicaset() -> None:
    """No surge is left for a Deployment of size zero."""
    step = next_step(Deployed(replicas=0, strategy=Strategy(), new=NEW, old=(OLD,)))
    assert step.sizes == {"new": 0, "old": 0}


def test_nothing_is_to_be_done_once_all_is_as_wanted() -> None:
    """The rest state is a rest state."""
    assert next_step(Deployed(replicas=4, strategy=Strategy(), new=NEW)) == Step(sizes={})


def test_recreate_waits_for_the_last_old_pod() -> None:
    """First to zero, then nothing while old pods run, then the new ReplicaSet in full."""
    recreate = Strategy(is_rolling=False)
    start = Deployed(replicas=4, strategy=recreate, new=None, old=(OLD,), old_pods_exist=True)
    assert next_step(start).sizes == {"old": 0}
    emptied = replace(start, old=(replace(OLD, replicas=0),))
    assert next_step(emptied) == Step(sizes={})
    assert next_step(replace(emptied, old_pods_exist=False)).create == 4


def test_a_paused_deployment_scales_but_does_not_roll() -> None:
    """A changed template waits; a changed size does not."""
    paused = Deployed(replicas=4, strategy=Strategy(), new=None, old=(OLD,), is_paused=True)
    assert next_step(paused) == Step(sizes={})
    assert next_step(replace(paused, replicas=6)).sizes == {"old": 6}


def test_unavailable_old_pods_go_before_available_ones() -> None:
    """They were of no use, so removing them costs no availability."""
    half_dead = replace(OLD, available=2)
    younger = replace(
        OLD, name="younger", created_at=datetime(2026, 1, 2, tzinfo=UTC), replicas=1, available=1
    )
    fresh = replace(NEW, replicas=2, available=0)
    step = next_step(Deployed(replicas=4, strategy=Strategy(), new=fresh, old=(half_dead, younger)))
    assert step.sizes == {"old": 2}


@pytest.mark.parametrize(
    ("surge", "unavailable", "desired", "expected"),
    [("25%", "25%", 10, (3, 2)), ("1%", "1%", 2, (1, 0)), (0, "1%", 1, (0, 1)), (0, 5, 3, (0, 3))],
)
def test_percentages_round_towards_availability(
    surge: int | str, unavailable: int | str, desired: int, expected: tuple[int, int]
) -> None:
    """Surge up, unavailable down, and one may be missing if both come to zero."""
    assert Strategy(max_surge=surge, max_unavailable=unavailable).fenceposts(desired) == expected


@given(
    replicas=st.integers(0, 40),
    before=st.integers(1, 40),
    surge=st.sampled_from([0, 1, "25%", "100%"]),
    unavailable=st.sampled_from([1, "25%", "50%"]),
)
def test_every_rollout_with_ready_pods_ends_and_stays_within_its_fenceposts(
    replicas: int, before: int, surge: int | str, unavailable: int | str
) -> None:
    """A scaling and a new template at once come to rest with the new ReplicaSet alone, at the new size."""
    rule = Strategy(max_surge=surge, max_unavailable=unavailable)
    old = replace(OLD, replicas=before, available=before, desired_annotation=before, max_annotation=before)
    states = settle(Deployed(replicas=replicas, strategy=rule, new=None, old=(old,)))
    assert sizes(states[-1]) == (0, replicas)
    most = replicas + rule.fenceposts(replicas)[0]
    assert all(sum(sizes(state)) <= max(before, most) for state in states)
