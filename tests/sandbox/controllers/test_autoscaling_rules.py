"""Kubernetes' rules for external metrics as properties, said in exact numbers and from the whole past."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy.sandbox.controllers.autoscaling import (
    MetricFailure,
    Proposal,
    Tolerance,
    average_value_proposal,
    combine,
    value_proposal,
)
from deploy.sandbox.controllers.scaling_behavior import (
    Behavior,
    History,
    Limits,
    Policy,
    Rules,
    limits_of,
    normalize,
    outside_limits,
)

MINIMUM, MAXIMUM = 2, 100
USAGE = st.lists(st.integers(0, 10**6), min_size=1, max_size=4)
TARGET = st.integers(1, 10**5)
COUNT = st.integers(0, 500)
SOME = st.integers(1, 500)
TOLERANCE = st.builds(
    Tolerance, up=st.sampled_from([0.0, 0.125, 0.5]), down=st.sampled_from([0.0, 0.125, 0.5])
)
"""Those that floating point holds exactly; of others a bound is as near to it as floating point comes."""


def within(ratio: Fraction, tolerance: Tolerance) -> bool:
    return 1 - Fraction(tolerance.down) <= ratio <= 1 + Fraction(tolerance.up)


@given(usage=USAGE, target=TARGET, replicas=COUNT, ready=COUNT, unready=COUNT, tolerance=TOLERANCE)
@example(usage=[9, 9], target=16, replicas=3, ready=8, unready=0, tolerance=Tolerance(up=0.125, down=0))
@example(usage=[7], target=8, replicas=3, ready=8, unready=0, tolerance=Tolerance(up=0, down=0.125))
def test_value_is_the_ratio_of_the_sum_times_the_ready_pods(
    usage: list[int], target: int, replicas: int, ready: int, unready: int, tolerance: Tolerance
) -> None:
    """Within the tolerance, its bounds too, the replicas asked for; from zero the bare ratio."""
    ratio = Fraction(sum(usage), target)
    asks_pods = replicas > 0 and not within(ratio, tolerance)
    found = value_proposal(
        usage,
        target_milli=target,
        spec_replicas=replicas,
        pods=max(1, ready + unready),
        ready_pods=ready,
        tolerance=tolerance,
    ).replicas
    if asks_pods:
        assert found in _rounded_up(ratio * ready)
    else:
        assert found == (replicas or math.ceil(ratio))


def _rounded_up(exact: Fraction) -> Sequence[int]:
    """Floating point may end up just above a whole number, and never below one."""
    return [math.ceil(exact)] if exact.denominator > 1 else [int(exact), int(exact) + 1]


@given(usage=USAGE, target=TARGET, status=COUNT, tolerance=TOLERANCE)
@example(usage=[90], target=8, status=10, tolerance=Tolerance(up=0.125, down=0))
@example(usage=[70], target=8, status=10, tolerance=Tolerance(up=0, down=0.125))
def test_average_value_is_the_sum_by_the_target(
    usage: list[int], target: int, status: int, tolerance: Tolerance
) -> None:
    """No pod is looked at; within the tolerance what there is, which may be other than what was asked for."""
    total = sum(usage)
    is_near = status > 0 and within(Fraction(total, target * status), tolerance)
    found = average_value_proposal(
        usage, target_milli=target, status_replicas=status, tolerance=tolerance
    ).replicas
    assert found == (status if is_near else -(-total // target))


FAILURE = MetricFailure(reason="FailedGetExternalMetric", cause="no answer", summary="no answer")
OUTCOME = st.one_of(
    st.just(FAILURE), st.integers(0, 100).map(lambda n: Proposal(replicas=n, current_milli=0))
)


@given(outcomes=st.lists(OUTCOME, min_size=1, max_size=5), replicas=SOME)
def test_of_several_metrics_the_most_counts_and_a_failing_one_keeps_what_there_is(
    outcomes: list[Proposal | MetricFailure], replicas: int
) -> None:
    """It forbids going down, and all of them going anywhere."""
    wishes = [one.replicas for one in outcomes if isinstance(one, Proposal)]
    may_go = wishes and (len(wishes) == len(outcomes) or max(wishes) >= replicas)
    assert combine(outcomes, spec_replicas=replicas).replicas == (max(wishes) if may_go else None)


@given(replicas=SOME, minimum=SOME, more=COUNT)
def test_out_of_its_limits_it_goes_to_the_next_one_and_asks_no_metric(
    replicas: int, minimum: int, more: int
) -> None:
    limits = Limits(minimum=minimum, maximum=minimum + more)
    found = outside_limits(replicas, limits)
    nearest = min(max(replicas, minimum), minimum + more)
    assert (found[0] if found else replicas) == nearest
    assert (found is None) == (replicas == nearest)


PERIODS = st.sampled_from([15, 60, 120])
PERCENT = st.sampled_from([25, 50, 100, 200])
POLICY = st.one_of(
    st.builds(Policy, kind=st.just("Pods"), value=st.integers(1, 20), period_s=PERIODS),
    st.builds(Policy, kind=st.just("Percent"), value=PERCENT, period_s=PERIODS),
)
LONGEST = Policy(kind="Pods", value=1, period_s=120)
"""In every direction, so that no change is forgotten before both directions count it no more."""
RULES = st.builds(
    Rules,
    policies=st.lists(POLICY, max_size=2).map(lambda policies: (LONGEST, *policies)),
    select=st.sampled_from(["Max", "Max", "Min", "Disabled"]),
    window_s=st.sampled_from([0, 30, 120, 300]),
)
LOOKS = st.lists(
    st.tuples(st.sampled_from([1, 15, 30, 60, 90, 120, 200]), st.integers(0, 150)), min_size=1, max_size=25
)
"""Seconds since the look before, often just as long as a window or period, and the wish."""


@dataclass
class Past:
    """All that ever happened, nothing forgotten."""

    size: int
    wishes: list[tuple[float, int]] = field(default_factory=list)
    sizes: list[tuple[float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sizes.append((-math.inf, self.size))

    def size_at(self, moment: float) -> int:
        return [size for at, size in self.sizes if at <= moment][-1]

    def wishes_since(self, moment: float, *, inclusive: bool = False) -> list[int]:
        return [wish for at, wish in self.wishes if at > moment or (inclusive and at == moment)]

    def grow_or_shrink(self, size: int, now: float) -> None:
        if size != self.size:
            self.size = size
            self.sizes.append((now, size))


def fastest_up(past: Past, rules: Rules, now: float) -> int:
    """By each policy from the size that there was when its period began."""
    starts = [(policy, past.size_at(now - policy.period_s)) for policy in rules.policies]
    sizes = [n + p.value if p.kind == "Pods" else -(-n * (100 + p.value) // 100) for p, n in starts]
    return {"Max": max(sizes), "Min": min(sizes), "Disabled": past.size}[rules.select]


def fastest_down(past: Past, rules: Rules, now: float) -> int:
    starts = [(policy, past.size_at(now - policy.period_s)) for policy in rules.policies]
    sizes = [n - p.value if p.kind == "Pods" else int(Fraction(n * (100 - p.value), 100)) for p, n in starts]
    return {"Max": min(sizes), "Min": max(sizes), "Disabled": past.size}[rules.select]


def expected(past: Past, wish: int, behavior: Behavior, now: float) -> int:
    """Up to the least wish of the up window, down to the most of the other one; then limits and rates."""
    up = min([wish, *past.wishes_since(now - behavior.up.window_s)])
    down = max([wish, *past.wishes_since(now - behavior.down.window_s)])
    stable = min(max(past.size, up), down)
    if stable > past.size:
        return min(stable, MAXIMUM, max(past.size, fastest_up(past, behavior.up, now)))
    if stable < past.size:
        return max(stable, MINIMUM, min(past.size, fastest_down(past, behavior.down, now)))
    return past.size


@settings(max_examples=300)
@given(up=RULES, down=RULES, size=st.integers(MINIMUM, MAXIMUM), looks=LOOKS)
def test_windows_and_policies_hold_over_any_past(
    up: Rules, down: Rules, size: int, looks: list[tuple[int, int]]
) -> None:
    """What is remembered is as good as the whole past."""
    behavior = Behavior(up=up, down=down)
    limits = Limits(minimum=MINIMUM, maximum=MAXIMUM, behavior=behavior)
    past, history, now = Past(size), History(), 0.0
    past.wishes.append((0.0, size))
    history = history.starting_at(size, now)
    for gap_s, wish in looks:
        now += gap_s
        found = normalize(wish, current=past.size, limits=limits, history=history, now_s=now)
        assert found.replicas == expected(past, wish, behavior, now)
        history = found.history
        if found.replicas != past.size:
            history = history.after_rescale(past.size, found.replicas, now, behavior)
        past.wishes.append((now, wish))
        past.grow_or_shrink(found.replicas, now)


@given(size=st.integers(MINIMUM, MAXIMUM), looks=LOOKS)
def test_without_behavior_it_doubles_at_most_and_keeps_the_most_of_five_minutes(
    size: int, looks: list[tuple[int, int]]
) -> None:
    """Or goes to four, when that is more."""
    limits = limits_of({"minReplicas": MINIMUM, "maxReplicas": MAXIMUM})
    past, history, now = Past(size), History().starting_at(size, 0.0), 0.0
    past.wishes.append((0.0, size))
    for gap_s, wish in looks:
        now += gap_s
        found = normalize(wish, current=past.size, limits=limits, history=history, now_s=now)
        most = max([wish, *past.wishes_since(now - 300, inclusive=True)])
        assert found.replicas == max(MINIMUM, min(most, MAXIMUM, max(2 * past.size, 4)))
        history = found.history.after_rescale(past.size, found.replicas, now, None)
        past.wishes.append((now, wish))
        past.grow_or_shrink(found.replicas, now)


def test_behavior_that_says_nothing_is_kubernetes_own() -> None:
    """Up by four or by all there are in 15 s, at once; down by all in 15 s, after five minutes."""
    assert limits_of({"maxReplicas": 9, "behavior": {}}).behavior == Behavior(
        up=Rules(
            policies=(
                Policy(kind="Pods", value=4, period_s=15),
                Policy(kind="Percent", value=100, period_s=15),
            ),
            window_s=0,
        ),
        down=Rules(policies=(Policy(kind="Percent", value=100, period_s=15),), window_s=300),
    )
