"""An API server of its own for every test that asks, with the certificates of one small cluster."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from deploy.sandbox.apiserver.server import ApiServer, Certificates
from tests.sandbox.authority import Authority, Files
from tests.sandbox.http_client import Client, connected


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The authorities of a cluster and the files made from them."""

    authority: Authority
    front_proxy: Authority
    certificates: Certificates
    admin: Files


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """Certificates for a cluster; making them once is enough."""
    directory = tmp_path_factory.mktemp("pki")
    authority = Authority.create(directory / "cluster")
    front_proxy = Authority.create(directory / "front-proxy")
    serving = authority.serving("kube-apiserver", "localhost")
    proxy_client = front_proxy.client("front-proxy-client")
    certificates = Certificates(
        client_ca=authority.file,
        serving_certificate=serving.certificate,
        serving_key=serving.key,
        front_proxy_ca=front_proxy.file,
        front_proxy_certificate=proxy_client.certificate,
        front_proxy_key=proxy_client.key,
    )
    admin = authority.client("lab-admin", "system:masters")
    return Cluster(authority=authority, front_proxy=front_proxy, certificates=certificates, admin=admin)


@pytest.fixture
async def server(cluster: Cluster) -> AsyncIterator[ApiServer]:
    """A running API server, empty but for what every cluster has."""
    async with ApiServer(cluster.certificates) as running:
        yield running


@pytest.fixture
async def client(cluster: Cluster, server: ApiServer) -> AsyncIterator[Client]:
    """The administrator of `server`, by client certificate."""
    async with connected(server.url, cluster.authority.file, cluster.admin) as admin:
        yield admin


@pytest.fixture
async def stranger(cluster: Cluster, server: ApiServer) -> AsyncIterator[Client]:
    """A client of `server` without a certificate."""
    async with connected(server.url, cluster.authority.file) as somebody:
        yield somebody
