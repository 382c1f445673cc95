"""Every demand with every number of replicas: does an HPA of deploy/hpa go where it should, in one step?

What is wanted is said here in whole numbers, without a look at how the adapter or the HPA compute it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from deploy.sandbox.controllers.scaling_behavior import History
from shared.pools import Pool
from tests.bench.hpa_fleets import STATES, Fleet, fleet
from tests.deploy.autoscalers import NAMES, Autoscaler, template, without_tolerance
from tests.metrics_adapter.builders import pool

MOST_REPLICAS = 60
MOST_DEMAND = 2_000
SLOTS = 8
TARGET_MILLI, ABOVE_MILLI, BELOW_MILLI = 800, 900, 700
BAND = {"scaleUpAbove": "0.9", "scaleDownBelow": "0.7"}
ENOUGH = 400
"""A maxReplicas that no demand of the grid reaches."""

Wanted = Callable[[Fleet, int], int]
"""The replicas to go to, by the pool's state and its demand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An HPA over a pool, and what it should make of it."""

    autoscaler: Autoscaler
    pool: Pool
    wanted: Wanted

    def wish(self, fleet: Fleet, demand: int) -> int:
        return self.autoscaler.wish(fleet.values(self.autoscaler.metric, demand), fleet.scale)

    def is_right(self, fleet: Fleet, demand: int) -> bool:
        """It goes there at once, or down when its window is over, and nowhere else before."""
        replicas = fleet.scale.replicas
        wanted = min(max(self.wanted(fleet, demand), self.autoscaler.limits.minimum), ENOUGH)
        return self._sizes(self.wish(fleet, demand), replicas) == (max(wanted, replicas), wanted)

    def _sizes(self, wish: int, replicas: int) -> tuple[int, int]:
        """After the first look, and after the one at the end of the window, nothing else having changed."""
        first = self.autoscaler.look(wish, replicas=replicas, history=History(), now_s=0)
        if first.replicas != replicas:
            return first.replicas, first.replicas
        then = float(self.autoscaler.patience_s)
        last = self.autoscaler.look(wish, replicas=replicas, history=first.history, now_s=then)
        return first.replicas, last.replicas


def enough(fleet: Fleet, demand: int) -> int:
    """So many that their slots, filled as far as the target says, hold the demand."""
    return -(-demand * 1000 // (SLOTS * TARGET_MILLI))


def enough_outside_the_band(workers: Callable[[Fleet], int], stay: Callable[[Fleet], int]) -> Wanted:
    """While the load of these workers is within the band, what there is."""

    def wanted(fleet: Fleet, demand: int) -> int:
        load, slots = demand * 1000, workers(fleet) * SLOTS
        is_inside = BELOW_MILLI * slots <= load <= ABOVE_MILLI * slots
        return stay(fleet) if is_inside else enough(fleet, demand)

    return wanted


LOAD_FACTOR_IN_BAND = enough_outside_the_band(
    lambda fleet: fleet.scale.ready_pods, lambda fleet: fleet.scale.replicas
)
DESIRED_IN_BAND = enough_outside_the_band(lambda fleet: fleet.pods.staying, lambda fleet: fleet.pods.staying)


def cases() -> Mapping[str, Case]:
    """By what to call them."""
    plain, banded = pool(), pool(algorithm=BAND)
    exact = {
        name: Case(autoscaler=autoscaler(name, maxReplicas=ENOUGH), pool=plain, wanted=enough)
        for name in NAMES
    }
    old = Autoscaler.of(without_tolerance(template("load-factor", maxReplicas=ENOUGH)))
    return exact | {
        "load-factor, dead band": Case(
            autoscaler=exact["load-factor"].autoscaler, pool=banded, wanted=LOAD_FACTOR_IN_BAND
        ),
        "desired-workers, dead band": Case(
            autoscaler=exact["desired-workers"].autoscaler, pool=banded, wanted=DESIRED_IN_BAND
        ),
        "load-factor, dead band, before 1.35": Case(autoscaler=old, pool=banded, wanted=LOAD_FACTOR_IN_BAND),
    }


def autoscaler(name: str, **changes: Any) -> Autoscaler:
    return Autoscaler.of(template(name, **changes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Of one case."""

    looked: int = 0
    wrong: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(looked=self.looked + other.looked, wrong=self.wrong + other.wrong)


def tally(name: str, state: str, sizes: Iterable[int], demands: Iterable[int]) -> Tally:
    """Of one case in one state, at these numbers of replicas and these demands."""
    case, demands = _case(name), list(demands)
    fleets = [fleet(STATES[state](size), of=case.pool) for size in sizes]
    verdicts = [case.is_right(one, demand) for one in fleets for demand in demands]
    return Tally(looked=len(verdicts), wrong=verdicts.count(False))


@cache
def _case(name: str) -> Case:
    return cases()[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a tolerance of a tenth costs a pool of so many replicas, all ready, over all demands."""

    replicas: int
    most_missing: int
    """Workers that are wanted, and not asked for."""
    most_spare: int
    """Workers that are not wanted, and kept."""


def costs(name: str, sizes: Iterable[int]) -> Iterator[Cost]:
    """Of a template without its tolerance, by replicas."""
    old = Autoscaler.of(without_tolerance(template(name, maxReplicas=ENOUGH)))
    case = Case(autoscaler=old, pool=pool(), wanted=enough)
    for size in sizes:
        at = fleet(STATES["all ready"](size), of=case.pool)
        # Where the tolerance hides a change, the HPA stays: far from its present size it is as exact as ever.
        demands = range(SLOTS * size // 2, SLOTS * size)
        errors = [case.wish(at, demand) - enough(at, demand) for demand in demands]
        yield Cost(replicas=size, most_missing=-min(errors), most_spare=max(errors))
