"""The whole hook behind an emulated kube-apiserver; only Celery is a fake."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from deploy.sandbox.processes import free_port
from drain_hook.__main__ import main
from drain_hook.app import run_hook
from shared.certificates import make_ca
from shared.marks import MARK_ANNOTATION
from shared.settings import Settings
from shared.workers import Label
from tests.drain_hook.stages import eventually, running
from tests.fakes.celery import FakeCelery, fake_worker
from tests.fakes.metadata import FakeMetadata, celery_task, task_key
from tests.shared.kubernetes_stages import SandboxStage, sandbox_stage
from tests.shared.mounted_volume import MountedVolume

DEPLOYMENT = "/apis/apps/v1/namespaces/default/deployments/worker"
PODS = "/api/v1/namespaces/default/pods"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"


AIRFLOW = {"database": "postgresql://reader:hunter2@airflow-db/airflow"}


def config(*, airflow: dict[str, str] | None = None, secret: Path | None = None, **drain: Any) -> str:
    pool = {
        "name": "default",
        "namespace": "default",
        "workload": {"name": "worker"},
        "queues": ["default"],
        "slotsPerWorker": 4,
        "broker": {"urlFrom": {"file": str(secret)}} if secret else {"url": "redis://:hunter2@broker/0"},
        "airflow": airflow,
        "drain": {"holdSeconds": 0, **drain},
    }
    return yaml.safe_dump({"pools": [pool], "refresh": 0.1, "maxAge": 30})


@dataclass(kw_only=True)
class Lab:
    """A hook that the API server of a stage calls on scale-downs."""

    stage: SandboxStage
    directory: Path
    celery: FakeCelery
    databases: list[FakeMetadata] = field(default_factory=list)
    """Those that were opened."""
    urls: list[str] = field(default_factory=list)
    """Of the brokers that it has connected to."""
    config_file: Path = Path()
    """`config.yaml` of the directory, unless the test has put it elsewhere."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = field(default_factory=free_port)
    telemetry_port: int = field(default_factory=free_port)
    client_ca_file: Path | None = None

    @asynccontextmanager
    async def hook(self, *, airflow: dict[str, str] | None = None) -> AsyncIterator[None]:
        """The registration is there first, without a caBundle: the hook brings its own."""
        if not self.config_file.exists():
            self.config_file.write_text(config(airflow=airflow))
        await self._register()
        settings = Settings(
            config=self.config_file,
            kubeconfig=str(self.directory / "kubeconfig"),
            host="127.0.0.1",
            port=self.port,
            telemetry_port=self.telemetry_port,
            tls_self_managed=True,
            client_ca_file=self.client_ca_file,
        )
        hook = asyncio.create_task(
            run_hook(
                settings,
                connect=self._connect,
                connect_database=self.open_database,
                stop=self.stop,
            )
        )
        try:
            await eventually(lambda: self.telemetry("/readyz"), lambda text: text.startswith("ok"))
            yield
        finally:
            self.stop.set()
            await hook

    def __post_init__(self) -> None:
        self.config_file = self.directory / "config.yaml"

    def _connect(self, url: str, **_: object) -> FakeCelery:
        self.urls.append(url)
        # The same workers by another connection: the first one is closed when its URL changes.
        return self.celery if len(self.urls) == 1 else replace(self.celery, is_closed=False, broken=False)

    def open_database(self, url: str) -> FakeMetadata:
        assert url == AIRFLOW["database"], "no other pool has a database"
        self.databases.append(FakeMetadata())
        return self.databases[-1]

    async def _register(self) -> None:
        await self.stage.create(
            WEBHOOKS,
            {
                "metadata": {"name": "celery-hpa-drain"},
                "webhooks": [
                    {
                        "name": "scale.drain.celery-hpa.io",
                        "clientConfig": {"url": f"https://localhost:{self.port}/validate"},
                        "rules": [
                            {
                                "apiGroups": ["apps"],
                                "apiVersions": ["v1"],
                                "operations": ["UPDATE"],
                                "resources": ["deployments/scale"],
                            }
                        ],
                        "failurePolicy": "Fail",
                        "sideEffects": "NoneOnDryRun",
                        "admissionReviewVersions": ["v1"],
                        "timeoutSeconds": 10,
                    }
                ],
            },
        )

    async def scale(self, replicas: int, *, query: str = "") -> dict[str, Any]:
        """What the API server answers, whatever that is."""
        async with self.stage.session.patch(
            f"{self.stage.server.url}{DEPLOYMENT}/scale{query}",
            data=json.dumps({"spec": {"replicas": replicas}}),
            headers={"Content-Type": "application/merge-patch+json"},
        ) as response:
            return dict(await response.json())

    async def marked(self) -> set[str]:
        pods = await self.stage.send("GET", PODS)
        return {
            pod["metadata"]["name"]
            for pod in pods["items"]
            if MARK_ANNOTATION in pod["metadata"].get("annotations", {})
        }

    async def telemetry(self, path: str) -> str:
        with suppress(aiohttp.ClientError):
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{self.telemetry_port}{path}") as response,
            ):
                return await response.text()
        return ""


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """Three workers, one of them busy."""
    celery = FakeCelery.of(
        fake_worker("celery@worker-0", running()),
        fake_worker("celery@worker-1"),
        fake_worker("celery@worker-2"),
    )
    async with sandbox_stage(tmp_path) as stage:
        await stage.add_workload(replicas=3)
        settled = {"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3}
        await stage.send("PATCH", f"{DEPLOYMENT}/status", {"status": settled})
        yield Lab(stage=stage, directory=tmp_path, celery=celery)


async def test_a_scale_down_is_drained_through_the_api_server(lab: Lab) -> None:
    """Over TLS with a certificate the hook made itself; the idle ones go, and an Event says so."""
    async with lab.hook():
        assert (await lab.scale(1))["spec"]["replicas"] == 1
        assert await lab.marked() == {"worker-1", "worker-2"}
        events = await eventually(lab.stage.events, bool)
    assert [(reason, kind) for reason, _, kind in events] == [("ScaleDownDrained", "Normal")]


async def test_a_refusal_reaches_whoever_asked(lab: Lab) -> None:
    """In one sentence, with 403."""
    async with lab.hook():
        answer = await lab.scale(0)
    assert answer["code"] == 403
    assert "worker-0 runs reports.build" in answer["message"]


async def test_an_api_server_without_the_certificate_that_is_wanted_is_not_answered(lab: Lab) -> None:
    """It was given none in its admission configuration; a scale-down is refused then."""
    lab.client_ca_file = lab.directory / "clients.crt"
    lab.client_ca_file.write_bytes(make_ca("clients").certificate_pem)
    async with lab.hook():
        answer = await lab.scale(1)
        assert await lab.marked() == set()
    assert answer["code"] == 500
    assert "failed calling webhook" in answer["message"]


async def test_a_dry_run_changes_nothing(lab: Lab) -> None:
    async with lab.hook():
        assert (await lab.scale(1, query="?dryRun=All"))["spec"]["replicas"] == 1
        assert await lab.marked() == set()


async def test_a_scale_up_takes_it_all_back(lab: Lab) -> None:
    """Refused, then load comes back: within a moment everybody works."""
    async with lab.hook():
        assert (await lab.scale(0))["code"] == 403
        assert await lab.marked() == {"worker-0", "worker-1", "worker-2"}
        await lab.scale(4)
        await eventually(lab.marked, lambda marked: marked == set())
    assert all(worker.queues for worker in lab.celery.workers.values())


async def test_a_pool_that_is_removed_gets_everything_back(lab: Lab) -> None:
    """Nobody would ever look at its pods again."""
    async with lab.hook():
        assert (await lab.scale(0))["code"] == 403
        assert await lab.marked() == {"worker-0", "worker-1", "worker-2"}
        lab.config_file.write_text(config().replace("worker", "another"))
        await eventually(lab.marked, lambda marked: marked == set())
    assert all(worker.queues == {"default"} for worker in lab.celery.workers.values())


async def test_airflows_labels_are_read_and_a_database_that_is_away_is_told(lab: Lab) -> None:
    """Refused without it, with the reason also in /readyz, which stays ok: a refusal is an answer, too."""
    lab.celery.start("celery@worker-0", celery_task(task_key(dag_id="sales")))
    async with lab.hook(airflow=AIRFLOW):
        assert (await lab.scale(0))["code"] == 403
        (database,) = lab.databases
        database.label("sales", Label(protect=True))
        assert "would stop a protected task: worker-0 runs sales.build" in (await lab.scale(0))["message"]
        database.broken = True
        assert "must not be stopped is not known" in (await lab.scale(0))["message"]
        ready, metrics = await lab.telemetry("/readyz"), await lab.telemetry("/metrics")
        database.broken = False
        assert "would stop a protected task" in (await lab.scale(0))["message"]
        well = await lab.telemetry("/readyz")
    assert ready.startswith("ok\nThe last round of pool default/default could not read Airflow's metadata")
    assert 'drain_hook_database_failures_total{namespace="default",pool="default"} 1.0' in metrics
    assert "hunter2" not in ready + metrics
    assert well == "ok\n"
    assert database.is_closed


async def test_labels_are_learned_without_a_review(lab: Lab) -> None:
    """What Airflow says of a task when it begins, it may not say any more at the next scale-down."""

    async def reads() -> list[frozenset[str]]:
        return [read for database in lab.databases for read in database.reads]

    async with lab.hook(airflow=AIRFLOW):
        assert await eventually(reads, bool) == [frozenset()]


async def test_a_database_that_is_taken_out_of_the_configuration_is_closed(lab: Lab) -> None:
    """And one that is put in is asked by the next round, without a restart."""
    async with lab.hook():
        lab.config_file.write_text(config(airflow=AIRFLOW))
        await eventually(lambda: lab.scale(0), lambda answer: bool(lab.databases))
        (database,) = lab.databases
        database.broken = True
        assert "must not be stopped is not known" in (await lab.scale(0))["message"]
        lab.config_file.write_text(config())
        ready = await eventually(lambda: lab.telemetry("/readyz"), lambda text: text == "ok\n")
        await eventually(lambda: lab.scale(0), lambda answer: database.is_closed)
        assert "worker-0 runs reports.build" in (await lab.scale(0))["message"]
    assert "metadata" not in ready


async def test_mounted_configuration_and_secret_change_without_a_restart(lab: Lab) -> None:
    """As the kubelet swaps them; a new password is a new connection, and a broken file changes nothing."""
    secret = MountedVolume(lab.directory / "secret", url="redis://:old@broker/0")
    file = lab.directory / "secret" / "url"
    volume = MountedVolume(lab.directory / "config", config_yaml=config(secret=file))
    lab.config_file = lab.directory / "config" / "config.yaml"
    async with lab.hook():
        assert "worker-0 runs" in (await lab.scale(0))["message"]
        secret.change(url="redis://:new@broker/0")
        await eventually(lambda: lab.telemetry("/readyz"), lambda _: "redis://:new@broker/0" in lab.urls)
        secret.change(url="")
        await eventually(lambda: lab.telemetry("/readyz"), lambda text: "stays in force" in text)
        assert "worker-0 runs" in (await lab.scale(0))["message"]
        secret.change(url="redis://:new@broker/0")
        volume.change(config_yaml=config(secret=file, whenBusy="proceed"))
        await eventually(lambda: lab.scale(0), lambda answer: "spec" in answer)
    assert lab.urls == ["redis://:old@broker/0", "redis://:new@broker/0"]


async def test_telemetry_shows_verdicts_and_no_secrets(lab: Lab) -> None:
    async with lab.hook():
        await lab.scale(1)
        metrics = await lab.telemetry("/metrics")
        lab.config_file.write_text("pools: nonsense")
        ready = await eventually(lambda: lab.telemetry("/readyz"), lambda text: "stays in force" in text)
    assert 'drain_hook_verdicts_total{allowed="true",namespace="default",pool="default"' in metrics
    assert 'drain_hook_phase_seconds_bucket{le="0.005",phase="plan"}' in metrics
    assert "hunter2" not in metrics + ready


async def test_it_closes_what_it_opened(lab: Lab) -> None:
    async with lab.hook():
        await lab.scale(2)
    assert lab.celery.is_closed
    leases = await lab.stage.send("GET", "/apis/coordination.k8s.io/v1/namespaces/default/leases")
    assert {
        lease["metadata"]["name"]: lease["spec"].get("holderIdentity", "") for lease in leases["items"]
    } == {
        "celery-hpa-drain-reconciler": "",
        "celery-hpa-drain-worker": "",
    }


def test_every_mistake_of_the_configuration_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, each with its path, and no traceback."""
    file = tmp_path / "config.yaml"
    file.write_text("pools: [{name: default, queues: []}]")
    code = main(["--config", str(file), "--tls-self-managed", "--port", "0", "--telemetry-port", "0"])
    printed = capsys.readouterr().err
    assert code == 2
    assert "pools[0].queues: " in printed
    assert "pools[0].broker: " in printed
    assert "Traceback" not in printed
