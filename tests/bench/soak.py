"""Both services for a long time, beside 200 workers that come and go: nothing of theirs may grow.

`make bench ARGS="soak --minutes 30"`; without the option a short version that a large leak does not pass.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import aiohttp

from deploy.sandbox import manifests
from deploy.sandbox.cluster import Sandbox
from deploy.sandbox.resources import PODS
from deploy.sandbox.services import VALUES
from tests.bench.brokers import BrokerView
from tests.bench.figures import Target, row, save
from tests.bench.fleets import POOL, REFRESH_S, fleet, refused_scale_down, telemetry_of
from tests.bench.processes import memory_mib, open_files, process_of, threads

WORKERS = 200
REPLACED = 5
"""Pods that are deleted each period; others, with other names, come for them."""
ASKED_FOR_LESS = 4
"""Every so many periods a scale-down is asked for, and refused: all workers are busy."""
QUESTIONS = 10
"""To the adapter, each period."""
MODULES = ("metrics_adapter", "drain_hook")
MOST_GROWTH_MIB = 8.0
MOST_GROWTH = 5.0
"""Of descriptors, threads, tasks and keys: as many come and go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A service at one moment."""

    module: str
    at: float
    """Seconds since the epoch."""
    memory_mib: float
    files: int
    threads: int
    tasks: float
    keys: int
    """In the broker, whoever made them."""


GROWING: dict[str, tuple[Callable[[Sample], float], float]] = {
    "memory, MiB": (lambda sample: sample.memory_mib, MOST_GROWTH_MIB),
    "open files": (lambda sample: sample.files, MOST_GROWTH),
    "threads": (lambda sample: sample.threads, MOST_GROWTH),
    "asyncio tasks": (lambda sample: sample.tasks, MOST_GROWTH),
    "keys in the broker": (lambda sample: sample.keys, MOST_GROWTH),
}
"""What is watched, and how much more of it there may be at the end than after the first third."""


async def measure_soak(directory: Path, *, repeats: int, minutes: float = 1.0) -> Sequence[Target]:
    """So long, with churn all the time."""
    print(f"Watching both services for {minutes:g} minutes beside {WORKERS} workers.", flush=True)
    async with fleet(directory, workers=WORKERS) as box:
        samples = await _soaked(box, until=time.monotonic() + 60 * minutes)
    print("\n" + "\n".join(table(samples)))
    save(directory, [asdict(sample) for sample in samples])
    return list(targets_of(samples))


def table(samples: Sequence[Sample]) -> list[str]:
    """A line for each service and thing."""
    minutes = (max(sample.at for sample in samples) - min(sample.at for sample in samples)) / 60
    lines = [row(f"Medians of thirds of {minutes:.0f} minutes", ["first", "middle", "last"])]
    for module in MODULES:
        for what, (value, _) in GROWING.items():
            cells = [f"{one:.0f}" for one in _thirds(samples, module, value)]
            lines.append(row(f"{module}: {what}", cells))
    return lines


def targets_of(samples: Sequence[Sample]) -> Iterator[Target]:
    for module in MODULES:
        for what, (value, most) in GROWING.items():
            _, middle, last = _thirds(samples, module, value)
            yield Target(what=f"{module}: more {what}", measured=last - middle, limit=most)


def _thirds(samples: Sequence[Sample], module: str, value: Callable[[Sample], float]) -> list[float]:
    """The middle value in each; the first is still that of a service that has just begun."""
    values = [value(sample) for sample in samples if sample.module == module]
    third = max(1, len(values) // 3)
    return [median(part) for part in (values[:third], values[third:-third] or values, values[-third:])]


async def _soaked(box: Sandbox, *, until: float) -> list[Sample]:
    samples: list[Sample] = []
    period = 0
    with BrokerView(box.broker_url) as view:
        while time.monotonic() < until:
            period += 1
            await _disturb(box, asks_for_less=period % ASKED_FOR_LESS == 0)
            await asyncio.sleep(REFRESH_S)
            samples += await _samples(box, view)
    return samples


async def _disturb(box: Sandbox, *, asks_for_less: bool) -> None:
    pods = (await box.kube.list(PODS, manifests.NAMESPACE, labelSelector=f"app={POOL}"))["items"]
    for pod in random.sample(pods, REPLACED):
        await box.kube.delete(PODS, manifests.NAMESPACE, pod["metadata"]["name"])
    for _ in range(QUESTIONS):
        await box.kube.request("GET", VALUES.format(namespace=manifests.NAMESPACE, metric="celery_demand"))
    if asks_for_less:
        await refused_scale_down(box, to=WORKERS - 10)


async def _samples(box: Sandbox, view: BrokerView) -> list[Sample]:
    keys = len(view.contents())
    ports = (box.services.adapter_telemetry, box.services.hook_telemetry)
    return [
        _sample(
            module,
            process_of(module, box.services.configuration),
            tasks=await _tasks(port),
            keys=keys,
        )
        for module, port in zip(MODULES, ports, strict=True)
    ]


def _sample(module: str, pid: int, *, tasks: float, keys: int) -> Sample:
    return Sample(
        module=module,
        at=time.time(),
        memory_mib=memory_mib(pid),
        files=open_files(pid),
        threads=threads(pid),
        tasks=tasks,
        keys=keys,
    )


async def _tasks(port: int) -> float:
    async with aiohttp.ClientSession() as session:
        values = await telemetry_of(session, port)
    return next(value for name, _, value in values if name == "celery_hpa_asyncio_tasks")
