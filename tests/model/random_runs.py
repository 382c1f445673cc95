"""Scale-downs by chance: worlds in which much goes wrong, run one after the other until there were enough."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from tests.model.fleet import PROTECTED
from tests.model.world import World

REPLICAS = 8
STEPS = 40
"""Of one world, before it comes to its end."""
POLICIES = ({}, {"holdSeconds": 0}, {"whenBusy": "proceed"}, {"maxWait": 90})
NAMES = ("reports.build", "reports.build", "heavy.crunch", PROTECTED)


@dataclass(kw_only=True)
class Outcome:
    """What many worlds came to."""

    worlds: int = 0
    virtual_hours: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    """With the seed of their world."""

    def figures(self) -> dict[str, object]:
        """A row each, the most telling first."""
        return {
            "worlds": self.worlds,
            "virtual hours": round(self.virtual_hours, 1),
            **dict(sorted(self.counts.items())),
            "violations": len(self.violations),
        }


def run_until(scale_downs: int, *, first_seed: int = 0) -> Outcome:
    """Worlds with seeds from `first_seed` on, until so many scale-downs took effect."""
    outcome, seed = Outcome(), first_seed
    while outcome.counts["scale-downs"] < scale_downs:
        world = run_one(seed)
        outcome.worlds += 1
        outcome.virtual_hours += world.loop.time() / 3600
        outcome.counts += world.counts
        outcome.violations += [f"seed {seed}: {violation}" for violation in world.violations]
        seed += 1
    return outcome


def run_one(seed: int, *, steps: int = STEPS) -> World:
    """One world from its beginning to its end; the same seed gives the same."""
    chance = Random(seed)
    world = World(
        seed=seed,
        replicas=chance.randint(2, REPLICAS),
        drain=chance.choice(POLICIES),
        is_airflow=chance.random() < 0.5,
        patches_at_once=chance.choice((1, 32)),
    )
    try:
        for _ in range(steps):
            _happen(world, chance)
            world.pass_time(chance.choice((0.0, 0.005, 0.1, 2.0, 17.0)))
            if world.violations:
                return world
        if chance.random() < 0.5:
            world.come_to_rest()
        world.come_to_an_end(chance.randint(0, REPLICAS))
    finally:
        world.end()
    return world


def run_one_with_slow_patches(seed: int, *, steps: int = 10) -> World:
    """Records take longer to write than a review lasts, and often longer than a Lease does."""
    chance = Random(seed)
    world = World(seed=seed, replicas=chance.randint(15, 30), drain={"holdSeconds": 0}, patches_at_once=1)
    try:
        for _ in range(steps):
            world.slow_down_patches(chance.choice((0.5, 1.9, 1.9)), chance.choice((20.0, 60.0, 60.0)))
            for _ in range(chance.randint(0, 10)):
                world.fleet.send(chance.choice(NAMES), chance.choice((0.5, 5.0, 60.0)))
            _scale(world, chance)
            world.pass_time(chance.choice((5.0, 17.0, 60.0)))
        world.come_to_an_end(chance.randint(0, REPLICAS))
    finally:
        world.end()
    return world


def _happen(world: World, chance: Random) -> None:
    """A request or a task as a rule, and now and then something that goes wrong."""
    if chance.random() < 0.45:
        for _ in range(chance.randint(0, 3)):
            world.fleet.send(chance.choice(NAMES), chance.choice((0.5, 5.0, 60.0)))
    if chance.random() < 0.5:
        _scale(world, chance)
    if chance.random() < 0.35:
        chance.choice(FAULTS)(world, chance)


def _scale(world: World, chance: Random) -> None:
    replicas = chance.randint(0, REPLICAS)
    if chance.random() < 0.5:
        world.hpa_wants = chance.choice((None, replicas, replicas))
    else:
        world.ask(replicas, is_dry_run=chance.random() < 0.1)


def _some_pod(world: World, chance: Random) -> str | None:
    pods = [name for name, pod in world.cluster.pods_now.items() if pod.is_active and pod.phase == "Running"]
    return chance.choice(pods) if pods else None


def _on_a_pod(happen: Callable[[World, Random, str], None]) -> Callable[[World, Random], None]:
    def fault(world: World, chance: Random) -> None:
        if pod := _some_pod(world, chance):
            happen(world, chance, pod)

    return fault


def _kill(world: World, chance: Random) -> None:
    world.kill(chance.randrange(2), instants=chance.randrange(30), back_after_s=chance.uniform(0.5, 20.0))


def _copy(world: World, chance: Random, target: str) -> None:
    pods = world.cluster.pods_now
    sources = [name for name, pod in pods.items() if pod.has_mark_annotation]
    if sources and not pods[target].has_mark_annotation:
        world.copy_mark(chance.choice(sources), target)


FAULTS: tuple[Callable[[World, Random], None], ...] = (
    _kill,
    _kill,
    _kill,
    lambda w, c: w.freeze(c.randrange(2), c.choice((0.1, 3.0, 45.0))),
    lambda w, c: w.break_broker(c.choice((0.05, 2.0, 20.0))),
    lambda w, c: w.break_database(c.choice((0.05, 2.0, 20.0))),
    lambda w, c: w.fail_patches(c.choice((0.2, 0.8)), c.choice((0.1, 5.0))),
    lambda w, c: w.slow_down(c.choice((0.2, 2.0)), 20.0),
    lambda w, c: w.slow_down_patches(c.choice((0.5, 1.9)), c.choice((20.0, 60.0))),
    lambda w, c: w.delay_commands(c.choice((0.1, 1.0)), 20.0),
    lambda w, c: w.cut_watches(c.randrange(2), c.choice((0.5, 10.0))),
    lambda w, c: w.rest_controllers(c.choice((1.0, 20.0))),
    lambda w, c: w.annotate_workload(),
    lambda w, c: w.recreate(c.randint(1, REPLICAS)),
    _on_a_pod(lambda w, c, pod: w.silence(pod, c.choice((0.2, 5.0, 60.0)), frozen=c.random() < 0.5)),
    _on_a_pod(lambda w, c, pod: w.silence(pod, c.choice((0.2, 5.0, 60.0)), frozen=c.random() < 0.5)),
    _on_a_pod(lambda w, c, pod: w.restart_worker(pod)),
    _on_a_pod(lambda w, c, pod: w.flip_readiness(pod, c.choice((0.5, 10.0)))),
    _on_a_pod(lambda w, c, pod: w.evict(pod)),
    _on_a_pod(lambda w, c, pod: w.write_foreign_cost(pod, c.choice((None, "7", "-50", "1000")))),
    _on_a_pod(_copy),
)
