"""What both services need, with few and with many workers: what `resources` in deploy/base rests on.

Pods start no process; one process answers for all their workers, as real ones do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.sandbox.cluster import Sandbox
from tests.bench.figures import Target, row
from tests.bench.fleets import fleet, refused_scale_down
from tests.bench.processes import cpu_s, memory_mib, process_of

FLEETS = (3, 200)
SETTLE_S = 5.0
MODULES = ("metrics_adapter", "drain_hook")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Of one process, over a while."""

    cpu: float
    """Of one core."""
    memory_mib: float
    peak_mib: float
    """Until a scale-down by a quarter of the workers was refused, for they are busy."""


async def measure_resources(directory: Path, *, repeats: int) -> Sequence[Target]:
    """With three workers and with two hundred; `repeats` times two seconds each."""
    measured: dict[int, Mapping[str, Usage]] = {}
    for workers in FLEETS:
        print(f"Measuring both services with {workers} workers.", flush=True)
        place = directory / str(workers)
        place.mkdir()
        async with fleet(place, workers=workers) as box:
            measured[workers] = await _measure(box, workers, duration_s=2.0 * repeats)
    print("\nOf one core in thousandths, and memory in MiB:\n")
    print("\n".join(table(measured)))
    return ()


def table(measured: Mapping[int, Mapping[str, Usage]]) -> list[str]:
    lines = [row("", ["cpu m", "memory", "peak"])]
    for workers, usages in measured.items():
        for module, usage in usages.items():
            cells = [f"{usage.cpu * 1000:.0f}", f"{usage.memory_mib:.0f}", f"{usage.peak_mib:.0f}"]
            lines.append(row(f"{module}, {workers} workers", cells))
    return lines


async def _measure(box: Sandbox, workers: int, *, duration_s: float) -> Mapping[str, Usage]:
    await asyncio.sleep(SETTLE_S)
    processes = {module: process_of(module, box.services.configuration) for module in MODULES}
    before = {module: cpu_s(pid) for module, pid in processes.items()}
    started = time.monotonic()
    await asyncio.sleep(duration_s)
    passed = time.monotonic() - started
    spent = {module: cpu_s(pid) - before[module] for module, pid in processes.items()}
    memory = {module: memory_mib(pid, "VmRSS") for module, pid in processes.items()}
    # Its victims are marked and cancelled, and looked at again.
    refusal = await refused_scale_down(box, to=workers - max(1, workers // 4))
    print(f"Refused, as it should be: {refusal[:160]}…", flush=True)
    return {
        module: Usage(
            cpu=spent[module] / passed,
            memory_mib=memory[module],
            peak_mib=memory_mib(pid, "VmHWM"),
        )
        for module, pid in processes.items()
    }
