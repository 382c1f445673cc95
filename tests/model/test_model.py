"""The hook in a world whose every event hypothesis chooses; what it must never do is checked after each."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.model.fleet import PROTECTED
from tests.model.random_runs import POLICIES
from tests.model.world import World

REPLICAS = st.integers(0, 6)
SECONDS = st.sampled_from([0.0, 0.003, 0.01, 0.05, 0.3, 2.0, 16.0])
MOMENTS = st.sampled_from([0.1, 2.0, 20.0])
INDEX = st.integers(0, 1)
PICK = st.integers(0, 5)


class DrainHookMachine(RuleBasedStateMachine):
    """Time passes only where a rule says so; between two rules, rounds stand still in the midst of a step."""

    world: World

    @initialize(
        seed=st.integers(0, 99),
        replicas=st.integers(2, 6),
        drain=st.sampled_from(POLICIES),
        is_airflow=st.booleans(),
        patches_at_once=st.sampled_from([1, 32]),
    )
    def begin(self, seed: int, **fields: Any) -> None:
        self.world = World(seed=seed, **fields)

    # Work, and whoever scales.

    @rule(
        name=st.sampled_from(["reports.build", "heavy.crunch", PROTECTED]), seconds=st.sampled_from([1, 60])
    )
    def send_a_task(self, name: str, seconds: float) -> None:
        self.world.fleet.send(name, seconds)

    @rule(seconds=SECONDS)
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(replicas=REPLICAS)
    def scale_by_hand(self, replicas: int) -> None:
        self.world.ask(replicas)

    @rule(replicas=st.none() | REPLICAS)
    def want_by_autoscaler(self, replicas: int | None) -> None:
        self.world.hpa_wants = replicas

    @rule(replicas=REPLICAS)
    def try_dry(self, replicas: int) -> None:
        self.world.ask(replicas, is_dry_run=True)

    # What goes wrong.

    @rule(index=INDEX, instants=st.integers(0, 30), back_after_s=MOMENTS)
    def kill(self, index: int, instants: int, back_after_s: float) -> None:
        self.world.kill(index, instants=instants, back_after_s=back_after_s)

    @rule(index=INDEX, seconds=st.sampled_from([0.1, 5.0, 45.0]))
    def freeze(self, index: int, seconds: float) -> None:
        self.world.freeze(index, seconds)

    @rule(seconds=MOMENTS)
    def break_broker(self, seconds: float) -> None:
        self.world.break_broker(seconds)

    @rule(seconds=MOMENTS)
    def break_database(self, seconds: float) -> None:
        self.world.break_database(seconds)

    @rule(share=st.sampled_from([0.3, 0.9]), seconds=MOMENTS)
    def fail_patches(self, share: float, seconds: float) -> None:
        self.world.fail_patches(share, seconds)

    @rule(latency_s=st.sampled_from([0.2, 3.0]))
    def slow_down(self, latency_s: float) -> None:
        self.world.slow_down(latency_s, 20.0)

    @rule(latency_s=st.sampled_from([0.5, 1.9]))
    def slow_down_patches(self, latency_s: float) -> None:
        self.world.slow_down_patches(latency_s, 60.0)

    @rule(late_s=st.sampled_from([0.1, 1.0]))
    def delay_commands(self, late_s: float) -> None:
        self.world.delay_commands(late_s, 20.0)

    @rule(index=INDEX, seconds=MOMENTS)
    def cut_watches(self, index: int, seconds: float) -> None:
        self.world.cut_watches(index, seconds)

    @rule(seconds=MOMENTS)
    def rest_controllers(self, seconds: float) -> None:
        self.world.rest_controllers(seconds)

    @rule()
    def annotate_workload(self) -> None:
        self.world.annotate_workload()

    @rule(replicas=st.integers(1, 6))
    def recreate(self, replicas: int) -> None:
        self.world.recreate(replicas)

    # What happens to one pod.

    @precondition(lambda self: self.pods)
    @rule(pick=PICK, seconds=MOMENTS, frozen=st.booleans())
    def silence(self, pick: int, seconds: float, frozen: bool) -> None:
        self.world.silence(self.pod(pick), seconds, frozen=frozen)

    @precondition(lambda self: self.pods)
    @rule(pick=PICK)
    def restart_worker(self, pick: int) -> None:
        self.world.restart_worker(self.pod(pick))

    @precondition(lambda self: self.pods)
    @rule(pick=PICK, seconds=MOMENTS)
    def flip_readiness(self, pick: int, seconds: float) -> None:
        self.world.flip_readiness(self.pod(pick), seconds)

    @precondition(lambda self: self.pods)
    @rule(pick=PICK)
    def evict(self, pick: int) -> None:
        self.world.evict(self.pod(pick))

    @precondition(lambda self: self.pods)
    @rule(pick=PICK, cost=st.sampled_from([None, "7", "-50"]))
    def write_foreign_cost(self, pick: int, cost: str | None) -> None:
        self.world.write_foreign_cost(self.pod(pick), cost)

    @precondition(lambda self: self.marked and len(self.marked) < len(self.pods))
    @rule(pick=PICK)
    def copy_mark(self, pick: int) -> None:
        unmarked = [pod for pod in self.pods if pod not in self.marked]
        self.world.copy_mark(self.marked[0], unmarked[pick % len(unmarked)])

    # What must hold.

    @rule()
    def come_to_rest(self) -> None:
        """60 s without trouble: nothing is left of any round."""
        self.world.come_to_rest()

    @invariant()
    def nothing_forbidden_has_happened(self) -> None:
        assert self.world.violations == []

    def teardown(self) -> None:
        if hasattr(self, "world"):
            try:
                if not self.world.violations:
                    self.world.come_to_an_end(2)
                assert self.world.violations == []
            finally:
                self.world.end()

    # What rules pick from.

    @property
    def pods(self) -> list[str]:
        pods = self.world.cluster.pods_now
        return [name for name, pod in pods.items() if pod.is_active and pod.phase == "Running"]

    @property
    def marked(self) -> list[str]:
        return [name for name in self.pods if self.world.cluster.pods_now[name].has_mark_annotation]

    def pod(self, pick: int) -> str:
        return self.pods[pick % len(self.pods)]


TestDrainHook = pytest.mark.timeout(600)(DrainHookMachine.TestCase)
TestDrainHook.settings = settings(stateful_step_count=40)
