"""How fast the adapter answers 100 requests a second while broker and Kubernetes API are down together.

The adapter is a process of its own, asked by the front proxy over TLS, on connections that it keeps: values
as the HPA controller asks for them, discovery and health as kube-apiserver and the kubelet do.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import yaml
from aiohttp import web

from deploy.sandbox import manifests
from deploy.sandbox.cluster import broker
from deploy.sandbox.control_plane import ControlPlane, control_plane
from deploy.sandbox.processes import running
from deploy.sandbox.services import Service, apply, grant_what_we_ship
from shared.certificates import make_ca
from tests.bench.asking import ADAPTER_CA, VALUES
from tests.bench.crowd import crowd
from tests.bench.figures import Target, row
from tests.bench.fleets import pods_without_processes
from tests.metrics_adapter.aggregator import Answer

POOL, WORKERS = "bench", 3
MAX_AGE_S = 10
MOST_P99_MS = 10.0
CodeOf = Callable[[int], bool]
Measured = tuple[list[Answer], list[Answer], list[float]]
"""Answers before and during the outage, and by how much the questions were late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """All that the adapter needs, until it is taken away."""

    plane: ControlPlane
    everything: AsyncExitStack
    """Broker, workers and control plane."""
    broker: AsyncExitStack


async def measure_outage(directory: Path, *, repeats: int) -> Sequence[Target]:
    """With an API server that hangs, and one that is gone; `repeats` seconds before, and after `maxAge`."""
    lines, targets = [row("", ["n", "median", "p99", "longest"])], []
    for how in ("hangs", "is gone"):
        print(f"Measuring with a Kubernetes API that {how}, and no broker.", flush=True)
        place = directory / how.replace(" ", "-")
        place.mkdir()
        before, during, late = await _measure(place, how, seconds=float(repeats))
        lines += [f"The Kubernetes API {how}:", *table(before, during)]
        lines.append(row("  asked late, for want of a processor", cells(late)))
        p99_ms = p99_s([answer.seconds for answer in during]) * 1000
        what = f"p99 at 100 a second, the Kubernetes API {how}, ms"
        targets.append(Target(what=what, measured=p99_ms, limit=MOST_P99_MS))
        others = sum(answer.code not in (200, 503) for answer in [*before, *during])
        what = f"answers other than 200 and 503, the Kubernetes API {how}"
        targets.append(Target(what=what, measured=others, limit=0))
    print("\nAnswers of the adapter at 100 requests a second, in milliseconds:\n")
    print("\n".join(lines))
    return targets


def table(before: Sequence[Answer], during: Sequence[Answer]) -> list[str]:
    """A line for each kind of answer that there was."""
    kinds: tuple[tuple[str, Sequence[Answer], bool, CodeOf], ...] = (
        ("values, everything up", before, True, lambda code: code == 200),
        ("discovery and health, everything up", before, False, lambda code: code == 200),
        ("values before maxAge, in the outage", during, True, lambda code: code == 200),
        ("values after maxAge: 503", during, True, lambda code: code == 503),
        ("discovery and health, in the outage", during, False, lambda code: code == 200),
        ("anything else", [*before, *during], True, lambda code: code not in (200, 503)),
        ("anything else of discovery and health", [*before, *during], False, lambda code: code != 200),
    )
    rows = []
    for what, answers, is_value, fits in kinds:
        some = [a for a in answers if (a.path == VALUES.path) is is_value and fits(a.code)]
        if some:
            rows.append(row(f"  {what}", cells([answer.seconds for answer in some])))
    return rows


def cells(seconds: Sequence[float]) -> list[str]:
    """How many, the middle one, the one that one in a hundred exceeds, and the longest, in milliseconds."""
    each_of = (median(seconds), p99_s(seconds), max(seconds))
    return [str(len(seconds)), *(f"{each * 1000:.1f}" for each in each_of)]


def p99_s(seconds: Sequence[float]) -> float:
    """Of a single one, itself."""
    return quantiles(seconds, n=100, method="inclusive")[-1] if len(seconds) > 1 else seconds[0]


async def _measure(directory: Path, how: str, *, seconds: float) -> Measured:
    ca, service = make_ca("bench"), Service("metrics_adapter", manifests.ADAPTER_SERVICE)
    (directory / ADAPTER_CA).write_bytes(ca.certificate_pem)
    url = f"https://127.0.0.1:{service.port}"
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(_world(directory))
        command = service.command(
            directory,
            directory / "config.yaml",
            world.plane.kubeconfig_of(manifests.SYSTEM_NAMESPACE, manifests.ADAPTER_SERVICE),
            ca,
        )
        log = directory / "metrics_adapter.log"
        await stack.enter_async_context(running(command, log=log, ready="metrics_adapter serves"))
        await _asked(url, directory, code=200, seconds=1.0)  # until it has measured
        before, late_before = await _asked(url, directory, code=200, seconds=seconds)
        await _take_away(world, how)
        during, late = await _asked(url, directory, code=503, seconds=seconds)
        return before, during, [*late_before, *late]


async def _asked(url: str, directory: Path, *, code: int, seconds: float) -> tuple[list[Answer], list[float]]:
    arguments = (sys.executable, "-m", "tests.bench.asking", url, str(directory), str(code), str(seconds))
    process = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
    printed, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"No value was answered with {code}; look into {directory}.")
    result = json.loads(printed)
    return [Answer(*answer, text="") for answer in result["answers"]], result["late"]


async def _take_away(world: World, how: str) -> None:
    if how == "hangs":
        world.plane.server.trouble = _silence
        await world.broker.aclose()
    else:
        await world.everything.aclose()


async def _silence(_request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")


@asynccontextmanager
async def _world(directory: Path) -> AsyncIterator[World]:
    """A control plane with three pods, and a broker where somebody answers for their workers."""
    async with AsyncExitStack() as everything:
        plane = await everything.enter_async_context(control_plane(directory))
        message_broker = await everything.enter_async_context(AsyncExitStack())
        url = await message_broker.enter_async_context(broker(directory))
        await message_broker.enter_async_context(crowd(directory, url, POOL))
        pool = manifests.pool(name=POOL, workload=POOL, broker_url=url, slots=2, queues=(POOL,))
        configuration = manifests.configuration(pool) | {"refresh": "1s", "maxAge": f"{MAX_AGE_S}s"}
        (directory / "config.yaml").write_text(yaml.safe_dump(configuration))
        await grant_what_we_ship(plane.kube, configuration)
        await apply(plane.kube, pods_without_processes(POOL, WORKERS))
        yield World(plane=plane, everything=everything, broker=message_broker)
