"""How long it takes to plan a scale-down, with everything known: no request, no wait."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from drain_hook.planner import plan_drain
from tests.bench.figures import Figures, Target, row, save
from tests.bench.growth import exponent
from tests.drain_hook.builders import (
    NOW,
    fleet,
    names,
    pod,
    pool,
    replica_set,
    scale_down,
    task,
    worker,
    workload,
)

SIZES = (10, 100, 1_000, 5_000)
LIMIT_MS = 20.0
"""For the middle one of the times at 1,000 pods, a tenth of which are to go."""
PODS_OF_A_HOST = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Plans for so many pods; `busy` is the share of workers with tasks."""

    pods: int
    busy: float
    figures: Figures

    @property
    def name(self) -> str:
        return f"{self.pods} pods, {self.busy:.0%} busy"


async def measure_planning(directory: Path, *, repeats: int) -> Sequence[Target]:
    """In seconds of CPU, since planning is nothing else."""
    measured = [_measure(pods, busy, repeats) for busy in (0.0, 0.5) for pods in SIZES]
    print("\n".join(table(measured)))
    save(directory, [asdict(one) for one in measured])
    return [
        Target(what=f"plan for {one.name}, ms", measured=one.figures.median_s * 1000, limit=LIMIT_MS)
        for one in measured
        if one.pods == 1_000
    ]


def curves(measured: Sequence[Measured]) -> dict[str, list[tuple[float, float]]]:
    """Milliseconds by pods."""
    found: dict[str, list[tuple[float, float]]] = {}
    for one in measured:
        found.setdefault(f"{one.busy:.0%} busy", []).append((one.pods, one.figures.median_s * 1000))
    return found


def table(measured: Sequence[Measured]) -> list[str]:
    lines = [row("Planning, in milliseconds of CPU", ["n", "median", "p95", "exponent"])]
    for one in measured:
        points = [(other.pods, other.figures.median_s) for other in measured if other.busy == one.busy]
        grown = f"{exponent(points):.2f}" if one.pods == points[-1][0] else ""
        lines.append(row(one.name, [*one.figures.cells(), grown]))
    return lines


def _measure(pods: int, busy: float, repeats: int) -> Measured:
    inputs, seconds = _inputs(pods, busy), []
    for _ in range(repeats):
        started = time.process_time()
        plan = plan_drain(**inputs)
        seconds.append(time.process_time() - started)
        if len(plan.victims) != pods // 10:
            raise RuntimeError(f"Of {pods} pods {len(plan.victims)} are to go.")
    return Measured(pods=pods, busy=busy, figures=Figures.of(seconds))


def _inputs(count: int, busy: float) -> dict[str, Any]:
    """Pods of different ages on shared hosts; busy workers have two tasks each."""
    everyone = names(count)
    tasks = [task(), task(running_s=600.0)]
    workers = [worker(name, *(tasks if index < count * busy else ())) for index, name in enumerate(everyone)]
    pods = [
        pod(
            name,
            host=f"host-{index // PODS_OF_A_HOST}",
            created_at=NOW - 1_010 - 7 * index,
            ready_since=NOW - 1_000 - 7 * index,
        )
        for index, name in enumerate(everyone)
    ]
    return {
        "scale_down": scale_down(count, count - count // 10),
        "workload": workload(replicas=count, status_replicas=count),
        "replica_sets": [replica_set(replicas=count, desired_replicas=count)],
        "pods": pods,
        "fleet": fleet(*workers),
        "pool": pool(),
        "now": NOW,
    }
