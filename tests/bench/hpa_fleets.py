"""Pools of so many replicas in every state that an HPA may find them in, and their load at a given demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from metrics_adapter.catalogue import METRICS
from metrics_adapter.external_metrics import quantity
from metrics_adapter.load import Load, Reading
from shared.pods import Pod
from shared.pools import Pool
from tests.deploy.autoscalers import Scale
from tests.metrics_adapter.builders import pod, reading, worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Pods:
    """How many pods of each kind there are; whoever drains or terminates is busy, and still ready."""

    idle: int
    draining: int = 0
    terminating: int = 0
    starting: int = 0
    """Not ready yet."""
    missing: int = 0
    """Wanted, and not made yet."""
    counts_terminating: bool = False
    """In its status.replicas, as a StatefulSet does."""

    @property
    def staying(self) -> int:
        return self.idle + self.starting

    @property
    def scale(self) -> Scale:
        active = self.idle + self.draining + self.starting
        return Scale(
            replicas=active + self.missing,
            status_replicas=active + (self.terminating if self.counts_terminating else 0),
            pods=active + self.terminating,
            ready_pods=self.idle + self.draining + self.terminating,
        )


def _some(replicas: int) -> int:
    """About a quarter, and never all of them."""
    return min(replicas // 4 + 1, replicas - 1)


STATES: Mapping[str, Callable[[int], Pods]] = {
    "all ready": lambda n: Pods(idle=n),
    "some draining": lambda n: Pods(idle=n - _some(n), draining=_some(n)),
    "some more terminating": lambda n: Pods(idle=n, terminating=_some(n)),
    "and counted, as in a StatefulSet": lambda n: Pods(idle=n, terminating=_some(n), counts_terminating=True),
    "half of them starting": lambda n: Pods(idle=n - n // 2, starting=n // 2),
    "some not made yet": lambda n: Pods(idle=n - _some(n), missing=_some(n)),
    "all of that": lambda n: Pods(
        idle=n - 2 * (n // 4) - n // 5,
        draining=n // 4,
        terminating=_some(n),
        starting=n // 4,
        missing=n // 5,
    ),
}
"""What a pool of n replicas may look like."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The pods of a pool, and what the adapter has read of them."""

    pods: Pods
    reading: Reading

    @property
    def scale(self) -> Scale:
        return self.pods.scale

    def values(self, metric: str, demand: int) -> list[str]:
        """What the adapter serves when so many tasks wait; busy workers are leaving, and no demand."""
        load = Load(reading=self.reading, queued=demand)
        return [quantity(sample.milli) for sample in METRICS[metric].samples([load])]


def fleet(pods: Pods, *, of: Pool) -> Fleet:
    slots = of.slots_per_worker
    busy = [pod(f"d-{index}", is_draining=True) for index in range(pods.draining)]
    busy += [pod(f"t-{index}", is_terminating=True) for index in range(pods.terminating)]
    idle = [pod(f"i-{index}") for index in range(pods.idle)]
    workers = [worker(one.name, slots, slots=slots) for one in busy]
    workers += [worker(one.name, slots=slots) for one in idle]
    starting = [_starting(index) for index in range(pods.starting)]
    return Fleet(pods=pods, reading=reading([*busy, *idle, *starting], workers, of=of))


def _starting(index: int) -> Pod:
    """Pending and running ones alternate."""
    phase = "Running" if index % 2 else "Pending"
    return pod(f"s-{index}", phase=phase, is_ready=False, ready_since=None)
