"""The whole adapter behind an emulated kube-apiserver; only Celery is a fake."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from metrics_adapter.__main__ import main
from shared.certificates import make_ca
from tests.fakes.celery import fake_worker
from tests.metrics_adapter.lab import API_SERVICE, Lab, config, is_served, until
from tests.metrics_adapter.provider import VALUES, SecondProvider
from tests.shared.mounted_volume import MountedVolume


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


async def test_mounted_configuration_and_secret_change_without_a_restart(lab: Lab) -> None:
    """As the kubelet swaps them; a new password is a new connection, and a broken file changes nothing."""
    secret = MountedVolume(lab.directory / "secret", url="redis://:old@broker/0")
    file = lab.directory / "secret" / "url"
    volume = MountedVolume(lab.directory / "config", config_yaml=config(secret=file))
    lab.config_file = lab.directory / "config" / "config.yaml"
    async with lab.running():
        await until(lambda: lab.metric("celery_demand"), is_served)
        secret.change(url="redis://:new@broker/0")
        await until(lambda: lab.telemetry("/readyz"), lambda _: len(lab.urls) == 2)
        assert lab.urls == ["redis://:old@broker/0", "redis://:new@broker/0"]
        volume.change(config_yaml=config("renamed", secret=file))
        await until(
            lambda: lab.metric("celery_demand"),
            lambda answer: is_served(answer) and answer["items"][0]["metricLabels"]["pool"] == "renamed",
        )
        secret.change(url="")
        await until(lambda: lab.telemetry("/readyz"), lambda text: "stays in force" in text)
        assert is_served(await lab.metric("celery_demand"))
        assert lab.urls[-1] == "redis://:new@broker/0"


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
