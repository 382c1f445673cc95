"""docs/scaling.md: what windows, policies and bands make of a load that goes up and down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deploy.sandbox.controllers.scaling_behavior import History
from tests.bench.hpa_fleets import Pods, fleet
from tests.bench.hpa_grid import BAND, SLOTS
from tests.deploy.autoscalers import Autoscaler, template, without_tolerance
from tests.deploy.manifests import Document
from tests.metrics_adapter.builders import pool

PERIOD_S = 15
BANDED = pool(algorithm=BAND)
AT_REST, BUSY, IDLE = 0.8, 1.5, 0.2
"""Load factors inside the band, above A and below X."""
GUIDES = ["load-factor", "desired-workers"]


class Walk:
    """An HPA that looks at a pool every 15 s; all pods are ready at once."""

    def __init__(self, document: Document, *, replicas: int) -> None:
        self._autoscaler = Autoscaler.of(document)
        self._history = History()
        self._now_s = 0.0
        self.replicas = replicas

    def look(self, *, demand: int) -> int:
        """The replicas after this look."""
        at = fleet(Pods(idle=self.replicas), of=BANDED)
        wish = self._autoscaler.wish(at.values(self._autoscaler.metric, demand), at.scale)
        found = self._autoscaler.look(wish, replicas=self.replicas, history=self._history, now_s=self._now_s)
        self._history = found.history
        if found.replicas != self.replicas:
            self._history = self._history.after_rescale(
                self.replicas, found.replicas, self._now_s, self._autoscaler.limits.behavior
            )
        self.replicas, self._now_s = found.replicas, self._now_s + PERIOD_S
        return found.replicas


def behaving(name: str, *, up: dict[str, Any] | None = None, down: dict[str, Any] | None = None) -> Document:
    """A template with this in its behavior, and room for 100 workers."""
    behavior = template(name)["spec"]["behavior"]
    changed = {"scaleUp": behavior["scaleUp"] | (up or {}), "scaleDown": behavior["scaleDown"] | (down or {})}
    return template(name, maxReplicas=100, behavior=changed)


def first_change(walk: Walk, loads: Sequence[float]) -> int | None:
    """At which look the replicas change; loads are told for those that there are."""
    before = walk.replicas
    for index, load in enumerate(loads):
        if walk.look(demand=round(load * SLOTS * before)) != before:
            return index
    return None


def first_after(loads: Sequence[float], load: float, seconds: int) -> int | None:
    """The first look at which every one of the last seconds had this load; the present size was the first."""
    looks = seconds // PERIOD_S
    ends = range(looks, len(loads))
    return next((end for end in ends if set(loads[end - looks + 1 : end + 1]) == {load}), None)


@pytest.mark.parametrize("name", GUIDES)
@given(loads=st.lists(st.sampled_from([AT_REST, BUSY]), min_size=6, max_size=14))
@example(loads=[BUSY] * 6)
@example(loads=[AT_REST, *[BUSY] * 3, AT_REST, *[BUSY] * 4])
def test_it_grows_when_the_load_was_above_a_for_b(name: str, loads: list[float]) -> None:
    """One look inside the band, and the minute begins anew."""
    walk = Walk(behaving(name, up={"stabilizationWindowSeconds": 60}), replicas=10)
    assert first_change(walk, loads) == first_after(loads, BUSY, 60)


@pytest.mark.parametrize("name", GUIDES)
@given(loads=st.lists(st.sampled_from([AT_REST, IDLE]), min_size=12, max_size=24))
@example(loads=[IDLE] * 10)
@example(loads=[*[IDLE] * 7, AT_REST, *[IDLE] * 8])
def test_it_shrinks_when_the_load_was_below_x_for_y(name: str, loads: list[float]) -> None:
    walk = Walk(behaving(name, down={"stabilizationWindowSeconds": 120}), replicas=10)
    assert first_change(walk, loads) == first_after(loads, IDLE, 120)


@pytest.mark.parametrize("name", GUIDES)
def test_it_grows_by_the_least_that_was_asked_for_in_b(name: str) -> None:
    """To where that load would be the target again."""
    walk = Walk(behaving(name, up={"stabilizationWindowSeconds": 60}), replicas=10)
    assert [walk.look(demand=demand) for demand in (120, 160, 96, 160, 160)] == [10, 10, 10, 10, 15]


@pytest.mark.parametrize("name", GUIDES)
@pytest.mark.parametrize("is_old", [False, True])
def test_bounds_of_the_band_are_inside_and_nothing_beyond_is(name: str, is_old: bool) -> None:
    """Ten workers have 80 slots: 56 to 72 are within 0.7 to 0.9. Before 1.35 the load factor is as exact."""
    document = template(name, maxReplicas=100)
    demands = {55: 9, 56: 10, 64: 10, 72: 10, 73: 12}
    if is_old and name == "desired-workers":
        demands |= {55: 10}  # 9 of 10 are wanted, which is within its tolerance
    for demand, wanted in demands.items():
        walk = Walk(without_tolerance(document) if is_old else document, replicas=10)
        assert [walk.look(demand=demand) for _ in range(21)][-1] == wanted


def test_small_steps_are_taken_one_in_a_period() -> None:
    """As the docs show for long tasks: two workers a minute at most."""
    steps = {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}]}
    walk = Walk(behaving("demand", down=steps), replicas=10)
    sizes = [walk.look(demand=0) for _ in range(17)]
    assert sizes == [8] * 4 + [6] * 4 + [4] * 4 + [2] * 4 + [1]


def test_without_policies_a_burst_takes_several_looks() -> None:
    """Kubernetes' own: four more or double."""
    document = template("demand", maxReplicas=100, behavior={})
    walk = Walk(document, replicas=1)
    assert [walk.look(demand=300) for _ in range(5)] == [5, 10, 20, 40, 47]


def test_in_old_versions_a_lower_target_keeps_the_load_below_the_one_that_was_meant() -> None:
    """0.72 instead of 0.8, as the docs say: what is left alone has a load of 0.8 at most."""
    target = {"type": "AverageValue", "averageValue": "5760m"}
    metric = {"name": "celery_demand", "selector": {"matchLabels": {"pool": "default"}}}
    metrics = [{"type": "External", "external": {"metric": metric, "target": target}}]
    document = without_tolerance(template("demand", maxReplicas=400, metrics=metrics))
    for replicas in (5, 20, 60):
        left_alone = [
            demand
            for demand in range(replicas * SLOTS * 2)
            if Walk(document, replicas=replicas).look(demand=demand) == replicas
        ]
        assert max(left_alone) / (replicas * SLOTS) <= 0.8
