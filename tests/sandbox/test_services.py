"""Both services on the emulated control plane: registered while they run, and not a moment longer."""

import asyncio
import os
import select
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as NoBroker

from deploy.sandbox import manifests
from deploy.sandbox.cluster import ROOT, broker, submit
from deploy.sandbox.control_plane import ControlPlane, control_plane
from deploy.sandbox.demo.story import SHORT
from deploy.sandbox.errors import ApiError
from deploy.sandbox.processes import ServiceFailed
from deploy.sandbox.resources import DEPLOYMENTS, RESOURCES, Document
from deploy.sandbox.services import apply, services

NOWHERE = "redis://127.0.0.1:1/0"
STARTS_A_BROKER = """
import asyncio, sys
from pathlib import Path
from deploy.sandbox.cluster import broker

async def main():
    async with broker(Path(sys.argv[1])) as url:
        print(url, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
REGISTRATIONS = [r for r in RESOURCES if r.kind in {"APIService", "ValidatingWebhookConfiguration"}]


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with control_plane(tmp_path) as running:
        yield running


def running_on(plane: ControlPlane, configuration: Document, **more: Any) -> Any:
    return services(
        plane.kube,
        directory=plane.directory,
        configuration=configuration,
        adapter_kubeconfig=plane.kubeconfig_of(manifests.SYSTEM_NAMESPACE, manifests.ADAPTER_SERVICE),
        hook_kubeconfig=plane.kubeconfig_of(manifests.SYSTEM_NAMESPACE, manifests.HOOK_SERVICE),
        **more,
    )


def configuration(**changes: Any) -> Document:
    pool = manifests.pool(name="default", workload="worker", broker_url=NOWHERE, slots=1, queues=("default",))
    return manifests.configuration(pool | changes)


def mode(path: Path) -> int:
    return path.stat().st_mode


async def registered(plane: ControlPlane) -> set[str]:
    """Names of what sends requests to us."""
    listings = [await plane.kube.list(resource) for resource in REGISTRATIONS]
    return {one["metadata"]["name"] for listing in listings for one in listing["items"]}


async def test_services_are_registered_while_they_run(plane: ControlPlane) -> None:
    """A webhook that nobody answers would refuse every scale-down of the cluster."""
    async with running_on(plane, configuration()) as both:
        assert await registered(plane) == {"celery-hpa-drain", "v1beta1.external.metrics.k8s.io"}
        assert mode(both.configuration) & 0o077 == 0, (
            "it holds the broker's URL, and that may hold a password"
        )
    assert await registered(plane) == set()


async def test_the_webhook_can_be_left_out(plane: ControlPlane) -> None:
    async with running_on(plane, configuration(), with_webhook=False):
        assert await registered(plane) == {"v1beta1.external.metrics.k8s.io"}
    assert await registered(plane) == set()


async def test_a_service_that_cannot_start_says_why_and_nothing_is_registered(plane: ControlPlane) -> None:
    with pytest.raises(ServiceFailed, match=r"(?s)metrics_adapter ended with 2:.*slotsPerWorker"):
        async with running_on(plane, configuration(slotsPerWorker=0)):
            pytest.fail("it cannot serve")
    assert await registered(plane) == set()


async def test_what_is_applied_again_is_changed(plane: ControlPlane) -> None:
    def deployment(replicas: int) -> Document:
        return manifests.worker_deployment(
            name="worker", replicas=replicas, command=["sleep", "60"], environment={}, grace_seconds=0
        )

    first = await apply(plane.kube, deployment(0))
    second = await apply(plane.kube, deployment(1))
    assert first["metadata"]["uid"] == second["metadata"]["uid"]
    found = await plane.kube.get(DEPLOYMENTS, manifests.NAMESPACE, "worker")
    assert found["spec"]["replicas"] == 1


async def test_what_the_api_server_refuses_is_told(plane: ControlPlane) -> None:
    """Only "it is there" is no refusal."""
    with pytest.raises(ApiError, match="not found"):
        await apply(
            plane.kube,
            manifests.worker_deployment(
                name="worker", replicas=0, command=[], environment={}, grace_seconds=0, namespace="nowhere"
            ),
        )


async def test_the_broker_is_there_until_the_end(tmp_path: Path) -> None:
    """Every submitted task is a message of its own in the queue that was named."""
    async with broker(tmp_path) as url:
        ids = submit(url, [(SHORT, 0.1), (SHORT, 0.1)], queue="reports")
        async with Redis.from_url(url) as valkey:
            assert await valkey.llen("reports") == len(ids) == 2
    async with Redis.from_url(url) as valkey:
        with pytest.raises(NoBroker):
            await valkey.ping()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent is gone")
async def test_the_broker_ends_with_whoever_started_it(tmp_path: Path) -> None:
    """A demo that is killed with SIGKILL leaves no server behind."""
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", STARTS_A_BROKER, str(tmp_path)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert parent.stdout is not None
    url = (await parent.stdout.readline()).decode().strip()
    async with Redis.from_url(url) as valkey:
        server = os.pidfd_open((await valkey.info("server"))["process_id"])
    try:
        parent.send_signal(signal.SIGKILL)
        await parent.wait()
        ended, _, _ = await asyncio.to_thread(select.select, [server], [], [], 20)
        assert ended == [server]
    finally:
        os.close(server)
