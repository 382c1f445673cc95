"""The metrics, and what a stock HPA makes of them."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from metrics_adapter.catalogue import METRICS, Sample, desired_workers, load_factor_milli, metric_named
from tests.metrics_adapter.builders import NOW, busy_load, load, pod, pool, starting_pod, worker


def hpa_value(usage_milli: int, *, target_milli: int, ready: int, replicas: int) -> int:
    """What the HPA controller computes for a Value target without tolerance: float64, in this order."""
    if usage_milli == target_milli and ready:
        return replicas
    return math.ceil(usage_milli / target_milli * (ready or 1))


def wanted(demand: int, *, slots: int, target: Fraction) -> int:
    return math.ceil(demand / (slots * target))


DEMANDS = st.integers(0, 5000)
READY = st.integers(0, 60)
SLOTS = st.integers(1, 64)
TARGET_MILLIS = st.integers(200, 1500)


@given(demand=DEMANDS, ready=READY, slots=SLOTS, target_milli=TARGET_MILLIS, replicas=st.integers(1, 60))
@example(demand=435, ready=68, slots=8, target_milli=800, replicas=54)
def test_an_hpa_on_the_load_factor_arrives_at_the_wanted_workers_in_one_step(
    demand: int, ready: int, slots: int, target_milli: int, replicas: int
) -> None:
    """No stray milli: it would be a replica too many. Nor the target itself: the HPA would stay."""
    target = Fraction(target_milli, 1000)
    busy = busy_load(demand, ready=ready, slots=slots, target=str(target_milli / 1000))
    usage = load_factor_milli([busy])
    reached = hpa_value(usage, target_milli=target_milli, ready=ready, replicas=replicas)
    assert reached == wanted(demand, slots=slots, target=target)


@given(demand=DEMANDS, ready=READY, slots=SLOTS, target_milli=TARGET_MILLIS)
def test_the_load_factor_is_within_two_millis_of_the_truth(
    demand: int, ready: int, slots: int, target_milli: int
) -> None:
    busy = busy_load(demand, ready=ready, slots=slots, target=str(target_milli / 1000))
    exact = Fraction(demand * 1000, (ready or 1) * slots)
    assert load_factor_milli([busy]) >= 0
    assert exact - 2 <= load_factor_milli([busy]) < exact + 1


@given(demand=DEMANDS, ready=READY, slots=SLOTS, target_milli=TARGET_MILLIS)
def test_desired_workers_is_exact(demand: int, ready: int, slots: int, target_milli: int) -> None:
    """With AverageValue 1 the HPA takes it as it is."""
    busy = busy_load(demand, ready=ready, slots=slots, target=str(target_milli / 1000))
    assert desired_workers(busy) == wanted(demand, slots=slots, target=Fraction(target_milli, 1000))


@pytest.mark.parametrize(
    ("demand", "milli"),
    [
        pytest.param(7, 700, id="between A and X it is the target"),
        pytest.param(9, 700, id="A itself is inside"),
        pytest.param(5, 700, id="X itself is inside"),
        pytest.param(10, 1000, id="above A the truth"),
        pytest.param(4, 400, id="below X the truth"),
    ],
)
def test_inside_the_dead_band_the_load_factor_is_the_target(demand: int, milli: int) -> None:
    busy = busy_load(demand, ready=1, slots=10, target="0.7", scaleUpAbove="0.9", scaleDownBelow="0.5")
    assert load_factor_milli([busy]) == milli


def test_one_bound_is_enough_for_a_dead_band() -> None:
    """The target stands in for the other one."""
    only_up = {"target": "0.7", "scaleUpAbove": "0.9"}
    assert load_factor_milli([busy_load(8, ready=1, slots=10, **only_up)]) == 700
    assert load_factor_milli([busy_load(6, ready=1, slots=10, **only_up)]) == 600


@pytest.mark.parametrize(("demand", "workers"), [(20, 3), (27, 3), (15, 3), (28, 4), (14, 2)])
def test_inside_the_dead_band_the_workers_that_there_are_are_wanted(demand: int, workers: int) -> None:
    busy = busy_load(demand, ready=3, slots=10, target="0.7", scaleUpAbove="0.9", scaleDownBelow="0.5")
    assert desired_workers(busy) == workers


def test_draining_workers_are_not_among_those_that_there_are() -> None:
    """A refused scale-down stays wanted: its victims are marked, and the rest is enough."""
    of = pool(algorithm={"target": "0.8", "scaleUpAbove": "1", "scaleDownBelow": "0.5"})
    pods = [pod("w-0", is_draining=True), pod("w-1")]
    assert desired_workers(load(pods, [worker("w-0", 8), worker("w-1", 6)], of=of)) == 1


def test_desired_workers_does_not_depend_on_readiness() -> None:
    pods = [pod(f"w-{n}", is_ready=False, ready_since=None, phase="Pending") for n in range(4)]
    assert desired_workers(load(pods, waiting=64)) == 10


def test_unequal_workers_count_with_their_mean() -> None:
    workers = [worker("w-0", 8, slots=12), worker("w-1", 4, slots=4)]
    mixed = load([pod("w-0"), pod("w-1")], workers, of=pool(algorithm={"target": "1"}))
    assert load_factor_milli([mixed]) == 750
    assert desired_workers(mixed) == 2


def test_a_load_factor_over_several_pools_is_one_total_without_labels() -> None:
    """An HPA sums items; the sum of two ratios would be none."""
    one = load([pod()], [worker("w-0", 8)], of=pool("one"))
    two = load([pod(), starting_pod("w-1")], [worker("w-0", 0)], of=pool("two"), measured_at=NOW - 9)
    (total,) = METRICS["celery_load_factor"].samples((one, two))
    assert total == Sample(labels={}, milli=334, measured_at=NOW - 9)


def test_a_total_of_pools_with_different_algorithms_has_no_dead_band() -> None:
    wide = pool("wide", algorithm={"target": "0.8", "scaleUpAbove": "2", "scaleDownBelow": "0.1"})
    loads = [load([pod()], [worker("w-0", 4)], of=of) for of in (pool("narrow"), wide)]
    assert load_factor_milli(loads) == 500


def test_a_count_over_several_pools_is_one_item_each() -> None:
    loads = [load(of=pool(name), waiting=3) for name in ("one", "two")]
    assert METRICS["celery_demand"].samples(loads) == tuple(
        Sample(labels={"pool": name, "workload": f"{name}-worker"}, milli=3000, measured_at=NOW)
        for name in ("one", "two")
    )


def test_nothing_selected_is_no_item() -> None:
    assert [metric.samples(()) for metric in METRICS.values()] == [()] * len(METRICS)


def test_names_are_matched_in_any_case() -> None:
    """The HPA controller lower-cases what its user wrote."""
    assert metric_named("Celery_Demand") is METRICS["celery_demand"]
    assert all(name == name.lower() for name in METRICS)
    assert metric_named("celery_damand") is None
