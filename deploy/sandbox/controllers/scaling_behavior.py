"""What an HPA's limits, `behavior` policies and windows make of the replicas its metrics ask for.

What has to be remembered is a `History` that the caller keeps. "Now" is an argument: seconds on any clock
that only goes forward.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from deploy.sandbox.controllers.autoscaling import MAX_INT32, Condition, Tolerance
from deploy.sandbox.controllers.quantities import parse_milli

DEFAULT_DOWNSCALE_WINDOW_S = 300
ABLE_TO_SCALE = "AbleToScale"
SCALING_LIMITED = "ScalingLimited"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """At most this many pods, or this percentage of them, within the period."""

    kind: Literal["Pods", "Percent"]
    value: int
    period_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """One direction of `behavior`."""

    policies: tuple[Policy, ...]
    select: Literal["Max", "Min", "Disabled"] = "Max"
    window_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Behavior:
    """Both directions, with what Kubernetes fills in for what the user left out."""

    up: Rules
    down: Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A replica count (or a change of it) and when it came up."""

    at_s: float
    replicas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Past recommendations, and the rescales that succeeded; a refused one uses up no policy."""

    recommendations: tuple[Moment, ...] = ()
    added: tuple[Moment, ...] = ()
    removed: tuple[Moment, ...] = ()

    def starting_at(self, replicas: int, now_s: float) -> "History":
        """With the replicas found at the first look, which count as the first recommendation."""
        if self.recommendations:
            return self
        return replace(self, recommendations=(Moment(at_s=now_s, replicas=replicas),))

    def after_rescale(self, old: int, new: int, now_s: float, behavior: Behavior | None) -> "History":
        """With a rescale that succeeded. Without behavior there are no policies to remember it for."""
        if behavior is None:
            return self
        moment = Moment(at_s=now_s, replicas=abs(new - old))
        if new > old:
            return replace(self, added=_remembered(self.added, moment, behavior.up))
        return replace(self, removed=_remembered(self.removed, moment, behavior.down))

    def recommended(self, replicas: int, now_s: float) -> "History":
        kept = _younger(self.recommendations, now_s)
        return replace(self, recommendations=(*kept, Moment(at_s=now_s, replicas=replicas)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalized:
    """The replicas to ask for, the two conditions that explain them, and the history to keep."""

    replicas: int
    conditions: tuple[Condition, Condition]
    history: History


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the HPA's spec says about sizes."""

    minimum: int = 1
    maximum: int
    behavior: Behavior | None = None
    downscale_window_s: int = DEFAULT_DOWNSCALE_WINDOW_S


def normalize(wanted: int, *, current: int, limits: Limits, history: History, now_s: float) -> Normalized:
    """The wish, first stabilized over the windows and then held within rates, minimum and maximum."""
    if limits.behavior is None:
        stable = _highest_recent(wanted, history, limits.downscale_window_s, now_s)
        replicas, limited = _limit_without_behavior(stable, current=current, limits=limits)
    else:
        stable = _stabilize(wanted, current, limits.behavior, history, now_s)
        replicas, limited = _limit(stable, current=current, limits=limits, history=history, now_s=now_s)
    rising = limits.behavior is not None and wanted >= current
    return Normalized(
        replicas=replicas,
        conditions=(_able_to_scale(wanted, stable, rising=rising), limited),
        history=history.recommended(wanted, now_s),
    )


def outside_limits(current: int, limits: Limits) -> tuple[int, str] | None:
    """The nearest size within minimum and maximum and the reason for it; then no metric is read at all."""
    if current > limits.maximum:
        return limits.maximum, "Current number of replicas above Spec.MaxReplicas"
    if current < limits.minimum:
        return limits.minimum, "Current number of replicas below Spec.MinReplicas"
    return None


def rescale_reason(wanted: int, *, current: int, metric: str) -> str:
    """Why the size changes, in the words of the SuccessfulRescale event."""
    if wanted > current:
        return f"{metric} above target"
    return "All metrics below target" if wanted < current else ""


def limits_of(spec: dict[str, Any]) -> Limits:
    """The limits of an autoscaling/v2 HPA spec, with Kubernetes' defaults."""
    behavior = spec.get("behavior")
    minimum = spec.get("minReplicas")
    return Limits(
        minimum=1 if minimum is None else minimum,
        maximum=spec["maxReplicas"],
        behavior=None if behavior is None else _behavior(behavior),
    )


def tolerance_of(spec: dict[str, Any], *, default: float = 0.1) -> Tolerance:
    """The tolerance of each direction; the controller's own where the HPA says nothing."""
    behavior = spec.get("behavior") or {}

    def one(direction: str) -> float:
        given = (behavior.get(direction) or {}).get("tolerance")
        return default if given is None else parse_milli(given) / 1000

    return Tolerance(up=one("scaleUp"), down=one("scaleDown"))


_DEFAULT_UP = Rules(
    policies=(
        Policy(kind="Pods", value=4, period_s=15),
        Policy(kind="Percent", value=100, period_s=15),
    ),
    window_s=0,
)
_DEFAULT_DOWN = Rules(
    policies=(Policy(kind="Percent", value=100, period_s=15),), window_s=DEFAULT_DOWNSCALE_WINDOW_S
)
_LONGEST_WINDOW_S = 3600  # the longest that validation admits, for windows and for policy periods


def _behavior(behavior: dict[str, Any]) -> Behavior:
    return Behavior(
        up=_rules(behavior.get("scaleUp") or {}, _DEFAULT_UP),
        down=_rules(behavior.get("scaleDown") or {}, _DEFAULT_DOWN),
    )


