"""What both services need, with few and with many workers: what `resources` in deploy/base rests on.

Pods are processes that sleep; one process answers for all their workers, as real ones do.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from deploy.sandbox import manifests
from deploy.sandbox.cluster import Sandbox, sandbox
from deploy.sandbox.errors import ApiError
from deploy.sandbox.resources import DEPLOYMENTS
from deploy.sandbox.services import apply
from tests.bench.crowd import crowd
from tests.bench.figures import row

POOL = "bench"
FLEETS = (3, 200)
SETTLE_S = 10.0
PATIENCE_S = 120.0
MODULES = ("metrics_adapter", "drain_hook")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Of one process, over a while."""

    cpu: float
    """Of one core."""
    memory_mib: float
    peak_mib: float
    """Until a scale-down by a quarter of the workers was refused, for they are busy."""


async def measure_resources(directory: Path, *, repeats: int) -> None:
    """With three workers and with two hundred; `repeats` times two seconds each."""
    measured: dict[int, Mapping[str, Usage]] = {}
    for workers in FLEETS:
        print(f"Measuring both services with {workers} workers.", flush=True)
        place = directory / str(workers)
        place.mkdir()
        async with _fleet(place, workers) as box:
            measured[workers] = await _measure(box, workers, duration_s=2.0 * repeats)
    print("\nOf one core in thousandths, and memory in MiB:\n")
    print("\n".join(table(measured)))


def table(measured: Mapping[int, Mapping[str, Usage]]) -> list[str]:
    lines = [row("", ["cpu m", "memory", "peak"])]
    for workers, usages in measured.items():
        for module, usage in usages.items():
            cells = [f"{usage.cpu * 1000:.0f}", f"{usage.memory_mib:.0f}", f"{usage.peak_mib:.0f}"]
            lines.append(row(f"{module}, {workers} workers", cells))
    return lines


@asynccontextmanager
async def _fleet(directory: Path, workers: int) -> AsyncIterator[Sandbox]:
    """A sandbox in which the adapter and the hook know every worker."""
    async with (
        sandbox(directory, configuration=_configuration) as box,
        crowd(directory, box.broker_url, POOL),
    ):
        pods = manifests.worker_deployment(
            name=POOL,
            replicas=workers,
            command=["sleep", "infinity"],
            environment={},
            grace_seconds=0,
        )
        await apply(box.kube, pods)
        await _until_known(box, workers)
        yield box


def _configuration(broker_url: str) -> manifests.Document:
    pool = manifests.pool(name=POOL, workload=POOL, broker_url=broker_url, slots=2, queues=(POOL,))
    return manifests.configuration(pool) | {"refresh": "5s", "maxAge": "1m"}


async def _until_known(box: Sandbox, workers: int) -> None:
    """Until each has told the adapter of the two tasks that the recorded worker runs."""
    deadline = time.monotonic() + PATIENCE_S
    async with aiohttp.ClientSession() as session:
        while await _active_tasks(session, box) < 2 * workers:
            if time.monotonic() > deadline:
                raise RuntimeError(f"Not all {workers} workers are known; look into {box.directory}.")
            await asyncio.sleep(1)


async def _active_tasks(session: aiohttp.ClientSession, box: Sandbox) -> float:
    """As the adapter tells Prometheus; 0 before it has measured."""
    async with session.get(f"http://127.0.0.1:{box.services.adapter_telemetry}/metrics") as response:
        families = text_string_to_metric_families(await response.text())
        samples = [sample for family in families for sample in family.samples]
    return sum(one.value for one in samples if one.labels.get("metric") == "celery_active_tasks")


async def _measure(box: Sandbox, workers: int, *, duration_s: float) -> Mapping[str, Usage]:
    await asyncio.sleep(SETTLE_S)
    processes = {module: _process(module, box.services.configuration) for module in MODULES}
    before = {module: _cpu_s(pid) for module, pid in processes.items()}
    started = time.monotonic()
    await asyncio.sleep(duration_s)
    passed = time.monotonic() - started
    spent = {module: _cpu_s(pid) - before[module] for module, pid in processes.items()}
    memory = {module: _memory_mib(pid, "VmRSS") for module, pid in processes.items()}
    await _refused_scale_down(box, to=workers - max(1, workers // 4))
    return {
        module: Usage(
            cpu=spent[module] / passed,
            memory_mib=memory[module],
            peak_mib=_memory_mib(pid, "VmHWM"),
        )
        for module, pid in processes.items()
    }


async def _refused_scale_down(box: Sandbox, *, to: int) -> None:
    """Its victims are marked and cancelled, and looked at again."""
    change = {"spec": {"replicas": to}}
    try:
        await box.kube.patch(DEPLOYMENTS, manifests.NAMESPACE, POOL, change, subresource="scale")
    except ApiError as error:
        print(f"Refused, as it should be: {str(error)[:160]}…", flush=True)
    else:
        raise RuntimeError("A scale-down of busy workers was allowed.")


def _process(module: str, configuration: Path) -> int:
    """The one that runs this module with this file."""
    wanted = {module.encode(), str(configuration).encode()}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and wanted <= set(_arguments(entry)):
            return int(entry.name)
    raise RuntimeError(f"No process runs {module} with {configuration}.")


def _arguments(process: Path) -> Sequence[bytes]:
    try:
        return (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return ()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _memory_mib(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (kib,) = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(kib) / 1024
