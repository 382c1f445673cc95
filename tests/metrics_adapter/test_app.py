"""The whole adapter behind an emulated kube-apiserver; only Celery is a fake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from deploy.sandbox.processes import free_port
from metrics_adapter.__main__ import main
from metrics_adapter.app import run_adapter
from shared.certificates import make_ca
from shared.pools import Delegate
from shared.settings import Settings
from tests.fakes.celery import FakeCelery, fake_worker
from tests.metrics_adapter.builders import tasks
from tests.metrics_adapter.provider import VALUES, SecondProvider
from tests.shared.kubernetes_stages import SandboxStage, sandbox_stage

API_SERVICE = "/apis/apiregistration.k8s.io/v1/apiservices"
GROUP = "/apis/external.metrics.k8s.io/v1beta1"
PATIENCE_S = 30.0


def config(name: str = "default", *, delegate: Delegate | None = None) -> str:
    pool: dict[str, Any] = {
        "name": name,
        "namespace": "default",
        "workload": {"kind": "Deployment", "name": "worker"},
        "queues": ["default"],
        "slotsPerWorker": 4,
        "broker": {"url": "redis://:hunter2@broker/0"},
    }
    document: dict[str, Any] = {"pools": [pool], "refresh": 0.1, "maxAge": 30}
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
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    telemetry_port: int = field(default_factory=free_port)
    port: int = field(default_factory=free_port)

    @property
    def config_file(self) -> Path:
        return self.directory / "config.yaml"

    @asynccontextmanager
    async def running(self, *, owner: str = "metrics-adapter") -> AsyncIterator[asyncio.Task[None]]:
        """The APIService is there first, without a caBundle: the adapter brings its own."""
        await self._register(owner)
        self.config_file.write_text(config())
        settings = Settings(
            config=self.config_file,
            kubeconfig=str(self.directory / "kubeconfig"),
            host="127.0.0.1",
            port=self.port,
            telemetry_port=self.telemetry_port,
            tls_self_managed=True,
        )
        adapter = asyncio.create_task(run_adapter(settings, connect=self._connect, stop=self.stop))
        try:
            yield adapter
        finally:
            self.stop.set()
            await adapter

    def _connect(self, url: str, **_: object) -> FakeCelery:
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


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """Two workers with four slots, three tasks running, two waiting."""
    celery = FakeCelery.of(
        fake_worker("celery@worker-0", *tasks(3)), fake_worker("celery@worker-1"), lengths={"default": 2}
    )
    async with sandbox_stage(tmp_path) as stage:
        await stage.add_workload(replicas=2)
        yield Lab(stage=stage, directory=tmp_path, celery=celery)


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


async def test_a_metric_reaches_a_client_of_the_api_server(lab: Lab) -> None:
    """Through availability checks, the front proxy's certificate and a CA that the adapter made itself."""
    async with lab.running():
        answer = await until(lambda: lab.metric("celery_demand"), is_served)
        (item,) = answer["items"]
        assert (item["value"], item["metricLabels"]) == ("5", {"pool": "default", "workload": "worker"})
        assert (await lab.metric("celery_load_factor"))["items"][0]["value"] == "625m"
        assert (await lab.metric("celery_nonsense"))["reason"] == "NotFound"


async def test_pods_are_followed(lab: Lab) -> None:
    """A third pod, whose worker has not answered, is three times four slots to multiply by."""
    async with lab.running():
        await until(lambda: lab.metric("celery_load_factor"), is_served)
        lab.celery.workers["celery@worker-2"] = fake_worker("celery@worker-2")
        await lab.stage.add_pod("worker-2")
        workers = await until(
            lambda: lab.metric("celery_workers"), lambda a: is_served(a) and a["items"][0]["value"] == "3"
        )
        assert workers["items"][0]["metricName"] == "celery_workers"
        assert (await lab.metric("celery_load_factor"))["items"][0]["value"] == "417m"


