"""The hook before a fleet: pods that start no process and a crowd for their workers, or a few real ones.

The hook is a process of its own, as in a cluster, and is asked as the API server asks it. A scale-down that
it allows is not carried out: the pods are given back by hand, so the next round finds the fleet as it was.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import aiohttp
import yaml

from deploy.sandbox import manifests
from deploy.sandbox.client import ApiClient
from deploy.sandbox.cluster import broker, worker_environment
from deploy.sandbox.control_plane import ControlPlane, control_plane
from deploy.sandbox.demo.timeline import RoundMark
from deploy.sandbox.demo.verdicts import verdicts_from
from deploy.sandbox.processes import running
from deploy.sandbox.resources import DEPLOYMENTS, PODS, Document
from deploy.sandbox.services import Service, apply, grant_what_we_ship
from shared.celery_control import CeleryControl
from shared.certificates import make_ca
from shared.marks import MARK_ANNOTATION, SUMMARY_ANNOTATION
from shared.pods import DELETION_COST
from tests.bench.crowd import crowd
from tests.bench.fleets import POOL, pods_without_processes
from tests.brokers import rabbitmq

LATENCY_S = 0.003
"""Of each call to the API server; what a real one took."""
REFRESH_S = 5.0
"""As shipped: the hook's own questions to all workers go on meanwhile."""
PATIENCE_S = 180.0
ANSWER_S = 30.0
CROWD_PROCESSES = 2
AT_ONCE = 32
SLOTS = 2
_FREE: Document = {
    "metadata": {"annotations": {MARK_ANNOTATION: None, SUMMARY_ANNOTATION: None, DELETION_COST: None}}
}


class Refused(RuntimeError):
    """The hook did not allow what it had to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One review, measured from outside, and what the hook logged of it."""

    seconds: float
    """From the AdmissionReview in to the verdict out, with TLS and JSON."""
    logged: RoundMark


@dataclass(kw_only=True)
class Simulation:
    """A running one."""

    plane: ControlPlane
    broker_url: str
    hook: Service
    hook_log: Path
    session: aiohttp.ClientSession
    control: CeleryControl
    read: int = 0
    """Bytes of the hook's log that have been read."""

    @property
    def kube(self) -> ApiClient:
        return self.plane.kube

    async def scale_up(self, workers: int) -> None:
        """Returns when every pod is ready and the hook knows every worker."""
        change = {"spec": {"replicas": workers}}
        await self.kube.patch(DEPLOYMENTS, manifests.NAMESPACE, POOL, change, subresource="scale")
        deadline = time.monotonic() + PATIENCE_S
        while await self._ready() != workers:
            if time.monotonic() > deadline:
                raise RuntimeError(f"Not all {workers} pods are ready after {PATIENCE_S:.0f} s.")
            await asyncio.sleep(0.5)
        await asyncio.sleep(REFRESH_S + 1.0)

    async def until_all_consume(self, workers: int) -> None:
        """For real workers, which need a while after their pods are ready."""
        async with asyncio.timeout(PATIENCE_S):
            while len(await self.control.consumers(timeout_s=2.0)) < workers:
                pass
        await asyncio.sleep(REFRESH_S + 1.0)

    async def review(self, *, victims: int) -> Verdict:
        """Ask for so many workers less. Raises Refused."""
        review = await self._admission_review(victims)
        started = time.perf_counter()
        async with self.session.post(
            f"https://localhost:{self.hook.port}/validate?timeout=30s", json=review
        ) as (response):
            answer = await response.json()
        seconds = time.perf_counter() - started
        if not answer["response"]["allowed"]:
            raise Refused(answer["response"]["status"]["message"])
        return Verdict(seconds=seconds, logged=self._logged())

    async def give_back(self) -> Sequence[str]:
        """Every pod as it was before anybody marked it, its worker consuming; returns their names."""
        pods = (await self.kube.list(PODS, manifests.NAMESPACE, labelSelector=f"app={POOL}"))["items"]
        marked = [
            pod["metadata"]["name"] for pod in pods if DELETION_COST in pod["metadata"].get("annotations", {})
        ]
        await self.control.add_consumers({f"celery@{name}": [POOL] for name in marked}, timeout_s=ANSWER_S)
        limit = asyncio.Semaphore(AT_ONCE)

        async def free(name: str) -> None:
            async with limit:
                await self.kube.patch(PODS, manifests.NAMESPACE, name, _FREE)

        await asyncio.gather(*map(free, marked))
        return marked

    async def _ready(self) -> int:
        deployment = await self.kube.get(DEPLOYMENTS, manifests.NAMESPACE, POOL)
        return int(deployment.get("status", {}).get("readyReplicas", 0))

    async def _admission_review(self, victims: int) -> Document:
        scale = await self.kube.get(DEPLOYMENTS, manifests.NAMESPACE, POOL, subresource="scale")
        lower = scale | {"spec": {"replicas": scale["spec"]["replicas"] - victims}}
        resource = {"group": "apps", "version": "v1", "resource": "deployments"}
        return {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": str(uuid4()),
                "kind": {"group": "autoscaling", "version": "v1", "kind": "Scale"},
                "resource": resource,
                "subResource": "scale",
                "requestKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"},
                "requestResource": resource,
                "requestSubResource": "scale",
                "name": POOL,
                "namespace": manifests.NAMESPACE,
                "operation": "UPDATE",
                "userInfo": {"username": "system:serviceaccount:kube-system:horizontal-pod-autoscaler"},
                "object": lower,
                "oldObject": scale,
                "dryRun": False,
                "options": {"apiVersion": "meta.k8s.io/v1", "kind": "UpdateOptions"},
            },
        }

    def _logged(self) -> RoundMark:
        """The hook writes its line before it answers."""
        with self.hook_log.open("rb") as log:
            log.seek(self.read)
            text = log.read()
            self.read += len(text)
        return verdicts_from(text.decode(errors="replace"))[-1]


