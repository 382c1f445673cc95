"""Two whole hooks behind an emulated kube-apiserver and one Service; only Celery is a fake."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from deploy.sandbox.processes import free_port
from drain_hook.app import run_hook
from shared.marks import MARK_ANNOTATION
from shared.settings import Settings
from tests.drain_hook.stages import eventually
from tests.fakes.celery import FakeCelery
from tests.fakes.kubernetes_documents import pod_document, replica_set_document, workload_document
from tests.shared.kubernetes_stages import SandboxStage

DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
REPLICA_SETS = "/apis/apps/v1/namespaces/default/replicasets"
PODS = "/api/v1/namespaces/default/pods"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
RULE = {
    "apiGroups": ["apps"],
    "apiVersions": ["v1"],
    "operations": ["UPDATE"],
    "resources": ["deployments/scale"],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the API server answered to a scale."""

    code: int
    message: str = ""


class Service:
    """Passes each new connection on to the next of the replicas, as kube-proxy does."""

    def __init__(self, ports: Collection[int]) -> None:
        self.port = 0
        self._ports = list(ports)
        self._passing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            for task in self._passing:
                task.cancel()
            await asyncio.gather(*self._passing, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ports.append(port := self._ports.pop(0))
        task = asyncio.current_task()
        assert task is not None
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)
        with suppress(OSError):
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
            ways = {
                asyncio.create_task(_pass_on(reader, there_writer)),
                asyncio.create_task(_pass_on(there_reader, writer)),
            }
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                there_writer.close()
        writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@dataclass(kw_only=True)
class Replicas:
    """Two hooks, their pools, and whoever scales."""

    stage: SandboxStage
    directory: Path
    celery: FakeCelery
    pools: Mapping[str, int]
    """Replicas by name of the Deployment."""
    drain: Mapping[str, Any] = field(default_factory=dict)
    failure_policy: str = "Fail"
    timeout_s: int = 10
    round_ttl: str = "40s"
    telemetry_ports: list[int] = field(default_factory=lambda: [free_port(), free_port()])

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The workloads are there, both hooks follow them, and the API server asks one or the other."""
        for name, replicas in self.pools.items():
            await self._add_workload(name, replicas)
        (self.directory / "config.yaml").write_text(self._configuration())
        ports, stop = [free_port(), free_port()], asyncio.Event()
        service = Service(ports)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(service.running())
            await self._register(service.port)
            hooks = [
                asyncio.create_task(
                    run_hook(self._settings(*at), connect=lambda url, **_: self.celery, stop=stop)
                )
                for at in zip(ports, self.telemetry_ports, strict=True)
            ]
            try:
                await eventually(self._readiness, lambda texts: all(text.startswith("ok") for text in texts))
                yield
            finally:
                stop.set()
                await asyncio.gather(*hooks)

    # Callers

    async def kubectl(self, name: str, replicas: int) -> Answer:
        """A merge patch of the scale, without a resourceVersion: the API server itself repeats it."""
        return await self._send(
            "PATCH", name, {"spec": {"replicas": replicas}}, content_type="application/merge-patch+json"
        )

    async def autoscaler(self, name: str, replicas: int) -> Answer:
        """Get the scale and put it back with other replicas, anew at each conflict and five times at most."""
        answer = Answer(code=0)
        for _ in range(5):
            scale = await self.stage.send("GET", f"{DEPLOYMENTS}/{name}/scale")
            if scale["spec"].get("replicas", 0) <= replicas:
                return Answer(code=200)
            answer = await self._send("PUT", name, {**scale, "spec": {"replicas": replicas}})
            if answer.code != 409:
                break
        return answer

    # What there is to see

    async def replicas_of(self, name: str) -> int:
        return int((await self.stage.send("GET", f"{DEPLOYMENTS}/{name}"))["spec"].get("replicas", 0))

    async def marked(self) -> set[str]:
        pods = await self.stage.send("GET", PODS)
        return {
            pod["metadata"]["name"]
            for pod in pods["items"]
            if MARK_ANNOTATION in pod["metadata"].get("annotations", {})
        }

    @property
    def draining(self) -> set[str]:
        return {
            name.removeprefix("celery@") for name, worker in self.celery.workers.items() if not worker.queues
        }

    async def telemetry(self, name: str) -> list[float]:
        """A figure of each replica."""
        texts = [await _get(port, "/metrics") for port in self.telemetry_ports]
        return [
            sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))
            for text in texts
        ]

    # How it is set up

    async def _readiness(self) -> list[str]:
        return [await _get(port, "/readyz") for port in self.telemetry_ports]

    async def _add_workload(self, name: str, replicas: int) -> None:
        labels = {"app": name}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "worker"}]}}
        document = workload_document(name, replicas=replicas)
        document["spec"]["template"] = template
        owner = await self.stage.create(DEPLOYMENTS, document)
        settled = {"observedGeneration": 1, "replicas": replicas, "updatedReplicas": replicas}
        await self.stage.send("PATCH", f"{DEPLOYMENTS}/{name}/status", {"status": settled})
        replica_set = replica_set_document(f"{name}-rs", owner=owner, replicas=replicas)
        replica_set["spec"] |= {"template": template, "selector": {"matchLabels": labels}}
        owner = await self.stage.create(REPLICA_SETS, replica_set)
        for index in range(replicas):
            pod = pod_document(f"{name}-{index}", owner=owner)
            pod["spec"]["containers"] = [{"name": "worker"}]
            await self.stage.create(PODS, pod)
            await self.stage.send("PATCH", f"{PODS}/{name}-{index}/status", {"status": pod["status"]})

    def _configuration(self) -> str:
        pools = [
            {
                "name": name,
                "namespace": "default",
                "workload": {"name": name},
                "queues": ["default"],
                "slotsPerWorker": 4,
                "broker": {"url": "redis://broker/0"},
                "drain": {"holdSeconds": 0, **self.drain},
            }
            for name in self.pools
        ]
        return yaml.safe_dump({"pools": pools, "refresh": 0.2, "maxAge": 30, "roundTtl": self.round_ttl})

    def _settings(self, port: int, telemetry_port: int) -> Settings:
        return Settings(
            config=self.directory / "config.yaml",
            kubeconfig=str(self.directory / "kubeconfig"),
            host="127.0.0.1",
            port=port,
            telemetry_port=telemetry_port,
            tls_self_managed=True,
        )

    async def _register(self, port: int) -> None:
        webhook = {
            "name": "scale.drain.celery-hpa.io",
            "clientConfig": {"url": f"https://localhost:{port}/validate"},
            "rules": [RULE],
            "matchConditions": [
                {
                    "name": "decrease",
                    "expression": "object.spec.?replicas.orValue(0) < oldObject.spec.?replicas.orValue(0)",
                }
            ],
            "failurePolicy": self.failure_policy,
            "sideEffects": "NoneOnDryRun",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": self.timeout_s,
        }
        await self.stage.create(WEBHOOKS, {"metadata": {"name": "celery-hpa-drain"}, "webhooks": [webhook]})

    async def _send(
        self, method: str, name: str, body: object, *, content_type: str = "application/json"
    ) -> Answer:
        async with self.stage.session.request(
            method,
            f"{self.stage.server.url}{DEPLOYMENTS}/{name}/scale",
            data=json.dumps(body),
            headers={"Content-Type": content_type},
        ) as response:
            document = await response.json()
            return Answer(code=response.status, message=document.get("message", ""))


async def _get(port: int, path: str) -> str:
    with suppress(aiohttp.ClientError):
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}{path}") as response,
        ):
            return await response.text()
    return ""
