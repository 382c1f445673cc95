"""How long a scale-down takes by the number of workers, beside the loop that it replaces.

The hook confirms that every victim consumes nothing and runs nothing; the loop does not.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from deploy.sandbox.processes import stop
from tests.bench.figures import Figures, Target, row, save
from tests.bench.fleets import POOL
from tests.bench.growth import exponent, per_worker
from tests.bench.simulated import Simulation, simulation

SIZES, QUICK_SIZES = (5, 20, 50, 200, 500, 1_000), (50, 200)
RABBITMQ_SIZES = (20, 200, 1_000)
ROUNDS, QUICK_ROUNDS = 20, 3
WARM_UP = 2
"""Rounds that are not counted: connections are opened, code is seen for the first time."""
PAUSE_S = 0.2
"""Between two rounds at the most, by chance: the hook's own questions must not always fall on one step."""
HOOK, LOOP, TUNED = "hook", "loop, celery's defaults", "loop, tuned"
PHASES = ("gather", "plan", "mark", "cancel", "confirm", "hold", "answer")
MOST_MS = {(50, 5): 100.0, (1_000, 100): 600.0}
"""By workers and victims."""
MOST_GROWTH = 2.0
"""Of one victim's time, from 20 workers to 1,000."""
LEAST_FASTER = {(LOOP, 50): 10.0, (TUNED, 50): 2.5, (LOOP, 1_000): 4.0, (TUNED, 1_000): 3.0}
"""Than the loop, with 10 % victims."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Rounds of one kind."""

    broker: str
    who: str
    workers: int
    victims: int
    figures: Figures
    phases: Mapping[str, float]
    """Seconds that each took in the middle; the answer is what the others leave: lock, TLS, JSON."""
    load: float
    """Of the machine, on average over the last minute, in running processes."""

    @property
    def median_ms(self) -> float:
        return self.figures.median_s * 1000

    def cells(self) -> list[str]:
        return [str(self.workers), str(self.victims), *self.figures.cells(), f"{self.load:.1f}"]


Sample = tuple[float, Mapping[str, float]]
"""Seconds of a round, and of its parts."""
ScaleDown = Callable[[int], Coroutine[Any, Any, Sample]]
"""By so many victims."""


async def measure_scale_downs(directory: Path, *, repeats: int) -> Sequence[Target]:
    """At each size: one victim and 10 %, and the loop with 10 %."""
    is_quick = bool(os.environ.get("QUICK"))
    measured = [m async for m in _measure(directory / "valkey", "valkey", QUICK_SIZES if is_quick else SIZES)]
    if not is_quick:
        measured += [m async for m in _measure(directory / "rabbitmq", "rabbitmq", RABBITMQ_SIZES)]
    print("\n" + "\n".join(table(measured)))
    print("\n" + "\n".join(phases_table(measured)))
    print("\n" + "\n".join(growth_table(measured)))
    save(directory, [asdict(one) for one in measured])
    return list(targets(measured))


async def _measure(directory: Path, broker: str, sizes: Sequence[int]) -> AsyncIterator[Measured]:
    await asyncio.to_thread(directory.mkdir)
    rounds = QUICK_ROUNDS if os.environ.get("QUICK") else ROUNDS
    async with simulation(directory, kind=broker) as fleet, loop_beside(directory, fleet) as loop:
        for workers in sizes:
            print(f"Measuring scale-downs of {workers} workers on {broker}.", flush=True)
            await fleet.scale_up(workers)
            beside = loop if broker == "valkey" else None
            async for one in rows(fleet, beside, broker=broker, workers=workers, rounds=rounds):
                yield one


