"""A node of its own for every test, with pods made by hand."""

import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.sandbox.apiserver.server import ApiServer
from deploy.sandbox.client import ApiClient
from deploy.sandbox.node.kubelet import Kubelet
from deploy.sandbox.resources import PODS, Document
from tests.sandbox.api_clients import administrator
from tests.sandbox.conftest import Cluster
from tests.sandbox.waiting import is_ready, named, until

SAYS_ITS_PID = "import os; print(os.getpid(), flush=True)\n"
IS_UP = "open('up', 'w').close()\n"
SLEEPS = IS_UP + "import time\nwhile True: time.sleep(60)\n"
IGNORES_SIGTERM = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: None)\n" + SLEEPS
UP_PROBE = {"exec": {"command": ["test", "-e", "up"]}, "periodSeconds": 0.02}
"""Ready once the process has made the file `up`: until then it may not handle signals yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestNode:
    """A kubelet, its API server, and short ways to make pods and wait for them."""

    __test__ = False

    api: ApiClient
    server: ApiServer
    kubelet: Kubelet
    directory: Path

    async def create(self, name: str, *command: str, **more: Any) -> Document:
        """A pod with one container; `container`, `metadata` and further fields go into its document."""
        container = {"name": "main", "image": "i", **more.pop("container", {})}
        if command:
            container["command"] = list(command)
        metadata = {"name": name, "namespace": "default", **more.pop("metadata", {})}
        return await self.api.create(
            PODS, {"metadata": metadata, "spec": {"containers": [container], **more}}
        )

    async def run_python(self, name: str, source: str, **more: Any) -> Document:
        return await self.create(name, sys.executable, "-c", source, **more)

    async def run_until_up(self, name: str, source: str, **more: Any) -> Document:
        """Run a program that makes the file `up` when it is ready; the pod, once it has."""
        await self.run_python(name, source, container={"readinessProbe": UP_PROBE}, **more)
        return dict(await self.until(name, is_ready))

    async def until(self, name: str, condition: Callable[[Any], Any]) -> Any:
        """The pod of this name, once it fulfils the condition."""
        return await until(self.server, PODS, named(name, condition))

    async def until_gone(self, name: str) -> None:
        await until(self.server, PODS, lambda pods: all(pod["metadata"]["name"] != name for pod in pods))

    def log(self, name: str) -> str:
        return (self.directory / f"default_{name}.log").read_text()


@pytest.fixture
async def api(cluster: Cluster, server: ApiServer) -> AsyncIterator[ApiClient]:
    """The administrator."""
    async with administrator(cluster, server) as client:
        yield client


@pytest.fixture
async def node(api: ApiClient, server: ApiServer, tmp_path: Path) -> AsyncIterator[TestNode]:
    """A node that restarts containers without delay worth mentioning."""
    async with Kubelet(api, directory=tmp_path, restart_backoff_s=0.01, stop_grace_s=0.2) as kubelet:
        yield TestNode(api=api, server=server, kubelet=kubelet, directory=tmp_path)
