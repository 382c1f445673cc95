"""What a scenario needs to say: a crew of real workers behind one workload, its tasks, its scale."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from redis.asyncio import Redis

from deploy.sandbox import manifests
from deploy.sandbox.client import ApiClient, path_of
from deploy.sandbox.cluster import submit, worker_environment
from deploy.sandbox.demo.journal import Run, read_journal
from deploy.sandbox.demo.story import SHORT
from deploy.sandbox.errors import ApiError
from deploy.sandbox.kubeconfigs import Access
from deploy.sandbox.resources import DEPLOYMENTS, PODS, Resource
from deploy.sandbox.services import apply
from shared.celery_control import CeleryControl
from shared.pods import BYPASS_ANNOTATION, Pod, pod_from

PATIENCE_S = 60.0
MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}


async def eventually(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait until something holds; fail with `what` after a minute."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while True:
        if await holds():
            return
        assert asyncio.get_running_loop().time() < deadline, f"not so after {PATIENCE_S:.0f} s: {what}"
        await asyncio.sleep(0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the API server answered to a scale."""

    code: int
    message: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def is_allowed(self) -> bool:
        return self.code == 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A control plane with both services behind it, and a broker."""

    kube: ApiClient
    access: Access
    broker_url: str
    directory: Path

    @asynccontextmanager
    async def crew(
        self, name: str, replicas: int, *, slots: int = 1, hold: str = "", kind: str = "Deployment"
    ) -> AsyncIterator[Crew]:
        """Workers of the pool `name`, gone at the end. `hold` keeps its pods from starting."""
        document = manifests.worker_deployment(
            name=name,
            replicas=replicas,
            command=manifests.worker_command(slots=slots, queues=(name,), pool="threads"),
            environment=worker_environment(self.broker_url),
            grace_seconds=3,
        )
        if hold:
            document["spec"]["template"]["metadata"]["annotations"] = {"lab/hold": hold}
        await apply(self.kube, manifests.of_kind(kind, document))
        valkey = Redis.from_url(self.broker_url)
        control = CeleryControl(self.broker_url)
        resource = manifests.WORKLOADS[kind]
        crew = Crew(name=name, cluster=self, valkey=valkey, control=control, resource=resource)
        try:
            if not hold:
                await crew.at_work(replicas)
            yield crew
        finally:
            await control.close()
            await valkey.aclose()
            await self._dismiss(crew)

    async def _dismiss(self, crew: Crew) -> None:
        """Replicas to nothing with the break-glass, so that nobody is waited for; then the object."""
        change = {"metadata": {"annotations": {BYPASS_ANNOTATION: "true"}}, "spec": {"replicas": 0}}
        await self.kube.patch(crew.resource, manifests.NAMESPACE, crew.name, change)
        await crew.until(lambda pods: not pods, "no pod is left")
        await self.kube.delete(crew.resource, manifests.NAMESPACE, crew.name)


@dataclass(kw_only=True)
class Crew:
    """The workers of one workload."""

    name: str
    cluster: Cluster
    valkey: Redis
    control: CeleryControl
    resource: Resource = DEPLOYMENTS
    submitted: set[str] = field(default_factory=set)

    async def pods(self) -> tuple[Pod, ...]:
        listing = await self.cluster.kube.list(PODS, manifests.NAMESPACE, labelSelector=f"app={self.name}")
        return tuple(map(pod_from, listing["items"]))

    async def until(self, holds: Callable[[tuple[Pod, ...]], bool], what: str) -> tuple[Pod, ...]:
        """The pods, as soon as something holds for them."""
        seen: list[tuple[Pod, ...]] = []

        async def look() -> bool:
            seen[:] = [await self.pods()]
            return holds(seen[0])

        await eventually(look, what)
        return seen[0]

    async def at_work(self, count: int) -> tuple[Pod, ...]:
        """The pods, once `count` of them are there, unmarked, and their workers consume."""
        pods = await self.until(
            lambda pods: len(pods) == count and all(p.is_ready and not p.has_mark_annotation for p in pods),
            f"{count} unmarked pods are ready",
        )
        nodes = [f"celery@{pod.name}" for pod in pods]

        async def all_consume() -> bool:
            queues = await self.control.active_queues(nodes, timeout_s=2)
            return all(queues.get(node) == frozenset({self.name}) for node in nodes)

        await eventually(all_consume, f"all workers of {self.name} consume")
        return pods

    async def submit(self, *seconds: float, task: str = SHORT) -> set[str]:
        """Submit a task for each of `seconds`, and wait until they run."""
        ids = await asyncio.to_thread(
            submit, self.cluster.broker_url, [(task, s) for s in seconds], queue=self.name
        )
        self.submitted |= ids

        async def all_run() -> bool:
            return ids <= {run.id for run in await self.runs()}

        await eventually(all_run, "the tasks run")
        return ids

    async def runs(self) -> tuple[Run, ...]:
        return tuple(run for run in await read_journal(self.valkey) if run.id in self.submitted)

    async def busy_pods(self) -> set[str]:
        return {run.pod for run in await self.runs() if run.finished_at is None}

    async def all_finished_once(self) -> None:
        """Every task ran once, to its end."""

        async def none_runs() -> bool:
            return all(run.finished_at is not None for run in await self.runs())

        await eventually(none_runs, "every task finished")
        assert sorted(run.id for run in await self.runs()) == sorted(self.submitted)

    async def scale(self, replicas: int, *, dry_run: bool = False) -> Answer:
        """Like `kubectl scale`: a merge patch of the scale, without a resourceVersion."""
        path = path_of(self.resource, manifests.NAMESPACE, self.name, "scale")
        return await self._patch(path, {"spec": {"replicas": replicas}}, dry_run=dry_run)

    async def update(self, change: manifests.Document, *, dry_run: bool = False) -> Answer:
        """Like `kubectl patch deployment`: a merge patch of the whole object."""
        path = path_of(DEPLOYMENTS, manifests.NAMESPACE, self.name)
        return await self._patch(path, change, dry_run=dry_run)

    async def _patch(self, path: str, change: manifests.Document, *, dry_run: bool) -> Answer:
        access = self.cluster.access
        headers = {**MERGE_PATCH, **({"Authorization": f"Bearer {access.token}"} if access.token else {})}
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=access.tls())) as session,
            session.patch(
                access.url + path,
                params={"dryRun": "All"} if dry_run else {},
                headers=headers,
                data=json.dumps(change),
            ) as response,
        ):
            document = await response.json()
            return Answer(
                code=response.status,
                message=document.get("message", ""),
                warnings=tuple(response.headers.getall("Warning", ())),
            )

    async def scale_until_allowed(self, replicas: int) -> list[Answer]:
        """Ask again, as the HPA would, until the scale-down is allowed; every answer on the way."""
        answers: list[Answer] = []
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while not answers or not answers[-1].is_allowed:
            assert asyncio.get_running_loop().time() < deadline, answers[-1]
            answers.append(await self.scale(replicas))
            if not answers[-1].is_allowed:
                await asyncio.sleep(0.5)
        return answers

    async def annotate(self, pod: str, key: str, value: str | None) -> None:
        await self.cluster.kube.patch(
            PODS, manifests.NAMESPACE, pod, {"metadata": {"annotations": {key: value}}}
        )

    @asynccontextmanager
    async def restless_deployment(self, *, every_s: float) -> AsyncIterator[None]:
        """Somebody writes to the Deployment all the time, so that the API server must review again."""

        async def write() -> None:
            for number in range(10_000):
                change = {"metadata": {"annotations": {"example.com/touched": str(number)}}}
                with suppress(ApiError):
                    await self.cluster.kube.patch(DEPLOYMENTS, manifests.NAMESPACE, self.name, change)
                await asyncio.sleep(every_s)

        writer = asyncio.create_task(write())
        try:
            yield
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