async def rows(
    fleet: Simulation, loop: Loop | None, *, broker: str, workers: int, rounds: int
) -> AsyncIterator[Measured]:
    """The hook with one victim and with 10 %, and the loop with 10 %."""
    share = max(1, workers // 10)
    kinds = [(HOOK, victims, partial(_by_hook, fleet)) for victims in sorted({1, share})]
    if loop is not None:
        kinds += [(LOOP, share, partial(loop, is_tuned=False)), (TUNED, share, partial(loop, is_tuned=True))]
    for who, victims, scale_down in kinds:
        samples = await _rounds(fleet, scale_down, victims=victims, count=rounds)
        yield _measured(samples, broker=broker, who=who, workers=workers, victims=victims)


async def _rounds(fleet: Simulation, scale_down: ScaleDown, *, victims: int, count: int) -> list[Sample]:
    samples = []
    for _ in range(WARM_UP + count):
        samples.append(await scale_down(victims))
        marked = await fleet.give_back()
        if len(marked) != victims:
            raise RuntimeError(f"{len(marked)} pods were marked, not {victims}; look into {fleet.hook_log}.")
        await asyncio.sleep(random.uniform(PAUSE_S / 2, PAUSE_S))
    return samples[WARM_UP:]


async def _by_hook(fleet: Simulation, victims: int) -> Sample:
    verdict = await fleet.review(victims=victims)
    phases = dict(verdict.logged.phases)
    return verdict.seconds, phases | {"answer": verdict.seconds - sum(phases.values())}


class Loop(Protocol):
    """Scales down as the loop does."""

    def __call__(self, victims: int, *, is_tuned: bool) -> Coroutine[Any, Any, Sample]: ...


@asynccontextmanager
async def loop_beside(directory: Path, fleet: Simulation) -> AsyncIterator[Loop]:
    """A process of its own, which keeps its connections as the hook does."""
    command = ("-m", "tests.bench.loop", str(fleet.plane.kubeconfig), fleet.broker_url, POOL)
    with (directory / "loop.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    async def scale_down(victims: int, *, is_tuned: bool) -> Sample:
        stdin.write(json.dumps({"victims": victims, "is_tuned": is_tuned}).encode() + b"\n")
        answer = await stdout.readline()
        if not answer:
            raise RuntimeError(f"The loop has ended; look into {directory / 'loop.log'}.")
        seconds = json.loads(answer)
        return seconds.pop("all"), seconds

    try:
        yield scale_down
    finally:
        stdin.close()
        await stop(process)


def _measured(samples: Sequence[Sample], *, broker: str, who: str, workers: int, victims: int) -> Measured:
    names = dict.fromkeys(name for _, phases in samples for name in phases)
    return Measured(
        broker=broker,
        who=who,
        workers=workers,
        victims=victims,
        figures=Figures.of([seconds for seconds, _ in samples]),
        phases={name: Figures.of([p.get(name, 0.0) for _, p in samples]).median_s for name in names},
        load=os.getloadavg()[0],
    )


def table(measured: Sequence[Measured]) -> list[str]:
    heads = ["workers", "victims", "n", "median", "p95", "load"]
    lines = [row("Scale-downs, in milliseconds", heads)]
    ordered = sorted(measured, key=lambda one: (one.broker != "valkey", one.who, one.workers, one.victims))
    return lines + [row(f"{one.who}, {one.broker}", one.cells()) for one in ordered]


def phases_table(measured: Sequence[Measured]) -> list[str]:
    lines = [row("Where the hook's time goes (medians, in ms)", PHASES)]
    for one in measured:
        if one.who == HOOK:
            cells = [f"{one.phases.get(phase, 0.0) * 1000:.1f}" for phase in PHASES]
            lines.append(row(f"{one.victims} of {one.workers}, {one.broker}", cells))
    return lines


def curves(measured: Sequence[Measured]) -> dict[str, list[tuple[float, float]]]:
    """Milliseconds by workers, for each way to do it."""
    found: dict[str, list[tuple[float, float]]] = {}
    for one in measured:
        if one.broker == "valkey":
            share = ", 10 %" if one.victims == max(1, one.workers // 10) else ""
            names = [f"{one.who}{share}"] if share else []
            names += [f"{one.who}, one victim"] if one.who == HOOK and one.victims == 1 else []
            for name in names:
                found.setdefault(name, []).append((one.workers, one.figures.median_s * 1000))
    return found


def growth_table(measured: Sequence[Measured]) -> list[str]:
    lines = [row("Growth with workers", ["exponent", "fixed ms", "ms/worker"])]
    for name, points in curves(measured).items():
        if len(points) == 1:
            continue
        fixed, each = per_worker(points)
        lines.append(row(name, [f"{exponent(points):.2f}", f"{fixed:z.1f}", f"{each:.3f}"]))
    return lines


def targets(measured: Sequence[Measured]) -> Iterator[Target]:
    """By medians; of what was not measured nothing is said."""
    found = {(one.who, one.workers, one.victims): one for one in measured if one.broker == "valkey"}
    for (workers, victims), limit in MOST_MS.items():
        if one := found.get((HOOK, workers, victims)):
            what = f"verdict, {victims} of {workers:,} workers, ms"
            yield Target(what=what, measured=one.median_ms, limit=limit)
    few, many = found.get((HOOK, 20, 1)), found.get((HOOK, 1_000, 1))
    if few and many:
        what = "one victim among 1,000, times as long as among 20"
        yield Target(what=what, measured=many.median_ms / few.median_ms, limit=MOST_GROWTH)
    for (who, workers), limit in LEAST_FASTER.items():
        hook, loop = (found.get((name, workers, workers // 10)) for name in (HOOK, who))
        if hook and loop:
            yield Target(
                what=f"times as fast as the {who}, at {workers:,}",
                measured=loop.median_ms / hook.median_ms,
                limit=limit,
                is_least=True,
                reason=_reason(hook, most_ms=loop.median_ms / limit),
            )


def _reason(hook: Measured, *, most_ms: float) -> str:
    """Empty unless the hook needs more for what the loop leaves out than it may take altogether."""
    answer_ms, confirm_ms = (hook.phases.get(name, 0.0) * 1000 for name in ("answer", "confirm"))
    if answer_ms + confirm_ms <= most_ms:
        return ""
    return (
        f"It would have to be done in {most_ms:.0f} ms. Lock, first look, TLS and JSON take "
        f"{answer_ms:.0f} ms, seeing victims stop {confirm_ms:.0f} ms; the loop does neither."
    )