@asynccontextmanager
async def simulation(
    directory: Path, *, kind: str = "valkey", latency_s: float = LATENCY_S, has_real_workers: bool = False
) -> AsyncIterator[Simulation]:
    """A fleet of no workers yet; `kind` is that of the broker: valkey or rabbitmq."""
    async with AsyncExitStack() as stack:
        url = (
            stack.enter_context(rabbitmq(directory)).url
            if kind == "rabbitmq"
            else await stack.enter_async_context(broker(directory))
        )
        if not has_real_workers:
            await stack.enter_async_context(
                crowd(directory, url, POOL, processes=CROWD_PROCESSES, is_idle=True)
            )
        plane = await stack.enter_async_context(control_plane(directory, latency_s=latency_s))
        document = _configuration(url)
        await grant_what_we_ship(plane.kube, document)
        await apply(plane.kube, _workers(url) if has_real_workers else pods_without_processes(POOL, 0))
        ca = make_ca("celery-hpa benchmark")
        hook, log = Service("drain_hook", manifests.HOOK_SERVICE), directory / "drain_hook.log"
        configuration = directory / "config.yaml"
        configuration.write_text(yaml.safe_dump(document))
        account = plane.kubeconfig_of(manifests.SYSTEM_NAMESPACE, manifests.HOOK_SERVICE)
        await stack.enter_async_context(
            running(hook.command(directory, configuration, account, ca), log=log, ready="drain_hook serves")
        )
        trust = ssl.create_default_context(cadata=ca.certificate_pem.decode())
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust))
        )
        control = CeleryControl(url)
        stack.push_async_callback(control.close)
        yield Simulation(
            plane=plane,
            broker_url=url,
            hook=hook,
            hook_log=log,
            session=session,
            control=control,
        )


def _workers(broker_url: str) -> Document:
    return manifests.worker_deployment(
        name=POOL,
        replicas=0,
        command=manifests.worker_command(slots=SLOTS, queues=(POOL,), pool="prefork"),
        environment=worker_environment(broker_url),
        grace_seconds=3,
    )


def _configuration(broker_url: str) -> Document:
    """Impatient in nothing: marks stay until they are given back by hand."""
    pool = manifests.pool(name=POOL, workload=POOL, broker_url=broker_url, slots=SLOTS, queues=(POOL,))
    return {"refresh": f"{REFRESH_S:g}s", "maxAge": "60s", "roundTtl": "1h", "pools": [pool]}
