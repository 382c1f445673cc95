"""How large each ReplicaSet of a Deployment should be now: rolling updates, Recreate, and scaling amid one.

The rules of Kubernetes 1.36's deployment controller, one step at a time: the controller carries out a step,
the ReplicaSets change, and it asks again.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """A Deployment's strategy; surge and unavailability are counts, or percentages such as "25%"."""

    is_rolling: bool = True
    max_surge: int | str = "25%"
    max_unavailable: int | str = "25%"

    def fenceposts(self, desired: int) -> tuple[int, int]:
        """How many pods may be there beyond the desired ones, and how many of these may be missing."""
        if not self.is_rolling:
            return 0, 0
        surge = _share(self.max_surge, desired, round_up=True)
        unavailable = _share(self.max_unavailable, desired, round_up=False)
        if surge == 0 and unavailable == 0:
            unavailable = 1
        return surge, min(unavailable, desired)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized:
    """A ReplicaSet: what it should have, what it has, and the Deployment's size it was last scaled for."""

    name: str
    created_at: datetime
    replicas: int
    actual: int = 0
    available: int = 0
    desired_annotation: int | None = None
    max_annotation: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """What the decision looks at. `new` is the present template's ReplicaSet, None until there is one."""

    replicas: int
    strategy: Strategy
    new: Sized | None
    old: tuple[Sized, ...] = ()
    is_paused: bool = False
    old_pods_exist: bool = False
    status_replicas: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What to do now: sizes by ReplicaSet name, and the size of the new one if it is to be created.

    `annotate` names ReplicaSets that are told the Deployment's size even if their own does not change.
    """

    sizes: dict[str, int]
    create: int | None = None
    annotate: frozenset[str] = frozenset()


def next_step(deployed: Deployed) -> Step:
    """The next step towards the Deployment's template and size; an empty one when there is nothing to do."""
    if deployed.is_paused or _was_scaled(deployed):
        return _scale(deployed)
    return _roll(deployed) if deployed.strategy.is_rolling else _recreate(deployed)


def _was_scaled(deployed: Deployed) -> bool:
    return any(
        one.desired_annotation is not None and one.desired_annotation != deployed.replicas
        for one in _active(deployed)
    )


def _scale(deployed: Deployed) -> Step:
    active = _active(deployed)
    if len(active) <= 1:
        only = active[0] if active else deployed.new or max(deployed.old, key=_age, default=None)
        return _changes([] if only is None else [(only, deployed.replicas)])
    if deployed.new is not None and _is_saturated(deployed.new, deployed.replicas):
        return _changes([(one, 0) for one in deployed.old])
    if not deployed.strategy.is_rolling:
        return Step(sizes={})
    return _scale_proportionally(active, deployed)


def _scale_proportionally(active: Sequence[Sized], deployed: Deployed) -> Step:
    """Spread the change over all ReplicaSets by size; the largest takes what rounding leaves."""
    surge, _ = deployed.strategy.fenceposts(deployed.replicas)
    allowed = deployed.replicas + surge if deployed.replicas > 0 else 0
    to_add = allowed - sum(one.replicas for one in active)
    newest_first = to_add > 0
    ordered = sorted(active, key=lambda one: (-one.replicas, _age(one) * (-1 if newest_first else 1)))
    sizes, added = {}, 0
    for one in ordered:
        part = _proportion(one, deployed, to_add=to_add, added=added)
        sizes[one.name] = one.replicas + part
        added += part
    if to_add:
        largest = ordered[0].name
        sizes[largest] = max(0, sizes[largest] + to_add - added)
    return Step(sizes=sizes, annotate=frozenset(sizes))


def _proportion(one: Sized, deployed: Deployed, *, to_add: int, added: int) -> int:
    if one.replicas == 0 or to_add in (0, added):
        return 0
    fraction = _fraction(one, deployed)
    return min(fraction, to_add - added) if to_add > 0 else max(fraction, to_add - added)


def _fraction(one: Sized, deployed: Deployed) -> int:
    if deployed.replicas == 0:
        return -one.replicas
    surge, _ = deployed.strategy.fenceposts(deployed.replicas)
    before = one.max_annotation or deployed.status_replicas
    if before == 0:
        return 0
    exact = Fraction(one.replicas * (deployed.replicas + surge), before)
    return math.floor(exact + Fraction(1, 2)) - one.replicas


def _roll(deployed: Deployed) -> Step:
    if deployed.new is None:
        return Step(sizes={}, create=_new_size(deployed, 0))
    size = min(_new_size(deployed, deployed.new.replicas), deployed.replicas)
    if size != deployed.new.replicas:
        return Step(sizes={deployed.new.name: size})
    return _shrink_old(deployed, deployed.new)


def _new_size(deployed: Deployed, present: int) -> int:
    surge, _ = deployed.strategy.fenceposts(deployed.replicas)
    room = deployed.replicas + surge - present - sum(one.replicas for one in deployed.old)
    return present + max(0, min(room, deployed.replicas - present))


def _shrink_old(deployed: Deployed, new: Sized) -> Step:
    """Old pods that are not available go first, then available ones as far as `maxUnavailable` lets them."""
    _, max_unavailable = deployed.strategy.fenceposts(deployed.replicas)
    least_available = deployed.replicas - max_unavailable
    old = sorted((one for one in deployed.old if one.replicas > 0), key=_age)
    total = new.replicas + sum(one.replicas for one in old)
    spare = total - least_available - (new.replicas - new.available)
    if not old or spare <= 0 or any(one.available > one.replicas for one in old):
        return Step(
            sizes={}
        )  # more available than wanted: an earlier step is still under way, so wait for it
    cleaned = _take(old, spare, lambda one: one.replicas - one.available)
    available = new.available + sum(one.available for one in old)
    shrunk = _take(cleaned, available - least_available, lambda one: one.replicas)
    return _changes([(before, after.replicas) for before, after in zip(old, shrunk, strict=True)])


def _take(sets: Sequence[Sized], at_most: int, limit: Callable[[Sized], int]) -> list[Sized]:
    left = max(0, at_most)
    taken = []
    for one in sets:
        part = min(left, max(0, limit(one)))
        left -= part
        taken.append(replace(one, replicas=one.replicas - part))
    return taken


def _recreate(deployed: Deployed) -> Step:
    old = [one for one in deployed.old if one.replicas > 0]
    if old:
        return _changes([(one, 0) for one in old])
    if deployed.old_pods_exist:
        return Step(sizes={})
    if deployed.new is None:
        return Step(sizes={}, create=deployed.replicas)
    return _changes([(deployed.new, deployed.replicas)])


def _active(deployed: Deployed) -> list[Sized]:
    everyone = (*deployed.old, *([deployed.new] if deployed.new else []))
    return [one for one in everyone if one.replicas > 0]


def _is_saturated(new: Sized, desired: int) -> bool:
    return new.replicas == new.desired_annotation == new.available == desired


def _changes(sizes: Sequence[tuple[Sized, int]]) -> Step:
    return Step(sizes={one.name: size for one, size in sizes if one.replicas != size})


def _age(one: Sized) -> float:
    return one.created_at.timestamp()


def _share(amount: int | str, desired: int, *, round_up: bool) -> int:
    if isinstance(amount, int):
        return amount
    exact = Fraction(int(amount.removesuffix("%")) * desired, 100)
    return math.ceil(exact) if round_up else math.floor(exact)
