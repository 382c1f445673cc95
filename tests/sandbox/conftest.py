"""An API server of its own for every test that asks, with the certificates of one small cluster."""

import json
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from deploy.sandbox.apiserver.server import ApiServer, Certificates
from tests.sandbox.authority import Authority, KeyPair

RECORDINGS = Path(__file__).parent.parent / "recordings" / "kubernetes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The authorities of a cluster and the files made from them."""

    authority: Authority
    front_proxy: Authority
    certificates: Certificates
    admin: KeyPair


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the server answered."""

    status: int
    body: Any
    headers: dict[str, str]
    warnings: list[str]


class Client:
    """Plain HTTP with JSON, as one user."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """One request; `Content_Type="…"` sets a header."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        data = None if body is None else json.dumps(body)
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        async with self.session.request(method, self.url + path, data=data, headers=sent) as response:
            text = await response.text()
            parsed = json.loads(text) if "json" in response.content_type else text
            warnings = response.headers.getall("Warning", [])
            return Answer(
                status=response.status, body=parsed, headers=dict(response.headers), warnings=warnings
            )

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.send("GET", path, **headers)

    async def post(self, path: str, body: Any) -> Answer:
        return await self.send("POST", path, body)

    async def put(self, path: str, body: Any) -> Answer:
        return await self.send("PUT", path, body)

    async def patch(self, path: str, body: Any, kind: str = "merge-patch") -> Answer:
        return await self.send("PATCH", path, body, Content_Type=f"application/{kind}+json")

    async def delete(self, path: str, body: Any = None) -> Answer:
        return await self.send("DELETE", path, body)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """Certificates for a cluster; making them once is enough."""
    directory = tmp_path_factory.mktemp("pki")
    authority = Authority.create(directory / "cluster")
    front_proxy = Authority.create(directory / "front-proxy")
    serving = authority.issue("kube-apiserver", hosts=("localhost",))
    proxy_client = front_proxy.issue("front-proxy-client")
    certificates = Certificates(
        client_ca=authority.file,
        serving_certificate=serving.certificate,
        serving_key=serving.key,
        front_proxy_ca=front_proxy.file,
        front_proxy_certificate=proxy_client.certificate,
        front_proxy_key=proxy_client.key,
    )
    admin = authority.issue("lab-admin", groups=("system:masters",))
    return Cluster(authority=authority, front_proxy=front_proxy, certificates=certificates, admin=admin)


@pytest.fixture
async def server(cluster: Cluster) -> AsyncIterator[ApiServer]:
    """A running API server, empty but for what every cluster has."""
    async with ApiServer(cluster.certificates) as running:
        yield running


@pytest.fixture
async def client(cluster: Cluster, server: ApiServer) -> AsyncIterator[Client]:
    """The administrator of `server`, by client certificate."""
    context = ssl.create_default_context(cafile=str(cluster.authority.file))
    context.load_cert_chain(cluster.admin.certificate, cluster.admin.key)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        yield Client(session, server.url)


@pytest.fixture
async def stranger(cluster: Cluster, server: ApiServer) -> AsyncIterator[Client]:
    """A client of `server` without a certificate."""
    context = ssl.create_default_context(cafile=str(cluster.authority.file))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        yield Client(session, server.url)


@pytest.fixture
def recording() -> Callable[[str], Any]:
    """Reads a recording of a real cluster by its file name."""
    return lambda name: json.loads((RECORDINGS / f"{name}.json").read_text())
