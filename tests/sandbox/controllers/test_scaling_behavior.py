"""Limits, policies and windows of an HPA, with the words that Kubernetes gives to each."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.sandbox.controllers.scaling_behavior import (
    History,
    Limits,
    Normalized,
    limits_of,
    normalize,
    outside_limits,
    rescale_reason,
    tolerance_of,
)

UNLIMITED = {"policies": [{"type": "Percent", "value": 10_000, "periodSeconds": 1}]}


def limits(maximum: int = 100, minimum: int = 1, behavior: dict[str, Any] | None = None) -> Limits:
    return limits_of({"minReplicas": minimum, "maxReplicas": maximum, "behavior": behavior})


def behave(up: dict[str, Any] | None = None, down: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"scaleUp": up or {}, "scaleDown": {"stabilizationWindowSeconds": 0, **(down or {})}}


def ask(
    wanted: int, current: int, within: Limits, history: History | None = None, now_s: float = 1000
) -> Normalized:
    history = (history or History()).starting_at(current, now_s)
    return normalize(wanted, current=current, limits=within, history=history, now_s=now_s)


def reasons(result: Normalized) -> tuple[str, str]:
    return result.conditions[0].reason, result.conditions[1].reason


def test_a_wish_within_all_limits_is_granted() -> None:
    """Nothing to say but that it is within the acceptable range."""
    result = ask(7, 5, limits())
    assert (result.replicas, reasons(result)) == (7, ("ReadyForNewScale", "DesiredWithinRange"))


@pytest.mark.parametrize(("current", "replicas"), [(1, 4), (2, 4), (5, 10), (30, 60)])
def test_without_behavior_growth_is_held_at_double_or_four(current: int, replicas: int) -> None:
    """One step goes to twice the present size, or to four."""
    result = ask(80, current, limits())
    assert (result.replicas, reasons(result)[1]) == (replicas, "ScaleUpLimit")


def test_the_maximum_is_named_when_it_is_the_tighter_one() -> None:
    """The condition says which of the limits bites."""
    result = ask(80, 50, limits(maximum=60))
    assert (result.replicas, reasons(result)[1]) == (60, "TooManyReplicas")


def test_the_minimum_holds_with_and_without_behavior() -> None:
    """A fleet never shrinks below minReplicas."""
    for behavior in (None, behave()):
        result = ask(0, 5, limits(minimum=2, behavior=behavior), history=History(), now_s=1000)
        later = normalize(
            0, current=5, limits=limits(minimum=2, behavior=behavior), history=result.history, now_s=2000
        )
        assert (later.replicas, reasons(later)[1]) == (2, "TooFewReplicas")


def test_without_behavior_the_highest_wish_of_five_minutes_stands() -> None:
    """A dip shorter than the window removes nothing."""
    history = History().recommended(20, 1000)
    inside = ask(5, 20, limits(), history, now_s=1299)
    outside = ask(5, 20, limits(), history, now_s=1301)
    assert (inside.replicas, reasons(inside)[0]) == (20, "ScaleDownStabilized")
    assert (outside.replicas, reasons(outside)[0]) == (5, "ReadyForNewScale")


def test_the_first_look_counts_as_a_recommendation() -> None:
    """A controller that has just started shrinks nothing before its window is over."""
    assert ask(1, 10, limits()).replicas == 10


def test_going_up_waits_until_every_wish_of_the_window_agrees() -> None:
    """The up window takes the lowest recent wish."""
    within = limits(behavior=behave(up={"stabilizationWindowSeconds": 60, **UNLIMITED}))
    history = History().recommended(5, 1000).recommended(9, 1030)
    waiting = ask(12, 5, within, history, now_s=1059)
    agreed = ask(12, 5, within, history, now_s=1061)
    assert (waiting.replicas, reasons(waiting)[0]) == (5, "ScaleUpStabilized")
    assert agreed.replicas == 9


def test_going_down_takes_the_highest_wish_of_the_down_window() -> None:
    """The down window of behavior works like the default one, with its own length."""
    within = limits(behavior=behave(down={"stabilizationWindowSeconds": 30}))
    history = History().recommended(8, 1000).recommended(6, 1020)
    assert [ask(2, 10, within, history, now_s=now).replicas for now in (1025, 1031, 1051)] == [8, 6, 2]


def test_empty_behavior_brings_kubernetes_defaults() -> None:
    """Up by four pods or by all there are, whichever is more, every 15 s; down after 300 s."""
    within = limits(behavior={})
    assert [ask(100, current, within).replicas for current in (1, 4, 10)] == [5, 8, 20]
    assert ask(1, 10, within).replicas == 10


@pytest.mark.parametrize(("select", "replicas"), [("Max", 14), ("Min", 11), ("Disabled", 10)])
def test_select_policy_chooses_among_policies_going_up(select: str, replicas: int) -> None:
    """Max takes the boldest policy, Min the most careful, Disabled stands still."""
    policies = [
        {"type": "Pods", "value": 4, "periodSeconds": 60},
        {"type": "Percent", "value": 1, "periodSeconds": 60},
    ]
    result = ask(50, 10, limits(behavior=behave(up={"policies": policies, "selectPolicy": select})))
    assert (result.replicas, reasons(result)[1]) == (replicas, "ScaleUpLimit")


@pytest.mark.parametrize(("select", "replicas"), [("Max", 5), ("Min", 9), ("Disabled", 10)])
def test_select_policy_chooses_among_policies_going_down(select: str, replicas: int) -> None:
    """Down, the boldest policy leaves the fewest."""
    policies = [
        {"type": "Pods", "value": 1, "periodSeconds": 60},
        {"type": "Percent", "value": 50, "periodSeconds": 60},
    ]
    down = {"policies": policies, "selectPolicy": select}
    history = History().recommended(1, 0)
    result = ask(1, 10, limits(behavior=behave(down=down)), history)
    assert (result.replicas, reasons(result)[1]) == (replicas, "ScaleDownLimit")


def test_a_policy_counts_what_was_already_changed_in_its_period() -> None:
    """Four pods a minute means four in all, and what was removed meanwhile may be added again."""
    policies = {"policies": [{"type": "Pods", "value": 4, "periodSeconds": 60}]}
    within = limits(behavior=behave(up=policies))
    history = History().after_rescale(10, 13, 1000, within.behavior)
    assert ask(50, 13, within, history, now_s=1030).replicas == 14
    assert ask(50, 13, within, history, now_s=1061).replicas == 17
    shrunk = history.after_rescale(13, 11, 1020, within.behavior)
    assert ask(50, 11, within, shrunk, now_s=1030).replicas == 14


def test_growth_that_used_up_its_period_stays_where_it_is() -> None:
    """A limit below the present size removes nothing."""
    policies = {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}
    within = limits(behavior=behave(up=policies))
    history = History().after_rescale(10, 14, 1000, within.behavior)
    assert ask(50, 14, within, history, now_s=1010).replicas == 14


def test_a_change_that_its_own_direction_counts_no_more_gives_its_place_to_the_next_one() -> None:
    """Though the other direction would count it still: Kubernetes keeps one place for both."""
    policies = {"policies": [{"type": "Pods", "value": 5, "periodSeconds": 60}]}
    within = limits(behavior=behave(down=policies))
    once = History().after_rescale(10, 14, 1000, within.behavior)
    assert ask(1, 14, within, once.recommended(1, 0), now_s=1030).replicas == 5
    twice = once.after_rescale(14, 16, 1020, within.behavior)
    assert ask(1, 16, within, twice, now_s=1030).replicas == 9


def test_without_behavior_no_change_is_remembered() -> None:
    """No policy would count it, should there be one later."""
    assert History().after_rescale(10, 14, 1000, None) == History()


def test_outside_the_limits_no_metric_is_needed() -> None:
    """Sizes beyond minimum or maximum are mended at once, with their own reason."""
    within = limits(maximum=10, minimum=3)
    assert outside_limits(12, within) == (10, "Current number of replicas above Spec.MaxReplicas")
    assert outside_limits(1, within) == (3, "Current number of replicas below Spec.MinReplicas")
    assert outside_limits(5, within) is None


def test_reasons_name_the_metric_only_on_the_way_up() -> None:
    """As the SuccessfulRescale events read."""
    assert (
        rescale_reason(8, current=1, metric="external metric q(nil)") == "external metric q(nil) above target"
    )
    assert rescale_reason(1, current=8, metric="external metric q(nil)") == "All metrics below target"


def test_tolerances_come_from_behavior_where_it_has_them() -> None:
    """Each direction has its own, and the controller's default stands in for a missing one."""
    assert tolerance_of({"behavior": {"scaleUp": {"tolerance": "0"}}}).up == 0
    assert tolerance_of({"behavior": {"scaleUp": {"tolerance": "0"}}}).down == 0.1
    assert tolerance_of({"behavior": {"scaleDown": {"tolerance": "50m"}}}).down == 0.05


@given(
    wanted=st.integers(min_value=0, max_value=500),
    current=st.integers(min_value=3, max_value=60),
    past=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 1000)), max_size=6),
    behavior=st.sampled_from([None, {}, behave(), behave(up=UNLIMITED)]),
)
def test_the_size_stays_within_minimum_and_maximum(
    wanted: int, current: int, past: list[tuple[int, int]], behavior: dict[str, Any] | None
) -> None:
    """Whatever is wished for, a fleet within its limits stays there and never turns against the wish."""
    history = History()
    for replicas, at_s in past:
        history = history.recommended(replicas, at_s)
    result = normalize(
        wanted, current=current, limits=limits(60, 3, behavior), history=history, now_s=1000
    ).replicas
    assert 3 <= result <= 60
    assert (result - current) * (wanted - current) >= 0 or behavior is None
