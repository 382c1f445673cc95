"""A cluster to be hard on: the sandbox's control plane, real workers, two replicas of the hook."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Collection, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from redis.asyncio import Redis

from deploy.sandbox import manifests
from deploy.sandbox.client import ApiClient
from deploy.sandbox.cluster import broker as valkey_of_the_sandbox
from deploy.sandbox.control_plane import ControlPlane, control_plane
from deploy.sandbox.demo.journal import Run, read_journal
from deploy.sandbox.informers import Informer, cancel
from deploy.sandbox.resources import PODS, Document
from deploy.sandbox.services import Service, apply, grant_what_we_ship
from shared.celery_control import CeleryControl
from shared.certificates import make_ca
from shared.errors import BrokerUnavailable
from shared.pods import Pod, pod_from
from tests.brokers import Server
from tests.chaos.evidence import Record
from tests.chaos.health import SILENT, complaints
from tests.chaos.pools import POOLS, Pool, configuration, deployment
from tests.chaos.replicas import Balancer, Replica, signal_worker
from tests.chaos.traffic import Callers, Tally, Tasks

ANSWER_S = 2.0
START_S = 60.0
DEAF_AFTER_S = 25.0
"""Longer than Celery takes to reach a broker that is back: it tries after 2, 4, 6 and 8 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arena:
    """Everything that can be broken, and everything that is remembered of it."""

    kube: ApiClient
    broker: Server
    journal: Redis
    control: CeleryControl
    replicas: tuple[Replica, ...]
    chance: random.Random
    tasks: Tasks
    callers: Callers
    pods_seen: Informer
    record: Record = field(default_factory=Record)
    tally: Tally = field(default_factory=Tally)
    foreign_costs: dict[str, str] = field(default_factory=dict)
    """What others wrote as pod-deletion-cost, by pod."""

    def pods(self, pool: Pool) -> tuple[Pod, ...]:
        """As the API server has them, by way of a watch."""
        objects = (pod for pod in self.pods_seen.all() if pod["metadata"]["labels"].get("app") == pool.name)
        return tuple(map(pod_from, objects))

    async def complaints(self) -> tuple[str, ...]:
        """What is not as it should be at rest."""
        of_pools = [await self._complaints_of(pool) for pool in POOLS]
        return tuple(complaint for of_pool in of_pools for complaint in of_pool)

    async def _complaints_of(self, pool: Pool) -> tuple[str, ...]:
        pods = self.pods(pool)
        try:
            consumed = await self.control.active_queues(
                [f"celery@{pod.name}" for pod in pods if not pod.is_terminating], timeout_s=ANSWER_S
            )
        except BrokerUnavailable as error:
            return (f"{pool.name}: {error}",)
        return complaints(
            pods,
            queues=pool.queues,
            consumed={node.removeprefix("celery@"): queues for node, queues in consumed.items()},
            foreign_costs=self.foreign_costs,
        )

    def restart_the_deaf(self, complaints: Collection[str], *, silent_for_s: float) -> int:
        """Kill workers that still answer nothing, as a liveness probe would; returns how many.

        Celery does not always listen to remote control again after its broker failed, although it works on.
        """
        deaf = [text.split()[0] for text in complaints if text.endswith(SILENT)]
        if not self.record.outages or silent_for_s < DEAF_AFTER_S:
            return 0
        since = time.time() - DEAF_AFTER_S
        return sum(self.kill_worker(pod) for pod in deaf if max(self.record.killed[pod], default=0.0) < since)

    def kill_worker(self, pod: str) -> bool:
        """At once, tasks and all; False if there was none."""
        self.record.killed[pod].append(time.time())
        return signal_worker(pod, signal.SIGKILL)

    async def runs(self) -> tuple[Run, ...]:
        return await read_journal(self.journal)

    @asynccontextmanager
    async def tasks_coming(self) -> AsyncIterator[None]:
        """Tasks are submitted to all pools while the block lasts."""
        async with background(*(self.tasks.keep_coming(pool) for pool in POOLS)):
            yield

    @asynccontextmanager
    async def scaling(self) -> AsyncIterator[None]:
        """Everybody scales while the block lasts."""
        async with background(
            *(self.callers.autoscale(pool) for pool in POOLS), *(self.callers.meddle(pool) for pool in POOLS)
        ):
            yield

    @contextmanager
    def outage(self) -> Iterator[None]:
        """The broker is away while the block lasts."""
        began = time.time()
        try:
            yield
        finally:
            self.record.outages.append((began, time.time()))


