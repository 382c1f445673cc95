"""What the adapter costs while nobody asks: its refreshes, with fleets and pools of all sizes.

Also what it leaves in the broker: after as many refreshes as an hour has, and after it is killed amid one.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp

from deploy.sandbox.cluster import Sandbox
from shared.celery_control import CeleryControl
from shared.celery_reply_queues import DEAD_AFTER_S
from tests.bench.brokers import BrokerView
from tests.bench.figures import Target, row, save
from tests.bench.fleets import REFRESH_S, fleet, telemetry_of
from tests.bench.growth import exponent
from tests.bench.processes import cpu_s, memory_mib, process_of

FLEETS = ((10, 1), (100, 1), (1000, 1), (1000, 10), (1000, 100))
"""Workers, and pools that share them."""
QUICK_FLEETS = ((200, 20),)
SETTLE_S, QUICK_SETTLE_S = 6.0, 4.0
PERIODS, QUICK_PERIODS = 4, 2
"""Of 5 s, for which each is looked at."""
MOST_CPU = 0.15
"""Of a core."""
HOUR, QUICK_HOUR = 720, 50
"""Refreshes."""
HASTE_S = 0.1
LATE_ANSWERS_S = 2.0
"""Until workers have answered somebody who is no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The adapter with one fleet."""

    workers: int
    pools: int
    cpu: float
    """Of one core."""
    memory_mib: float
    connections: int
    """To the broker."""
    commands: float
    """To the broker, for each refresh of a pool."""
    load: float

    @property
    def name(self) -> str:
        return f"{self.workers:,} workers in {self.pools} pool{'s' if self.pools > 1 else ''}"


async def measure_background(directory: Path, *, repeats: int) -> Sequence[Target]:
    """Each fleet in turn, then an hour's refreshes in a hurry."""
    is_quick = bool(os.environ.get("QUICK"))
    measured = []
    for workers, pools in QUICK_FLEETS if is_quick else FLEETS:
        print(f"Measuring the adapter with {workers} workers in {pools} pools.", flush=True)
        place = _place(directory, f"{workers}-{pools}")
        async with fleet(place, workers=workers, pools=pools) as box:
            measured.append(
                await _measured(
                    box, workers=workers, pools=pools, periods=QUICK_PERIODS if is_quick else PERIODS
                )
            )
    print("\n" + "\n".join(table(measured)) + "\n")
    left = await _left_behind(_place(directory, "hour"), refreshes=QUICK_HOUR if is_quick else HOUR)
    save(directory, {"fleets": [asdict(one) for one in measured], "left": left})
    return [*targets_of(measured), *(Target(what=what, measured=len(n), limit=0) for what, n in left.items())]


def table(measured: Sequence[Measured]) -> list[str]:
    """In thousandths of a core; the exponents are those of CPU over workers, and over pools."""
    lines = [row("The adapter, refresh 5s", ["cpu m", "MiB", "connect.", "commands", "exponent", "load"])]
    for one in measured:
        cells = [f"{one.cpu * 1000:.0f}", f"{one.memory_mib:.0f}", f"{one.connections}"]
        cells += [f"{one.commands:.1f}", _grown(one, measured), f"{one.load:.1f}"]
        lines.append(row(one.name, cells))
    return lines


def by_workers(measured: Sequence[Measured]) -> list[tuple[float, float]]:
    """Thousandths of a core, of fleets in one pool."""
    return [(one.workers, one.cpu * 1000) for one in measured if one.pools == 1]


def _by_pools(measured: Sequence[Measured]) -> list[tuple[float, float]]:
    """Thousandths of a core, of equal fleets in many pools."""
    most = max(one.workers for one in measured)
    return [(one.pools, one.cpu * 1000) for one in measured if one.workers == most]


def _grown(one: Measured, measured: Sequence[Measured]) -> str:
    """At the end of each curve."""
    points, at = (by_workers(measured), one.workers) if one.pools == 1 else (_by_pools(measured), one.pools)
    is_end = len(points) > 1 and points[-1] == (at, one.cpu * 1000)
    return f"{exponent(points):.2f}" if is_end else ""


def _place(directory: Path, name: str) -> Path:
    place = directory / name
    place.mkdir()
    return place


async def _measured(box: Sandbox, *, workers: int, pools: int, periods: int) -> Measured:
    await asyncio.sleep(QUICK_SETTLE_S if os.environ.get("QUICK") else SETTLE_S)
    adapter = process_of("metrics_adapter", box.services.configuration)
    with BrokerView(box.broker_url) as view:
        before, spent_s = view.traffic_of(adapter), cpu_s(adapter)
        refreshes = await _refreshes(box)
        await asyncio.sleep(periods * REFRESH_S)
        after = view.traffic_of(adapter)
        refreshed = await _refreshes(box) - refreshes
        return Measured(
            workers=workers,
            pools=pools,
            # All pools are asked at once, and not quite every 5 s: how often it was is part of the luck.
            cpu=(cpu_s(adapter) - spent_s) / refreshed * pools / REFRESH_S,
            memory_mib=memory_mib(adapter),
            connections=after.connections,
            commands=(after.commands - before.commands) / refreshed,
            load=os.getloadavg()[0],
        )


async def _refreshes(box: Sandbox) -> float:
    """Of all pools until now, as the adapter tells Prometheus."""
    async with aiohttp.ClientSession() as session:
        values = await telemetry_of(session, box.services.adapter_telemetry)
    return sum(value for name, _, value in values if name == "metrics_adapter_refresh_seconds_count")


async def _left_behind(directory: Path, *, refreshes: int) -> dict[str, list[str]]:
    """What is in the broker that was not there at first."""
    async with fleet(directory, workers=10, refresh_s=HASTE_S) as box:
        adapter = process_of("metrics_adapter", box.services.configuration)
        with BrokerView(box.broker_url) as view:
            before, first = await _quiet(view), await _refreshes(box)
            while await _refreshes(box) < first + refreshes:  # noqa: ASYNC110  # of another process
                await asyncio.sleep(1)
            hour = await _quiet(view) - before
            print(f"After {refreshes} refreshes there is {_listed(hour)} more in the broker.", flush=True)
            while not any(name.startswith("binding") for name in view.contents() - before):
                pass  # until it waits for answers
            os.kill(adapter, signal.SIGKILL)
            await asyncio.sleep(LATE_ANSWERS_S)
            killed = await _quiet(view) - before
            print(f"After the adapter was killed there is {_listed(killed)} more in it.", flush=True)
            view.age_listeners(2 * DEAD_AFTER_S)
            successor = CeleryControl(box.broker_url)
            await successor.inspect(["celery@nobody"], timeout_s=1.0)
            await successor.close()
            killed = await _quiet(view) - before
            print(f"When the next one has asked, ten minutes later, {_listed(killed)}.", flush=True)
    return {
        f"left in the broker by {refreshes} refreshes": sorted(hour),
        "left in the broker by a kill, once another one has asked": sorted(killed),
    }


async def _quiet(view: BrokerView) -> frozenset[str]:
    """What stays for two seconds: each question has a queue while it is asked."""
    seen = [view.contents()]
    for _ in range(20):
        await asyncio.sleep(0.1)
        seen.append(view.contents())
    return frozenset.intersection(*seen)


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def targets_of(measured: Sequence[Measured]) -> Iterator[Target]:
    for one in measured:
        what = f"the adapter with {one.name}, % of a core"
        yield Target(what=what, measured=one.cpu * 100, limit=MOST_CPU * 100)
