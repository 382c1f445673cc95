"""A storm: everybody scales, things break, then nobody asks any more and all must be well within a minute."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from drain_hook.round_locks import LEASE_DURATION_S
from shared.faults import FaultPoint
from tests.chaos.arena import Arena
from tests.chaos.disturbances import (
    NAMES,
    Disturbance,
    freeze_broker,
    freeze_hook,
    freeze_worker,
    kill_broker,
    kill_hook,
    kill_worker,
    pause_hook_beyond_its_lease,
    write_foreign_costs,
)
from tests.chaos.evidence import Findings, Violation, findings
from tests.chaos.pools import POOLS, VISIBILITY_S
from tests.chaos.replicas import EXPECTED_CODES

HEALED_WITHIN_S = 60.0
LOOK_EVERY_S = 0.5
DEAF = "workers deaf since a broker failed, restarted"
AFTERMATH_S = 2.0
"""How long the storm goes on after its last disturbance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """What happens at the same time."""

    faults: tuple[str, str] | None = None
    """Where each replica is killed, once."""
    disturbances: tuple[Disturbance, ...] = ()
    is_taken_over: bool = False
    """Whether replicas that were killed stay away until all is well: the other one must mend it."""
    at_least_s: float = LEASE_DURATION_S + 12.0
    """Somebody must succeed the replicas that died in a round, and then go on."""
    at_most_s: float = LEASE_DURATION_S + 30.0
    """It ends earlier when both replicas were killed where they should be."""


P = FaultPoint
STORMS = (
    Storm(faults=(P.AFTER_MARKS, P.AFTER_GATHER), disturbances=(freeze_worker, write_foreign_costs)),
    Storm(faults=(P.BETWEEN_CANCELS, P.AFTER_PLAN), disturbances=(kill_worker, kill_broker)),
    Storm(faults=(P.BETWEEN_PATCHES, f"{P.AFTER_CANCELS}:2"), disturbances=(write_foreign_costs,)),
    Storm(faults=(P.AFTER_CONFIRM, P.BEFORE_ANSWER), disturbances=(freeze_worker, freeze_worker)),
    Storm(faults=(P.AFTER_ANSWER, P.BETWEEN_GIVE_BACKS), disturbances=(freeze_broker, kill_worker)),
    Storm(faults=(P.AFTER_GIVE_BACK, f"{P.BETWEEN_PATCHES}:3"), disturbances=(freeze_hook, freeze_worker)),
    Storm(disturbances=(kill_hook, kill_hook, kill_worker, write_foreign_costs), is_taken_over=True),
    Storm(disturbances=(pause_hook_beyond_its_lease, kill_broker)),
)
QUICK_STORMS = (
    Storm(faults=(P.BETWEEN_CANCELS, P.AFTER_MARKS), disturbances=(freeze_worker, write_foreign_costs)),
    Storm(disturbances=(kill_hook, kill_broker, kill_worker)),
)


@dataclass(slots=True, kw_only=True)
class Outcome:
    """Of all storms on one broker."""

    disturbances: Counter[str] = field(default_factory=Counter)
    heal_s: list[float] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    findings: Findings | None = None
    verdicts: Counter[str] = field(default_factory=Counter)
    """Of the hook, by reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is tried out on each broker."""

    storms: tuple[Storm, ...]
    scale_downs: int
    """That are to be allowed in all; what is missing after the storms is done in peace."""
    calm_s: float
    """For that, at most."""
    last_tasks_s: float
    """How long to wait for the last tasks, at most."""


WHOLE = Effort(storms=STORMS, scale_downs=50, calm_s=120.0, last_tasks_s=VISIBILITY_S + 60.0)
QUICK = Effort(storms=QUICK_STORMS, scale_downs=15, calm_s=20.0, last_tasks_s=30.0)


async def weather(arena: Arena, effort: Effort, *, name: str = "") -> Outcome:
    """All storms, one after another, then calm; what was found in the end."""
    outcome = Outcome()
    async with arena.tasks_coming():
        for number, storm in enumerate(effort.storms, 1):
            await _rage(arena, storm, outcome)
            text = f"storm {number} of {len(effort.storms)}, well after {outcome.heal_s[-1]:.1f} s"
            _say(name, text, outcome)
        await _calm(arena, scale_downs=effort.scale_downs, at_most_s=effort.calm_s)
        _say(name, f"{arena.tally.answers['allowed']} scale-downs allowed", outcome)
        await _heal(arena, outcome)
    await _conclude(arena, outcome, within_s=effort.last_tasks_s)
    return outcome


