"""The whole grid of hpa_grid, on all cores, and what the tolerance before Kubernetes 1.35 costs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

from tests.bench.figures import Target, row
from tests.bench.hpa_fleets import STATES
from tests.bench.hpa_grid import MOST_DEMAND, MOST_REPLICAS, Tally, cases, costs, tally
from tests.deploy.autoscalers import NAMES

SIZES = range(1, MOST_REPLICAS + 1)
SHOWN_SIZES = (5, 9, 10, 20, 40, 60)
QUICK_STEP = 29


async def measure_hpa(directory: Path, *, repeats: int) -> Sequence[Target]:
    """Once, for there is nothing to measure; with QUICK=1 at one demand of 29."""
    step = QUICK_STEP if os.environ.get("QUICK") else 1
    demands = range(0, MOST_DEMAND + 1, step)
    print(f"{len(demands)} demands, {len(SIZES)} numbers of replicas, {len(STATES)} states of the pods:\n")
    print(row("HPA of deploy/hpa", ["cases", "wrong"]), flush=True)
    total = Tally()
    with ProcessPoolExecutor() as executor:
        for name in cases():
            tallies = executor.map(tally, repeat(name), STATES, repeat(SIZES), repeat(demands))
            found = sum(tallies, start=Tally())
            print(row(name, [f"{found.looked:,}", f"{found.wrong:,}"]), flush=True)
            total += found
    print(f"\n{total.looked:,} cases, {total.wrong:,} wrong.")
    print("\nBefore Kubernetes 1.35, workers missing and to spare at most:\n")
    print("\n".join(cost_table()))
    return [Target(what="cases where an HPA is wrong", measured=total.wrong, limit=0)]


def cost_table() -> Iterator[str]:
    yield row("replicas", [str(size) for size in SHOWN_SIZES])
    for name in NAMES:
        yield row(name, cells(name))


def cells(name: str, sizes: Sequence[int] = SHOWN_SIZES) -> list[str]:
    """How far off a template may be, as -2..+1: two missing, or one to spare."""
    return [f"{-cost.most_missing or 0}..+{cost.most_spare}" for cost in costs(name, sizes)]
