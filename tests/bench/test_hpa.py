"""The HPAs of deploy/hpa go where they should in one step: a sample of what `make bench ARGS=hpa` tries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.sandbox.controllers.scaling_behavior import History
from tests.bench.hpa_fleets import STATES, Pods, fleet
from tests.bench.hpa_grid import (
    MOST_DEMAND,
    MOST_REPLICAS,
    Case,
    autoscaler,
    cases,
    enough,
    tally,
)
from tests.deploy.autoscalers import NAMES, Autoscaler, template, without_tolerance
from tests.metrics_adapter.builders import pool

STRIDE = 2
CASES = cases()
POOL = pool()


def sampled_demands(size: int) -> list[int]:
    """Those around each change of the wanted replicas near the present size, and some far away."""
    near = [demand for step in range(max(0, size - 3), size + 3) for demand in _around(step * 32 // 5)]
    return sorted({*near, *range(size, MOST_DEMAND + 1, 199), MOST_DEMAND})


def _around(demand: int) -> list[int]:
    return [one for one in (demand - 1, demand, demand + 1) if 0 <= one <= MOST_DEMAND]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", CASES)
def test_the_wanted_replicas_are_reached_in_one_step(name: str, state: str) -> None:
    """Up at the first look, down when the window is over, and nowhere else before; then it stays there."""
    tallies = [
        tally(name, state, [size], sampled_demands(size)) for size in range(1, MOST_REPLICAS + 1, STRIDE)
    ]
    assert sum(one.wrong for one in tallies) == 0
    assert all(one.looked > 20 for one in tallies)


@given(
    name=st.sampled_from(sorted(CASES)),
    state=st.sampled_from(sorted(STATES)),
    size=st.integers(1, MOST_REPLICAS),
    demand=st.integers(0, MOST_DEMAND),
)
def test_so_they_are_from_anywhere(name: str, state: str, size: int, demand: int) -> None:
    assert tally(name, state, [size], [demand]).wrong == 0


def changed(**changes: Any) -> Case:
    return replace(CASES["demand"], autoscaler=autoscaler("demand", maxReplicas=400, **changes))


@pytest.mark.parametrize(
    ("case", "size", "demand"),
    [
        pytest.param(changed(behavior={}), 5, 100, id="without policies at most four more, or double"),
        pytest.param(
            replace(
                CASES["demand"],
                autoscaler=Autoscaler.of(without_tolerance(template("demand", maxReplicas=400))),
            ),
            20,
            134,
            id="with the tolerance of older versions 21 are not asked for",
        ),
        pytest.param(
            replace(CASES["demand"], wanted=lambda fleet, demand: enough(fleet, demand) + 1),
            5,
            20,
            id="and a wish that is off by one is not met",
        ),
    ],
)
def test_the_grid_finds_what_is_wrong(case: Case, size: int, demand: int) -> None:
    """So that finding nothing means something."""
    assert not case.is_right(fleet(Pods(idle=size), of=case.pool), demand)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("demand", [0, 50, 128, 129, MOST_DEMAND])
def test_the_limits_of_the_template_hold(name: str, demand: int) -> None:
    """Between 1 and 20 as it is shipped, and maxReplicas alone has to be changed for more."""
    shipped = autoscaler(name)
    at = fleet(Pods(idle=3), of=POOL)
    wish = Case(autoscaler=shipped, pool=POOL, wanted=enough).wish(at, demand)
    history = shipped.look(wish, replicas=3, history=History(), now_s=0).history
    reached = shipped.look(wish, replicas=3, history=history, now_s=300).replicas
    assert reached == min(max(enough(at, demand), 1), 20)


@pytest.mark.parametrize(("name", "wish"), [("demand", 8), ("desired-workers", 8), ("load-factor", 0)])
def test_with_pods_of_which_none_is_ready_the_load_factor_counts_for_nothing(name: str, wish: int) -> None:
    """The HPA multiplies it by zero, whatever it is; docs/scaling.md says so. The grid leaves this out."""
    at = fleet(Pods(idle=0, starting=5), of=POOL)
    assert CASES[name].wish(at, 50) == wish


@pytest.mark.parametrize("name", NAMES)
def test_from_zero_the_wanted_replicas_are_reached(name: str) -> None:
    """By an HPA that may: there are no pods to multiply by, and the metric alone counts."""
    at = fleet(Pods(idle=0), of=POOL)
    assert [CASES[name].wish(at, demand) for demand in (0, 1, 64, 65)] == [0, 1, 10, 11]
