"""What is played on a real Airflow: up under load, a database that fails, down again past busy workers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from deploy.sandbox import manifests
from deploy.sandbox.cluster import Sandbox
from deploy.sandbox.controllers.quantities import parse_milli
from deploy.sandbox.demo.verdicts import verdicts_from
from deploy.sandbox.errors import ApiError
from deploy.sandbox.informers import Informer, cancel
from deploy.sandbox.resources import AUTOSCALERS, DEPLOYMENTS, PODS, Document
from deploy.sandbox.services import VALUES, apply
from shared.celery_control import CeleryControl
from shared.errors import BrokerUnavailable
from shared.pods import Pod, pod_from
from tests.airflow.metadata import MetadataDatabase
from tests.airflow.stack import MOST_WORKERS, POOL, QUEUES, SLOTS, WORKLOAD, Stack, autoscaler, behavior
from tests.airflow.verdict import Evidence

INSTANCES = {"opening": 2, "reports": 2, "backup": 1, "closing": 2, "morning": 6, "evening": 4}
"""Task instances by DAG."""
OPENING, LONG = (("opening", "unlock"),), (("reports", "yearly"), ("reports", "weekly"))
PROTECTED = (("backup", "dump"), ("closing", "books.ledger"))
"""By a tag of the DAG, and by an executor_config of the task."""
PATIENCE_S = 150.0
RUNNING, SUCCESS = "running", "success"


class Stuck(Exception):
    """Something did not come about in time; the text says what."""


@dataclass(kw_only=True)
class Stage:
    """A sandbox with an Airflow in it, and what has been seen there."""

    box: Sandbox
    stack: Stack
    database: MetadataDatabase
    control: CeleryControl
    pods_seen: Informer
    say: Callable[[str], None]
    seen: Evidence = field(default_factory=Evidence)

    @property
    def pods(self) -> tuple[Pod, ...]:
        """The workers'."""
        objects = (pod for pod in self.pods_seen.all() if pod["metadata"]["labels"].get("app") == WORKLOAD)
        return tuple(pod_from(pod) for pod in objects)

    @property
    def staying(self) -> frozenset[str]:
        return frozenset(pod.name for pod in self.pods if not pod.is_terminating)

    def signal(self, name: str) -> None:
        """End the tasks that wait for it."""
        (self.stack.signals / name).touch()

    async def run(self, *tasks: tuple[str, str], count: int) -> frozenset[str]:
        """Start DAGs, and wait until so many instances of these tasks of theirs run; the pods they are on."""
        await self.database.start(*(dag_id for dag_id, _ in tasks))
        pods: list[str] = []

        async def they_run() -> bool:
            instances = await self.database.instances()
            of_tasks = [one for one in instances if (one.dag_id, one.task_id) in tasks]
            pods[:] = [one.pod for one in of_tasks if one.state == RUNNING]
            return len(pods) == count

        await self.until(they_run, f"{count} instances of {', '.join(map('.'.join, tasks))} run")
        return frozenset(pods)

    async def are_finished(self, *dag_ids: str) -> bool:
        """Whether all their task instances have ended; raises Stuck when one has not ended well."""
        ended = 0
        for one in await self.database.instances():
            if one.state in ("failed", "upstream_failed") or one.tries > 1:
                raise Stuck(f"{one.name} is {one.state} at try {one.tries}, on {one.pod or 'no worker'}.")
            ended += one.state == SUCCESS and one.dag_id in dag_ids
        return ended >= sum(INSTANCES[dag_id] for dag_id in dag_ids)

    async def value(self, metric: str) -> float:
        """As the HPA gets it. Raises ApiError."""
        path = VALUES.format(namespace=manifests.NAMESPACE, metric=metric)
        answer = await self.box.kube.request("GET", path, query={"labelSelector": f"pool={POOL}"})
        return parse_milli(answer["items"][0]["value"]) / 1000

    async def serves_value(self) -> bool:
        try:
            await self.value("celery_load_factor")
        except ApiError as error:
            if error.code not in (404, 503):
                raise
            return False
        return True

    async def readiness(self) -> str:
        """What the adapter says of itself."""
        url = f"http://127.0.0.1:{self.box.services.adapter_telemetry}/readyz"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return await answer.text()

    async def scale(self, replicas: int) -> str:
        """As `kubectl scale` does; what the hook said no with, or nothing."""
        change = {"spec": {"replicas": replicas}}
        try:
            await self.box.kube.patch(DEPLOYMENTS, manifests.NAMESPACE, WORKLOAD, change, subresource="scale")
        except ApiError as error:
            return error.message
        return ""

    async def allow_scale_down(self) -> None:
        change = {"spec": {"behavior": behavior(scale_down=True)}}
        await self.box.kube.patch(AUTOSCALERS, manifests.NAMESPACE, WORKLOAD, change)

    async def are_at_work(self, count: int) -> bool:
        """Whether so many workers consume all their queues."""
        nodes = [f"celery@{pod}" for pod in self.staying]
        if len(nodes) != count:
            return False
        try:
            queues = await self.control.active_queues(nodes, timeout_s=2)
        except BrokerUnavailable:
            return False
        return all(queues.get(node) == frozenset(QUEUES) for node in nodes)

    async def told_by_workers(self) -> set[str]:
        """The tasks that workers have, by what they were called with."""
        fleet = await self.control.inspect([f"celery@{pod}" for pod in self.staying], timeout_s=2)
        keys = [task.key for worker in fleet.workers.values() for task in worker.tasks]
        return {f"{key.dag_id}.{key.task_id}" if key else "" for key in keys}

    def check(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.seen.remarks.append(otherwise)

    async def until(
        self, holds: Callable[[], Awaitable[bool]], what: str, *, patience_s: float = PATIENCE_S
    ) -> float:
        """Wait; the seconds it took. Raises Stuck."""
        began = time.monotonic()
        while not await holds():
            if time.monotonic() - began > patience_s:
                raise Stuck(f"Not so after {patience_s:.0f} s: {what}.")
            await asyncio.sleep(0.5)
        return time.monotonic() - began


@asynccontextmanager
async def stage(
    box: Sandbox, stack: Stack, database: MetadataDatabase, say: Callable[[str], None]
) -> AsyncIterator[Stage]:
    """Everything that is not a worker runs in it already; pods are watched until the block ends."""
    pods = Informer(box.kube, PODS)
    control = CeleryControl(box.broker_url, with_arguments=True)
    here = Stage(box=box, stack=stack, database=database, control=control, pods_seen=pods, say=say)
    pods.on_change(lambda kind, pod: _note(here, kind, pod))
    watching = asyncio.create_task(pods.run())
    try:
        await pods.synced.wait()
        yield here
    finally:
        await control.close()
        await cancel([watching])


def _note(here: Stage, kind: str, document: Document) -> None:
    if document["metadata"]["labels"].get("app") != WORKLOAD:
        return
    pod, seen = pod_from(document), here.seen
    if kind == "DELETED" or pod.is_terminating:
        seen.deleted.setdefault(pod.name, time.time())
    if not seen.is_released and (pod.name in seen.deleted or pod.mark is not None):
        seen.touched.add(pod.name)
    if any(status["restartCount"] for status in (document.get("status") or {}).get("containerStatuses", ())):
        seen.restarted.add(pod.name)
    seen.most_workers = max(seen.most_workers, len(here.pods))


async def play(here: Stage) -> None:
    """The whole story. Raises Stuck when it cannot go on; what else was wrong is in `seen`."""
    await _start(here)
    await _go_up(here)
    await _lose_the_database(here)
    await _go_down(here)
    await _work_on(here)


async def _start(here: Stage) -> None:
    """One worker, as full as it can be."""
    await here.until(lambda: here.database.has_dags(INSTANCES), "Airflow has read the DAGs")
    await here.until(lambda: here.are_at_work(1), "the first worker consumes")
    await here.run(*OPENING, count=SLOTS)
    await here.until(lambda: _reads(here, "celery_active_tasks", SLOTS), "two tasks are active")
    here.check(
        await here.told_by_workers() == {"opening.unlock"}, "The worker did not tell what its tasks are."
    )
    here.say("one worker is full")


async def _go_up(here: Stage) -> None:
    """Workers for tasks that find no slot: the second one gets long tasks, the third one protected ones.

    In the end the oldest is idle and the youngest protected: Kubernetes by itself removes the youngest first.
    """
    seen = here.seen
    seen.idle = here.staying
    await apply(here.box.kube, autoscaler())
    seen.busy = await here.run(*LONG, count=2)
    here.say("scaled up to 2 workers; the second one runs long tasks")
    seen.guarded = await here.run(*PROTECTED, count=2)
    here.say(f"scaled up to {MOST_WORKERS} workers; the third one runs protected tasks")
    await here.database.start("morning")
    await here.until(lambda: _is_waiting(here), "the adapter counts tasks that wait, and for how long")
    here.signal("opening")
    await here.until(lambda: here.are_finished("opening", "morning"), "the burst is over")
    await here.until(lambda: _reads(here, "celery_active_tasks", 1 + SLOTS), "three tasks are active")
    await here.until(lambda: here.are_at_work(MOST_WORKERS), f"{MOST_WORKERS} workers consume")
    alone = [pods for pods in (seen.idle, seen.busy, seen.guarded) if len(pods) == 1]
    here.check(
        len(alone) == len(frozenset().union(*alone)) == MOST_WORKERS, "Not each worker has tasks of one kind."
    )
    here.say("the burst is over; the oldest worker is idle, one is busy, the youngest is protected")


async def _lose_the_database(here: Stage) -> None:
    """Without labels no worker goes, without the database there are no values, and both come back."""
    seen = here.seen
    async with _without_database(here) as stopped_at:
        here.say("the database is stopped")
        await _is_refused_without_labels(here)
        await here.until(lambda: _is_not(here.serves_value), "the adapter serves no value", patience_s=60)
        seen.unavailable_s = time.monotonic() - stopped_at
        await _is_refused_without_labels(here)
        here.check(
            "database" in await here.readiness(), "The adapter's readiness does not name the database."
        )
    seen.recovered_s = await here.until(here.serves_value, "the adapter serves values again", patience_s=60)
    seen.recovered_at = time.time()
    here.check(not seen.deleted, f"Workers were removed without the database: {', '.join(seen.deleted)}.")
    here.say(f"503 after {seen.unavailable_s:.0f} s; values again {seen.recovered_s:.0f} s after its start")


@asynccontextmanager
async def _without_database(here: Stage) -> AsyncIterator[float]:
    """It is stopped, at the time that is yielded, and started again at the end."""
    server = here.database.server
    await asyncio.to_thread(server.stop)
    try:
        yield time.monotonic()
    finally:
        await asyncio.to_thread(server.start_again)


async def _is_refused_without_labels(here: Stage) -> None:
    answer = await here.scale(MOST_WORKERS - 1)
    here.check("metadata database" in answer, f"A scale-down without the database: {answer or 'allowed'}")


async def _go_down(here: Stage) -> None:
    """First the idle worker goes; the busy one when it has finished; the protected one stays."""
    seen = here.seen
    await here.allow_scale_down()
    await here.until(lambda: _are(here, MOST_WORKERS - 1), "the HPA has removed a worker")
    here.check(here.staying == seen.guarded | seen.busy, "It was not the idle worker that was removed.")
    here.say("the HPA has removed the idle worker")
    here.check(bool(await here.scale(1)), "The busy worker may go.")
    here.signal("reports")
    await here.until(lambda: _are(here, 1), "the HPA has removed the worker that was busy")
    here.check(here.staying == seen.guarded, "The protected worker was removed.")
    here.say("the busy worker has finished, and the HPA has removed it")
    answer = await here.scale(0)
    here.check("protected" in answer, f"The last worker, with protected tasks: {answer or 'may go'}")


async def _work_on(here: Stage) -> None:
    """The protected tasks end, and Airflow, whose database was away, still starts new ones."""
    here.seen.is_released = True
    for dag_id, _ in PROTECTED:
        here.signal(dag_id)
    await here.database.start("evening")
    await here.until(lambda: here.are_finished(*INSTANCES), "every task has succeeded")
    here.say("every task has succeeded")


async def gather(here: Stage) -> Evidence:
    """What is known at the end."""
    here.seen.instances = await here.database.instances()
    verdicts = verdicts_from(await asyncio.to_thread(here.box.services.hook_log.read_text, errors="replace"))
    late = [one for one in verdicts if one.reason == "LabelsUnknown" and one.at > here.seen.recovered_at]
    here.check(not late, f"Labels were unknown {len(late)} times although the database was there.")
    here.seen.allowed = sum(verdict.allowed for verdict in verdicts)
    here.seen.refusals = Counter(verdict.reason for verdict in verdicts if not verdict.allowed)
    kills = here.box.plane.kubelet.kills
    killed = {kill.pod for kill in kills if kill.pod.startswith(f"{WORKLOAD}-")}
    here.seen.killed = tuple(sorted(killed | here.seen.restarted))
    return here.seen


async def _reads(here: Stage, metric: str, wanted: float) -> bool:
    return await here.serves_value() and await here.value(metric) == wanted


async def _is_waiting(here: Stage) -> bool:
    return (
        await here.value("celery_waiting_tasks") > 0 and await here.value("celery_oldest_waiting_seconds") > 0
    )


async def _are(here: Stage, count: int) -> bool:
    return len(here.pods) == count


async def _is_not(holds: Callable[[], Awaitable[bool]]) -> bool:
    return not await holds()
