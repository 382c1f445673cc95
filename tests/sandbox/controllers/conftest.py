"""A cluster for controllers: an API server and, where a test asks, a kubelet that runs command-less pods."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.sandbox.apiserver.server import ApiServer
from deploy.sandbox.client import ApiClient
from deploy.sandbox.controllers.manager import Controllers
from deploy.sandbox.node.kubelet import Kubelet
from tests.sandbox.api_clients import administrator
from tests.sandbox.conftest import Cluster


@pytest.fixture
async def api(cluster: Cluster, server: ApiServer) -> AsyncIterator[ApiClient]:
    """The administrator."""
    async with administrator(cluster, server) as client:
        yield client


@pytest.fixture
async def node(api: ApiClient, tmp_path: Path) -> AsyncIterator[Kubelet]:
    """A node, so that pods become ready."""
    async with Kubelet(api, directory=tmp_path) as kubelet:
        yield kubelet


@pytest.fixture
async def controllers(api: ApiClient, node: Kubelet) -> AsyncIterator[Controllers]:
    """All controllers, over a node."""
    async with Controllers(api) as running:
        yield running
