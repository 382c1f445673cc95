"""The hook's shell on a cluster and a fleet in memory."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry

from drain_hook.admission import Review, ScaleDown, Verdict
from drain_hook.announcements import Announcer
from drain_hook.cordon import Pace, Workers
from drain_hook.drainer import MOST_ROUNDS, Drainer
from drain_hook.events import Events
from drain_hook.metadata_watch import Database, MetadataWatch
from drain_hook.own_order import Costs
from drain_hook.reconciler import Reconciler
from drain_hook.round_locks import RoundLocks
from drain_hook.rounds import Surroundings
from drain_hook.telemetry import Telemetry
from drain_hook.warm_fleet import WarmFleet
from drain_hook.worker_software import WorkerSoftware
from shared.leases import Lease
from shared.marks import Mark
from shared.pods import Pod
from shared.pools import Configuration, Pool
from shared.workers import Task
from tests.drain_hook import builders
from tests.fakes.celery import FakeCelery, fake_worker
from tests.fakes.kubernetes import Event, FakeCluster
from tests.fakes.metadata import FakeMetadata

NAMESPACE, QUEUES = "apps", frozenset({"default"})
AT_ONCE = Pace(
    answer_s=0.01,
    unheard_s=0.0,
    first_look_s=0.0,
    confirm_pause_s=0.0,
    resend_after_s=0.02,
    confirm_s=0.05,
    confirm_green_s=0.05,
    settle_green_s=0.0,
    give_back_s=0.05,
    hold_pause_s=0.0,
)
T = TypeVar("T")
_uids = itertools.count(1)


@dataclass(kw_only=True)
class Clock:
    """Wall clock and monotonic clock, ahead of the real ones by as much as a test says."""

    ahead_s: float = 0.0

    def wall(self) -> float:
        return time.time() + self.ahead_s

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s


@dataclass(kw_only=True)
class Stage:
    """One workload, `worker`, with its pods and workers, and one replica of the hook."""

    cluster: FakeCluster
    celery: FakeCelery
    pool: Pool
    clock: Clock = field(default_factory=Clock)
    pace: Pace = AT_ONCE
    most_rounds: int = MOST_ROUNDS
    ignores_failures: bool | Callable[[str], bool] = False
    """The webhook's failurePolicy is Ignore, or that of the webhook of this name."""
    costs: Costs = Costs.COUNT
    """What pod-deletion-cost does in this cluster."""
    control: Workers | None = None
    """Real workers in place of `celery`."""
    database: FakeMetadata = field(default_factory=FakeMetadata)
    """Airflow's, where `pool` has one."""
    slow_database: Database | None = None
    """Another door to it."""
    on_misprediction: Callable[[], None] = lambda: None
    holder: str = "hook-1"
    """Of Leases."""

    def __post_init__(self) -> None:
        self.configuration = Configuration(pools=(self.pool,))
        self.registry = CollectorRegistry()
        telemetry = Telemetry(self.registry)
        self.warm = WarmFleet(
            configuration=lambda: self.configuration,
            cache=self.cluster.cache,
            workers=lambda _: self.workers,
            software=WorkerSoftware(telemetry.old_workers),
            clock=self.clock.monotonic,
        )
        self.metadata = MetadataWatch(lambda _: self.door_to_database, telemetry=telemetry)
        self.around = Surroundings(
            cluster=self.cluster,
            cache=self.cluster.cache,
            warm=self.warm,
            workers=lambda _: self.workers,
            metadata=self.metadata,
            telemetry=telemetry,
            pace=self.pace,
            clock=self.clock.wall,
            costs=lambda: self.costs,
        )
        self.locks = RoundLocks(
            self.cluster, holder=self.holder, retry_pause_s=0.005, clock=self.clock.monotonic
        )
        events = Events(self.cluster, clock=self.clock.monotonic)
        self.announcer = Announcer(events, self.around.telemetry)
        self.drainer = Drainer(
            self.around,
            configuration=lambda: self.configuration,
            locks=self.locks,
            announcer=self.announcer,
            ignores_failures=self._ignores,
            most_rounds=self.most_rounds,
        )
        self.leadership = self.lease(self.holder)
        self.reconciler = Reconciler(
            self.around,
            changes=self.cluster.cache,
            configuration=lambda: self.configuration,
            locks=self.locks,
            leadership=self.leadership,
            announcer=self.announcer,
            on_misprediction=self.on_misprediction,
        )

    def _ignores(self, webhook: str) -> bool:
        policy = self.ignores_failures
        return policy if isinstance(policy, bool) else policy(webhook)

    @property
    def workers(self) -> Workers:
        return self.control or self.celery

    @property
    def door_to_database(self) -> Database:
        return self.slow_database or self.database

    def lease(self, holder: str) -> Lease:
        """The reconciler's, as seen by one replica."""
        return Lease(
            self.cluster,
            namespace="celery-hpa",
            name="celery-hpa-drain-reconciler",
            holder=holder,
            duration_s=15,
            clock=self.clock.monotonic,
        )

    # What happens to it.

    async def warm_up(self) -> None:
        await self.warm.refresh(self.pool)

    async def ask(
        self,
        from_replicas: int,
        to_replicas: int,
        *,
        within_s: float = 5.0,
        tidy: bool = True,
        is_listened_to: Callable[[], bool] = lambda: True,
        webhook: str = "",
        **claim: Any,
    ) -> Verdict:
        """A review; with `tidy`, what the round does after its answer is waited for."""
        scale_down = self.claim(from_replicas, to_replicas, **claim)
        review = Review(
            uid=scale_down.review_uid,
            api_version="admission.k8s.io/v1",
            scale_down=scale_down,
            webhook=webhook,
        )
        deadline = asyncio.get_running_loop().time() + within_s
        verdict = await self.drainer.review(review, deadline=deadline, is_listened_to=is_listened_to)
        if tidy:
            await self.settle()
        return verdict

    async def settle(self) -> None:
        await self.drainer.close()
        await self.announcer.close()

    def claim(self, from_replicas: int, to_replicas: int, **fields: Any) -> ScaleDown:
        state = self.cluster.cache.state(**self.pool.workload_key._asdict())
        claim = {
            "review_uid": f"review-{next(_uids)}",
            "kind": self.pool.workload.kind,
            "namespace": NAMESPACE,
            "name": "worker",
            "workload_uid": state.workload.uid if state else "gone",
            "from_replicas": from_replicas,
            "to_replicas": to_replicas,
        }
        return ScaleDown(**{**claim, **fields})

    def scale(self, replicas: int, *, settled: bool = False) -> None:
        self.cluster.scale(replicas, namespace=NAMESPACE, settled=settled)

    def delete(self, *pods: str) -> None:
        """Their pods are gone, and so are their workers."""
        for pod in pods:
            self.cluster.delete_pod(pod, namespace=NAMESPACE)
            self.celery.workers.pop(node(pod), None)

    def finish(self, *pods: str) -> None:
        for pod in pods:
            self.celery.finish(node(pod))

    # What there is to see.

    @property
    def pods(self) -> Mapping[str, Pod]:
        state = self.cluster.cache.state(**self.pool.workload_key._asdict())
        return {pod.name: pod for pod in state.pods} if state else {}

    @property
    def marked(self) -> set[str]:
        return {name for name, pod in self.pods.items() if pod.has_mark_annotation}

    @property
    def draining(self) -> set[str]:
        """Pods whose workers consume nothing."""
        return {pod for pod in self.pods if (w := self.celery.workers.get(node(pod))) and not w.queues}

    @property
    def commands(self) -> list[str]:
        return [call.method for call in self.celery.calls if call.method.endswith("_consumer")]

    def events_of(self, name: str) -> list[Event]:
        """Those on the workload, `worker`, or on a pod."""
        return [event for event in self.cluster.events if event.involved.name == name]

    def mark(self, pod: str) -> Mark:
        mark = self.pods[pod].mark
        assert mark is not None, f"{pod} has no mark"
        return mark

    def sample(self, name: str, **labels: str) -> float:
        """A figure of the telemetry; 0 while there is none."""
        return self.registry.get_sample_value(name, labels) or 0.0