async def test_health_and_telemetry_say_what_is_wrong(lab: Lab) -> None:
    """A pool that cannot be measured is a detail: the others are served."""
    lab.celery.broken = True
    async with lab.running():
        ready = await until(lambda: lab.telemetry("/readyz"), lambda text: "switched off" in text)
        assert ready.startswith("ok\n")
        assert "Pool default/default has not been measured yet." in ready
        unavailable = await until(
            lambda: lab.metric("celery_demand"), lambda answer: answer.get("code") == 503
        )
        assert unavailable["kind"] == "Status"
        metrics = await lab.telemetry("/metrics")
        assert (
            'metrics_adapter_refresh_failures_total{namespace="default",pool="default",reason="broker"}'
            in (metrics)
        )
        assert "hunter2" not in metrics + ready


async def test_a_changed_configuration_needs_no_restart(lab: Lab) -> None:
    async with lab.running():
        await until(lambda: lab.metric("celery_demand"), is_served)
        lab.config_file.write_text(config("renamed"))
        await until(
            lambda: lab.metric("celery_demand"),
            lambda answer: is_served(answer) and answer["items"][0]["metricLabels"]["pool"] == "renamed",
        )
        lab.config_file.write_text("pools: nonsense")
        assert [door.is_closed for door in lab.opened] == [True, False]
        ready = await until(lambda: lab.telemetry("/readyz"), lambda text: "stays in force" in text)
        assert ready.startswith("ok\n")
        assert is_served(await lab.metric("celery_demand"))


async def test_two_providers_live_behind_one_api_service(lab: Lab) -> None:
    """Values and discovery of both come through the API server; while one is away the other is served."""
    other = SecondProvider(ca=make_ca("theirs"), directory=lab.directory)
    async with lab.running():
        async with other.running():
            lab.config_file.write_text(config(delegate=other.delegate()))
            answer = await until(lambda: lab.metric("queue_depth"), is_served)
            assert answer == VALUES
            assert is_served(await until(lambda: lab.metric("celery_demand"), is_served))
            assert (await lab.metric("CELERY_DEMAND"))["items"]
            discovered = await until(lambda: lab.discovery(), lambda a: "queue_depth" in str(a))
            assert "celery_demand" in str(discovered)
        for _ in range(5):
            answer = await lab.metric("queue_depth")
            assert (answer["code"], answer["message"][:44]) == (
                503,
                "The delegate keda/keda-metrics cannot be ask",
            )
        assert is_served(await lab.metric("celery_demand"))
        ready = await until(lambda: lab.telemetry("/readyz"), lambda text: "keda/keda-metrics" in text)
        assert ready.startswith("ok\n")
        assert "metrics_adapter_delegate_up 0.0" in await lab.telemetry("/metrics")
    assert [name for _, headers in other.asked for name in headers if name.startswith("X-Remote")] == []


async def test_an_api_service_of_somebody_else_is_left_alone(lab: Lab) -> None:
    """And it is said what to do; the adapter is ready all the same."""
    async with lab.running(owner="keda-metrics"):
        ready = await until(lambda: lab.telemetry("/readyz"), lambda text: "leads to" in text)
        assert ready.startswith("ok\n")
        assert "the Service default/keda-metrics and not to metrics-adapter" in ready
        path = f"{lab.stage.server.url}{API_SERVICE}/v1beta1.external.metrics.k8s.io"
        async with lab.stage.session.get(path) as response:
            assert "caBundle" not in (await response.json())["spec"]


async def test_it_ends_when_it_is_told_to_and_closes_its_connections(lab: Lab) -> None:
    async with lab.running() as adapter:
        await until(lambda: lab.metric("celery_demand"), is_served)
        lab.stop.set()
        await adapter
        assert [door.is_closed for door in lab.opened] == [True]
        assert not adapter.cancelled()


def test_every_mistake_is_printed_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, a line for each with its path, no traceback."""
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"pools": [{"name": "UPPER", "namespace": "a", "queues": []}]}))
    assert main(["--config", str(file), "--tls-self-managed"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 4
    assert all(line.startswith("pools[0]") for line in lines)


def test_help_reads_well(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "external.metrics.k8s.io" in capsys.readouterr().out
