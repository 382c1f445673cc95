"""The autoscaler's arithmetic against recordings of Kubernetes 1.36 and against literals."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.sandbox.controllers.autoscaling import (
    MAX_INT32,
    MetricFailure,
    NoPodsMatch,
    Proposal,
    Tolerance,
    average_value_proposal,
    combine,
    describe_selector,
    value_proposal,
)
from deploy.sandbox.controllers.quantities import MAX_INT64, format_milli, parse_milli
from shared.pods import selector_text

RECORDINGS = Path(__file__).parents[2] / "recordings" / "kubernetes"
ODD_REPLIES = json.loads((RECORDINGS / "b4_hpa_odd_replies.json").read_text())["cases"]
QUERIES = json.loads((RECORDINGS / "b1_hpa_external_queries.json").read_text())["cases"]
NONE = Tolerance(up=0, down=0)


def by_value(
    *values: int, target: int, spec: int, ready: int, pods: int | None = None, tolerance: Tolerance = NONE
) -> int:
    return value_proposal(
        [1000 * value for value in values],
        target_milli=1000 * target,
        spec_replicas=spec,
        pods=ready if pods is None else pods,
        ready_pods=ready,
        tolerance=tolerance,
    ).replicas


def by_average(*milli: int, target: int, status: int, tolerance: Tolerance = NONE) -> int:
    return average_value_proposal(
        milli, target_milli=target, status_replicas=status, tolerance=tolerance
    ).replicas


@pytest.mark.parametrize(
    ("text", "milli"),
    [
        ("10", 10_000),
        ("10.5", 10_500),
        ("10500m", 10_500),
        ("1e1", 10_000),
        (10, 10_000),
        (10.5, 10_500),
        ("2k", 2_000_000),
        ("1Ki", 1_024_000),
        ("0.1m", 1),
        ("-5", -5_000),
        ("1E", MAX_INT64),
    ],
)
def test_quantities_are_read_in_milli_and_finer_ones_rounded_up(text: str | float, milli: int) -> None:
    """Strings with any suffix or exponent and JSON numbers are all quantities; 0.1m counts as 1m."""
    assert parse_milli(text) == milli


@pytest.mark.parametrize("text", ["", "ten", "1.2.3", "1Kb", "NaN", "m"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    """A reply that holds no number is an error, never a zero."""
    with pytest.raises(ValueError, match="is no quantity"):
        parse_milli(text)


@pytest.mark.parametrize(
    ("milli", "text"), [(0, "0"), (5000, "5"), (3500, "3500m"), (1_000_000, "1k"), (1, "1m"), (42_000, "42")]
)
def test_quantities_are_written_with_the_largest_suffix_that_loses_nothing(milli: int, text: str) -> None:
    """1.5 is 1500m, 1000 is 1k."""
    assert format_milli(milli) == text


@given(st.integers(min_value=-(10**15), max_value=10**15))
def test_a_written_quantity_reads_back_as_itself(milli: int) -> None:
    """The canonical text loses nothing."""
    assert parse_milli(format_milli(milli)) == milli


def recorded_values(case: dict[str, Any]) -> list[int]:
    return [parse_milli(item["value"]) for item in case["sample_response"]["body"]["items"]]


@pytest.mark.parametrize(
    "name",
    [name for name, case in ODD_REPLIES.items() if "external" in case["currentMetrics"][0]],
)
def test_replies_are_read_as_kubernetes_read_them(name: str) -> None:
    """Each recorded reply (target 5 on average, four replicas, at most twenty) gives the recorded size."""
    case = ODD_REPLIES[name]
    wanted = by_average(*recorded_values(case), target=5000, status=4, tolerance=Tolerance())
    assert min(20, wanted) == case["desired"]


def test_the_current_value_is_shown_per_replica() -> None:
    """The status shows what each replica carries, rounded up to a milli."""
    proposal = average_value_proposal([10_000], target_milli=5000, status_replicas=3, tolerance=Tolerance())
    assert format_milli(proposal.current_milli) == "3334m"


def test_a_negative_average_is_shown_and_counted_as_overflow() -> None:
    """A negative sum can only be an overflow to Kubernetes, which then scales to the maximum."""
    recorded = ODD_REPLIES["value_negative"]["currentMetrics"][0]["external"]["current"]["averageValue"]
    proposal = average_value_proposal([-5000], target_milli=5000, status_replicas=4, tolerance=Tolerance())
    assert (proposal.replicas, format_milli(proposal.current_milli)) == (MAX_INT32, recorded)


def test_value_multiplies_the_ready_pods_and_average_ignores_them() -> None:
    """With twenty registered and ten ready pods a ratio halves the fleet; an average ignores pods."""
    assert by_value(8, target=10, spec=20, ready=10) == 8
    assert by_average(128_000, target=8000, status=20) == 16


def test_value_keeps_multiplying_while_the_metric_stays_high() -> None:
    """Twice the target doubles at every look: 5, 10, 20."""
    assert [by_value(20, target=10, spec=size, ready=size) for size in (5, 10)] == [10, 20]


def test_pods_of_which_none_is_ready_ask_for_nothing() -> None:
    """Ready pods are what the ratio multiplies, so none of them means zero (and then the minimum)."""
    assert by_value(50, target=10, spec=5, ready=0, pods=5) == 0


def test_a_ratio_needs_at_least_one_pod() -> None:
    """No pod at all is an error and freezes the size, unlike no ready pod."""
    with pytest.raises(NoPodsMatch, match="no pods returned by selector"):
        by_value(50, target=10, spec=5, ready=0, pods=0)


def test_zero_replicas_use_the_bare_ratio_and_no_tolerance() -> None:
    """From zero there is nothing to multiply: the ratio itself, rounded up."""
    assert by_value(25, target=10, spec=0, ready=0) == 3
    assert by_average(25_000, target=10_000, status=0) == 3
    assert by_average(0, target=10_000, status=0) == 0


@pytest.mark.parametrize(("load", "replicas"), [(11, 10), (9, 10), (12, 12), (8, 8)])
def test_within_the_tolerance_nothing_changes(load: int, replicas: int) -> None:
    """A tenth either way is within the default tolerance, its bounds included."""
    assert by_value(load, target=10, spec=10, ready=10, tolerance=Tolerance()) == replicas


def test_the_two_targets_keep_different_counts_within_the_tolerance() -> None:
    """Value keeps spec.replicas, AverageValue status.replicas: they differ while a rollout is under way."""
    assert by_value(10, target=10, spec=11, ready=10, tolerance=Tolerance()) == 11
    assert by_average(66_000, target=6400, status=10, tolerance=Tolerance()) == 10


def test_a_tolerance_can_differ_by_direction() -> None:
    """An HPA may be eager to grow and slow to shrink."""
    eager_up = Tolerance(up=0, down=0.5)
    assert by_value(11, target=10, spec=10, ready=10, tolerance=eager_up) == 11
    assert by_value(6, target=10, spec=10, ready=10, tolerance=eager_up) == 10


def test_items_are_summed_and_the_sum_is_held_at_the_largest_integer() -> None:
    """Two items of 0.9 make 1.8, and nothing wraps around."""
    assert by_value(9, 9, target=10, spec=10, ready=10) == 18
    assert by_average(MAX_INT64, MAX_INT64, target=1, status=1) == MAX_INT32


@given(
    busy=st.integers(min_value=0, max_value=10_000),
    slots=st.integers(min_value=1, max_value=64),
    status=st.integers(min_value=0, max_value=500),
)
def test_an_average_without_tolerance_is_exact_in_one_step(busy: int, slots: int, status: int) -> None:
    """AverageValue asks for ceil(demand / target) whatever is there now."""
    assert by_average(1000 * busy, target=1000 * slots, status=status) == -(-busy // slots)


FAILED = MetricFailure(
    reason="FailedGetExternalMetric",
    cause="unable to get external metric b/queue_depth/nil: no metrics returned from external metrics API",
    summary="failed to get queue_depth external metric: no metrics returned from external metrics API",
)


def wants(replicas: int, name: str = "a") -> Proposal:
    return Proposal(replicas=replicas, current_milli=0, metric=name)


def test_of_several_metrics_the_largest_proposal_wins() -> None:
    """Each metric is a lower bound."""
    decision = combine([wants(3, "a"), wants(7, "b"), wants(5, "c")], spec_replicas=4)
    assert (decision.replicas, decision.metric, decision.error) == (7, "b", None)


def test_a_failing_metric_forbids_going_down_but_not_up() -> None:
    """What could not be read might have asked for more."""
    up = combine([FAILED, wants(7)], spec_replicas=4)
    down = combine([FAILED, wants(3)], spec_replicas=4)
    assert (up.replicas, up.condition.status, down.replicas, down.condition.status) == (7, True, None, False)
    assert up.error is not None
    assert up.error.startswith(
        "invalid metrics (1 invalid out of 2), first error is: failed to get queue_depth"
    )


def test_all_metrics_failing_freezes_the_size_with_the_recorded_condition() -> None:
    """The condition carries the first failure in Kubernetes' words."""
    decision = combine([FAILED], spec_replicas=4)
    recorded = ODD_REPLIES["empty_items"]["hpa_conditions"][1]
    assert decision.replicas is None
    assert (decision.condition.reason, decision.condition.message) == (
        recorded["reason"],
        recorded["message"],
    )


@pytest.mark.parametrize("name", [name for name, case in QUERIES.items() if "metric_spec" in case])
def test_selectors_are_sent_and_printed_as_kubernetes_does(name: str) -> None:
    """The query of each recorded HPA, and the way its condition names the metric."""
    case = QUERIES[name]
    metric = case["metric_spec"]["external"]["metric"]
    line = case["requests"][0]["request_line"].split()[1]
    text = selector_text(metric.get("selector") or {})
    assert line.partition("?")[2] == (urlencode({"labelSelector": text}) if text else "")
    message = case["hpa_status"]["conditions"][1]["message"]
    assert f"{metric['name']}({describe_selector(metric.get('selector'))})" in message