def _rules(rules: dict[str, Any], default: Rules) -> Rules:
    window_s = rules.get("stabilizationWindowSeconds")
    policies = tuple(
        Policy(kind=policy["type"], value=policy["value"], period_s=policy["periodSeconds"])
        for policy in rules.get("policies") or []
    )
    return Rules(
        policies=policies or default.policies,
        select=rules.get("selectPolicy") or default.select,
        window_s=default.window_s if window_s is None else window_s,
    )


def _remembered(moments: tuple[Moment, ...], moment: Moment, rules: Rules) -> tuple[Moment, ...]:
    """In place of the last one that no policy of its own direction counts; those of the other one may."""
    began_s = moment.at_s - max(policy.period_s for policy in rules.policies)
    outdated = [index for index, past in enumerate(moments) if past.at_s < began_s]
    if not outdated:
        return (*moments, moment)
    return (*moments[: outdated[-1]], moment, *moments[outdated[-1] + 1 :])


def _younger(moments: Iterable[Moment], now_s: float) -> Iterable[Moment]:
    return (moment for moment in moments if now_s - moment.at_s <= _LONGEST_WINDOW_S)


def _highest_recent(wanted: int, history: History, window_s: int, now_s: float) -> int:
    recent = (past.replicas for past in history.recommendations if past.at_s >= now_s - window_s)
    return max([wanted, *recent])


def _stabilize(wanted: int, current: int, behavior: Behavior, history: History, now_s: float) -> int:
    """Up goes only as far as every recent wish did, down only as far as every recent wish did."""
    up = down = wanted
    for past in history.recommendations:
        if past.at_s > now_s - behavior.up.window_s:
            up = min(up, past.replicas)
        if past.at_s > now_s - behavior.down.window_s:
            down = max(down, past.replicas)
    return min(max(current, up), down)


def _able_to_scale(wanted: int, stable: int, *, rising: bool) -> Condition:
    reason, message = "ReadyForNewScale", "recommended size matches current size"
    if stable != wanted and rising:
        reason = "ScaleUpStabilized"
        message = (
            "recent recommendations were lower than current one, applying the lowest recent recommendation"
        )
    elif stable != wanted:
        reason = "ScaleDownStabilized"
        message = (
            "recent recommendations were higher than current one, applying the highest recent recommendation"
        )
    return Condition(type=ABLE_TO_SCALE, status=True, reason=reason, message=message)


def _limit_without_behavior(wanted: int, *, current: int, limits: Limits) -> tuple[int, Condition]:
    fastest = max(2 * current, 4)
    if wanted < limits.minimum:
        return limits.minimum, _TOO_FEW
    if wanted > min(limits.maximum, fastest):
        return (fastest, _UP_LIMIT) if limits.maximum > fastest else (limits.maximum, _TOO_MANY)
    return wanted, _WITHIN


def _limit(
    wanted: int, *, current: int, limits: Limits, history: History, now_s: float
) -> tuple[int, Condition]:
    assert limits.behavior is not None
    if wanted > current:
        ceiling = max(current, _up_limit(current, limits.behavior.up, history, now_s))
        if wanted > min(limits.maximum, ceiling):
            return (ceiling, _UP_LIMIT) if limits.maximum > ceiling else (limits.maximum, _TOO_MANY)
    elif wanted < current:
        floor = min(current, _down_limit(current, limits.behavior.down, history, now_s))
        if wanted < max(limits.minimum, floor):
            return (floor, _DOWN_LIMIT) if limits.minimum < floor else (limits.minimum, _TOO_FEW)
    return wanted, _WITHIN


def _up_limit(current: int, rules: Rules, history: History, now_s: float) -> int:
    if rules.select == "Disabled":
        return current
    sizes = [
        start + policy.value if policy.kind == "Pods" else math.ceil(start * (1 + policy.value / 100))
        for policy, start in _period_starts(current, rules, history, now_s)
    ]
    return min(sizes) if rules.select == "Min" else max(sizes)


def _down_limit(current: int, rules: Rules, history: History, now_s: float) -> int:
    if rules.select == "Disabled":
        return current
    sizes = [
        start - policy.value if policy.kind == "Pods" else int(start * (1 - policy.value / 100))
        for policy, start in _period_starts(current, rules, history, now_s)
    ]
    return max(sizes) if rules.select == "Min" else min(sizes)


def _period_starts(
    current: int, rules: Rules, history: History, now_s: float
) -> Iterable[tuple[Policy, int]]:
    """Each policy with the replicas there were when its period began, by the rescales made since."""
    for policy in rules.policies:
        added = _changed(history.added, policy, now_s)
        removed = _changed(history.removed, policy, now_s)
        yield policy, min(MAX_INT32, current - added + removed)


def _changed(moments: Iterable[Moment], policy: Policy, now_s: float) -> int:
    return sum(moment.replicas for moment in moments if moment.at_s > now_s - policy.period_s)


def _limited(status: bool, reason: str, message: str) -> Condition:
    return Condition(type=SCALING_LIMITED, status=status, reason=reason, message=message)


_WITHIN = _limited(False, "DesiredWithinRange", "the desired count is within the acceptable range")
_TOO_FEW = _limited(
    True, "TooFewReplicas", "the desired replica count is less than the minimum replica count"
)
_TOO_MANY = _limited(
    True, "TooManyReplicas", "the desired replica count is more than the maximum replica count"
)
_UP_LIMIT = _limited(
    True, "ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate"
)
_DOWN_LIMIT = _limited(
    True, "ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate"
)
