"""The whole adapter, registered with an emulated kube-apiserver; only Celery is a fake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from deploy.sandbox.processes import free_port
from metrics_adapter.app import run_adapter
from shared.pools import Delegate
from shared.settings import Settings
from tests.fakes.celery import FakeCelery
from tests.shared.kubernetes_stages import SandboxStage

API_SERVICE = "/apis/apiregistration.k8s.io/v1/apiservices"
GROUP = "/apis/external.metrics.k8s.io/v1beta1"
PATIENCE_S = 30.0


def config(
    name: str = "default", *, delegate: Delegate | None = None, secret: Path | None = None, **changes: Any
) -> str:
    pool: dict[str, Any] = {
        "name": name,
        "namespace": "default",
        "workload": {"kind": "Deployment", "name": "worker"},
        "queues": ["default"],
        "slotsPerWorker": 4,
        "broker": {"urlFrom": {"file": str(secret)}} if secret else {"url": "redis://:hunter2@broker/0"},
    }
    document: dict[str, Any] = {"pools": [pool], "refresh": 0.1, "maxAge": 30} | changes
    if delegate:
        document["delegate"] = delegate.model_dump(mode="json", by_alias=True)
    return yaml.safe_dump(document)


@dataclass(kw_only=True)
class Lab:
    """An adapter registered with the API server of a stage."""

    stage: SandboxStage
    directory: Path
    celery: FakeCelery
    opened: list[FakeCelery] = field(default_factory=list)
    """Doors to the fleet."""
    urls: list[str] = field(default_factory=list)
    """Where each of them led."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    telemetry_port: int = field(default_factory=free_port)
    port: int = field(default_factory=free_port)
    configuration: str = field(default_factory=config)
    """What the file says when the adapter starts."""
    files: tuple[Path, Path] | None = None
    """Certificate and key to serve with; it makes its own without."""

    config_file: Path = Path()
    """`config.yaml` of the directory, unless the test has put it elsewhere."""

    def __post_init__(self) -> None:
        self.config_file = self.directory / "config.yaml"

    @asynccontextmanager
    async def running(self, *, owner: str = "metrics-adapter") -> AsyncIterator[asyncio.Task[None]]:
        """The APIService is there first, without a caBundle: the adapter brings its own."""
        await self._register(owner)
        if not self.config_file.exists():
            self.config_file.write_text(self.configuration)
        settings = Settings(
            config=self.config_file,
            kubeconfig=str(self.directory / "kubeconfig"),
            host="127.0.0.1",
            port=self.port,
            telemetry_port=self.telemetry_port,
            tls_cert_file=self.files and self.files[0],
            tls_private_key_file=self.files and self.files[1],
            tls_self_managed=self.files is None,
        )
        adapter = asyncio.create_task(run_adapter(settings, connect=self._connect, stop=self.stop))
        try:
            yield adapter
        finally:
            self.stop.set()
            await adapter

    def _connect(self, url: str, **_: object) -> FakeCelery:
        self.urls.append(url)
        self.opened.append(replace(self.celery))
        return self.opened[-1]

    async def _register(self, owner: str) -> None:
        service = {
            "metadata": {"name": owner},
            "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": 443}]},
        }
        await self.stage.create("/api/v1/namespaces/default/services", service)
        port = self.port if owner == "metrics-adapter" else free_port()
        reference = {"namespace": "default", "name": owner, "port": port}
        api_service = {
            "metadata": {"name": "v1beta1.external.metrics.k8s.io"},
            "spec": {
                "group": "external.metrics.k8s.io",
                "version": "v1beta1",
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "service": reference,
            },
        }
        await self.stage.create(API_SERVICE, api_service)

    async def metric(self, name: str) -> Any:
        """What the API server answers, whatever that is."""
        async with self.stage.session.get(
            f"{self.stage.server.url}{GROUP}/namespaces/default/{name}"
        ) as response:
            return await response.json()

    async def discovery(self) -> Any:
        """Which metrics the adapter names, as the API server passes it on."""
        async with self.stage.session.get(f"{self.stage.server.url}{GROUP}") as response:
            return await response.json()

    async def telemetry(self, path: str) -> str:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.telemetry_port}{path}") as response,
        ):
            return await response.text()


async def until(ask: Callable[[], Awaitable[Any]], is_enough: Callable[[Any], bool]) -> Any:
    """Nothing tells when an aggregator or a file watch has noticed: ask again, with pauses."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with suppress(aiohttp.ClientError):
                answer = await ask()
                if is_enough(answer):
                    return answer
            await asyncio.sleep(0.02)


def is_served(answer: Any) -> bool:
    return bool(answer.get("items"))