def node(pod: str) -> str:
    return f"celery@{pod}"


def stage(
    replicas: int = 4,
    *,
    busy: Mapping[str, Sequence[Task]] | None = None,
    drain: Mapping[str, Any] | None = None,
    cluster: Callable[[], FakeCluster] = FakeCluster,
    with_pods: bool = True,
    annotations: Mapping[str, str] | None = None,
    queues: Sequence[str] = ("default",),
    kind: str = "Deployment",
    settings: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Stage:
    """A settled workload of idle workers, but for those that are `busy`, by pod: worker-0, worker-1, …"""
    kubernetes = cluster()
    kubernetes.add_workload(
        namespace=NAMESPACE, replicas=replicas, with_pods=with_pods, annotations=annotations or {}, kind=kind
    )
    workers = [
        fake_worker(node(f"worker-{i}"), *(busy or {}).get(f"worker-{i}", ()), queues=frozenset(queues))
        for i in range(replicas if with_pods else 0)
    ]
    return Stage(
        cluster=kubernetes,
        celery=FakeCelery.of(*workers),
        pool=builders.pool(
            workload={"kind": kind, "name": "worker"},
            drain={"holdSeconds": 0, **(drain or {})},
            queues=list(queues),
            **(settings or {}),
        ),
        **fields,
    )


def running(name: str = "reports.build", *, seconds: float = 60.0, id: str = "3f2a91bc-77") -> Task:
    """A task that has run for a minute."""
    return Task(id=id, name=name, started_at=time.time() - seconds)


async def eventually(ask: Callable[[], Awaitable[T]], is_enough: Callable[[T], bool]) -> T:
    """For what nothing tells: ask again, with pauses."""
    async with asyncio.timeout(75):
        while True:
            if is_enough(answer := await ask()):
                return answer
            await asyncio.sleep(0.02)