async def _rage(arena: Arena, storm: Storm, outcome: Outcome) -> None:
    if storm.faults:
        for replica, fault in zip(arena.replicas, storm.faults, strict=True):
            await replica.roll(fault)
    exits = [len(replica.exits) for replica in arena.replicas]
    for replica in arena.replicas:
        replica.is_held_down = storm.is_taken_over
    async with arena.scaling():
        began = time.monotonic()
        await asyncio.gather(*(_disturb(arena, one, outcome, storm.at_least_s) for one in storm.disturbances))
        while (passed := time.monotonic() - began) < storm.at_most_s:
            if passed >= storm.at_least_s and _have_struck(arena, storm, exits):
                break
            await asyncio.sleep(LOOK_EVERY_S)
        await asyncio.sleep(AFTERMATH_S)
    for replica, before in zip(arena.replicas, exits, strict=True):
        outcome.disturbances.update(
            f"hook killed {exit.fault.partition(':')[0]}"
            for exit in replica.exits[before:]
            if exit.is_by_fault
        )
    await _heal(arena, outcome)
    for replica in arena.replicas:
        replica.is_held_down = False
        await replica.wait_ready()


def _have_struck(arena: Arena, storm: Storm, exits: Sequence[int]) -> bool:
    return storm.faults is None or all(
        any(exit.is_by_fault for exit in replica.exits[before:])
        for replica, before in zip(arena.replicas, exits, strict=True)
    )


async def _disturb(arena: Arena, disturbance: Disturbance, outcome: Outcome, within_s: float) -> None:
    await asyncio.sleep(arena.chance.uniform(0.5, within_s / 2))
    outcome.disturbances[NAMES[disturbance]] += 1
    await disturbance(arena)


async def _calm(arena: Arena, *, scale_downs: int, at_most_s: float) -> None:
    """Nothing breaks; scale-downs go on until there were enough of them."""
    until = time.monotonic() + at_most_s
    if arena.tally.answers["allowed"] >= scale_downs:
        return
    async with arena.scaling():
        while time.monotonic() < until:
            await asyncio.sleep(LOOK_EVERY_S)
            if arena.tally.answers["allowed"] >= scale_downs:
                return


async def _heal(arena: Arena, outcome: Outcome) -> None:
    """Nobody asks any more: how long until nothing is left of it, twice in a row."""
    began, looks, well_s = time.monotonic(), 0, 0.0
    complaints: tuple[str, ...] = ("never looked",)
    while looks < 2:
        complaints = await arena.complaints()
        passed = time.monotonic() - began
        looks, well_s = (looks + 1, well_s or passed) if not complaints else (0, 0.0)
        if passed > HEALED_WITHIN_S:
            outcome.violations += [Violation(kind="not mended in 60 s", evidence=text) for text in complaints]
            print("\n".join(complaints), flush=True)
            break
        outcome.disturbances[DEAF] += arena.restart_the_deaf(complaints, silent_for_s=passed)
        await asyncio.sleep(LOOK_EVERY_S)
    outcome.heal_s.append(well_s or time.monotonic() - began)


async def _conclude(arena: Arena, outcome: Outcome, *, within_s: float) -> None:
    """Once the last task has ended, or should have, with workers there to run it."""
    for pool in POOLS:
        await arena.callers.raise_to_the_most(pool)
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        runs = await arena.runs()
        finished = {run.id for run in runs if run.finished_at is not None}
        if arena.record.submitted.keys() <= finished:
            break
        await asyncio.sleep(1.0)
    outcome.findings = findings(await arena.runs(), arena.record)
    for replica in arena.replicas:
        outcome.verdicts += replica.verdicts()
    outcome.violations += outcome.findings.violations
    outcome.violations += [
        Violation(kind="hook ended by itself", evidence=f"with code {exit.code}")
        for replica in arena.replicas
        for exit in replica.exits
        if exit.code not in EXPECTED_CODES
    ]
    outcome.violations += [
        Violation(kind="error in the hook's log", evidence=error)
        for replica in arena.replicas
        for error in replica.errors()
    ]
    outcome.violations += [
        Violation(kind="answer nobody should get", evidence=text) for text in arena.tally.unexpected
    ]


def _say(name: str, text: str, outcome: Outcome) -> None:
    print(f"{name}: {text}; {len(outcome.violations)} violations", flush=True)
