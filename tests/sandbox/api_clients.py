"""Clients of a test's API server as the sandbox's own components use them."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from deploy.sandbox.apiserver.server import ApiServer
from deploy.sandbox.client import ApiClient
from tests.sandbox.conftest import Cluster


@asynccontextmanager
async def administrator(cluster: Cluster, server: ApiServer) -> AsyncIterator[ApiClient]:
    """May do everything, by its client certificate."""
    tls = ssl.create_default_context(cafile=str(cluster.authority.file))
    tls.load_cert_chain(cluster.admin.certificate, cluster.admin.key)
    async with ApiClient(server.url, tls=tls) as client:
        yield client


@asynccontextmanager
async def service_account(cluster: Cluster, server: ApiServer, name: str) -> AsyncIterator[ApiClient]:
    """A service account of kube-system, by its token."""
    tls = ssl.create_default_context(cafile=str(cluster.authority.file))
    token = server.tokens.issue_for_service_account("kube-system", name)
    async with ApiClient(server.url, tls=tls, token=token) as client:
        yield client