@asynccontextmanager
async def arena(directory: Path, broker: Server, *, seed: int) -> AsyncIterator[Arena]:
    """An arena with all workers at work and tasks coming in; nobody scales yet."""
    chance, record, tally = random.Random(seed), Record(), Tally()
    async with AsyncExitStack() as stack:
        journal_url = await stack.enter_async_context(valkey_of_the_sandbox(directory))
        plane = await stack.enter_async_context(control_plane(directory))
        replicas = await stack.enter_async_context(_hook(plane, broker.url, directory, chance=chance))
        pods = await stack.enter_async_context(_pods(plane.kube, record))
        control = CeleryControl(broker.url)
        stack.push_async_callback(control.close)
        journal = Redis.from_url(journal_url)
        stack.push_async_callback(journal.aclose)
        tasks = Tasks(broker.url, record, chance=chance)
        here = Arena(
            kube=plane.kube,
            broker=broker,
            journal=journal,
            control=control,
            replicas=replicas,
            chance=chance,
            tasks=tasks,
            callers=Callers(plane.kube, tally, chance=chance),
            pods_seen=pods,
            record=record,
            tally=tally,
        )
        for pool in POOLS:
            await apply(plane.kube, deployment(pool, broker_url=broker.url, journal_url=journal_url))
        await _until_at_work(here)
        yield here


@asynccontextmanager
async def _hook(
    plane: ControlPlane, broker_url: str, directory: Path, *, chance: random.Random
) -> AsyncIterator[tuple[Replica, ...]]:
    """Two replicas behind one Service, registered with the API server."""
    kube = plane.kube
    ours = configuration(broker_url)
    await grant_what_we_ship(kube, ours)
    await apply(kube, manifests.external_name_service(manifests.HOOK_SERVICE))
    config = directory / "config.yaml"
    config.touch(mode=0o600)
    config.write_text(yaml.safe_dump(ours, sort_keys=False))
    ca = make_ca("celery-hpa chaos")
    kubeconfig = plane.kubeconfig_of(manifests.SYSTEM_NAMESPACE, manifests.HOOK_SERVICE)
    services = [Service("drain_hook", manifests.HOOK_SERVICE) for _ in range(2)]
    commands = [service.command(directory, config, kubeconfig, ca) for service in services]
    replicas = tuple(
        Replica(number, command=command, port=service.port, directory=directory)
        for number, (service, command) in enumerate(zip(services, commands, strict=True), 1)
    )
    async with (
        background(*(replica.run() for replica in replicas)),
        Balancer(replicas, chance=chance) as port,
    ):
        async with asyncio.timeout(START_S):
            await asyncio.gather(*(replica.wait_ready() for replica in replicas))
        await apply(kube, manifests.webhook_configuration(port=port, ca_pem=ca.certificate_pem))
        yield replicas


@asynccontextmanager
async def _pods(kube: ApiClient, record: Record) -> AsyncIterator[Informer]:
    """All pods, and when each began to be deleted."""
    pods = Informer(kube, PODS)

    def note(kind: str, pod: Document) -> None:
        if kind == "DELETED" or "deletionTimestamp" in pod["metadata"]:
            record.deleted.setdefault(pod["metadata"]["name"], time.time())

    pods.on_change(note)
    async with background(pods.run()):
        await pods.synced.wait()
        yield pods


async def _until_at_work(here: Arena) -> None:
    deadline = time.monotonic() + START_S
    while any(len(here.pods(pool)) < pool.most for pool in POOLS) or await here.complaints():
        if time.monotonic() > deadline:
            raise TimeoutError(f"Not all workers are at work after {START_S:.0f} s.")
        await asyncio.sleep(0.3)


@asynccontextmanager
async def background(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """These run while the block lasts; what fails among them is raised at its end."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        yield
    finally:
        await cancel(tasks)
