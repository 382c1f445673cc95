"""A running API over real TLS, and how to ask it as kube-apiserver, the HPA controller and kubectl do."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from metrics_adapter.api import Others, create_api
from metrics_adapter.authentication import Authenticator
from metrics_adapter.authorization import Authorizer
from metrics_adapter.freshness import PoolState
from shared.certificates import KeyPair, make_leaf, save_key_pair
from shared.serving import Health, health_routes
from shared.tls import ReloadingTls
from tests.fakes.kubernetes import FakeCluster
from tests.metrics_adapter.certificates import Authority

GROUP = "/apis/external.metrics.k8s.io/v1beta1"
DEMAND = f"{GROUP}/namespaces/airflow/celery_demand"
ADMIN = (("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters"))
HPA = (
    ("X-Remote-User", "system:serviceaccount:kube-system:horizontal-pod-autoscaler"),
    ("X-Remote-Group", "system:serviceaccounts"),
)
Headers = Iterable[Sequence[str]]


@dataclass
class FixedPools:
    """What a collector knows, set by the test."""

    known: list[PoolState] = field(default_factory=list)
    max_age_s: float = 60.0
    looked_at: int = 0

    @property
    def revision(self) -> int:
        """The test may have changed anything."""
        self.looked_at += 1
        return self.looked_at

    def states(self) -> Iterable[PoolState]:
        return self.known


@dataclass
class Requests:
    seen: list[tuple[str, int]] = field(default_factory=list)

    def requested(self, *, kind: str, code: int) -> None:
        self.seen.append((kind, code))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    code: int
    headers: Any
    body: Any

    @property
    def items(self) -> list[tuple[dict[str, str], str]]:
        """Labels and value of each."""
        return [(item["metricLabels"], item["value"]) for item in self.body["items"]]


@dataclass(kw_only=True)
class Adapter:
    """A running API, and how to ask it."""

    authority: Authority
    directory: Path
    pools: FixedPools = field(default_factory=FixedPools)
    cluster: FakeCluster = field(default_factory=FakeCluster)
    requests: Requests = field(default_factory=Requests)
    others: Others | None = None
    url: str = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        trust = self.authority.trust()
        app = create_api(
            pools=self.pools,
            authenticator=Authenticator(trust=lambda: trust, token_reviews=self.cluster),
            authorizer=Authorizer(self.cluster),
            observer=self.requests,
            others=self.others,
        )
        app.add_routes(health_routes(Health, tells_details=False))
        certificate, key = self._save(
            "serving", make_leaf(self.authority.client_ca, common_name="adapter", addresses=["127.0.0.1"])
        )
        tls = ReloadingTls(certificate_file=certificate, key_file=key, client_ca=lambda: trust.ca_bundle)
        runner = web.AppRunner(app, max_headers=4096)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls.context)
        await site.start()
        self.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield
        finally:
            await runner.cleanup()

    async def ask(
        self, path: str, *, method: str = "GET", headers: Headers = ADMIN, certificate: KeyPair | None = None
    ) -> Answer:
        """As the front proxy, unless another certificate is given."""
        return await self.ask_bare(
            path,
            method=method,
            headers=headers,
            certificate=certificate or self.authority.front_proxy(),
        )

    async def ask_bare(
        self, path: str, *, method: str = "GET", headers: Headers = (), certificate: KeyPair | None = None
    ) -> Answer:
        """Without a certificate, unless one is given."""
        connector = aiohttp.TCPConnector(ssl=self._client_context(certificate))
        async with (
            aiohttp.ClientSession(connector=connector, auto_decompress=False) as session,
            session.request(method, self.url + path, headers=[(k, v) for k, v in headers]) as response,
        ):
            body = await response.read()
            is_json = response.content_type == "application/json" and body
            return Answer(
                code=response.status,
                headers=response.headers,
                body=json.loads(body) if is_json else body.decode(),
            )

    def _client_context(self, certificate: KeyPair | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.authority.client_ca.certificate_pem.decode())
        if certificate:
            context.load_cert_chain(*self._save("client", certificate))
        return context

    def _save(self, name: str, pair: KeyPair) -> tuple[Path, Path]:
        files = (self.directory / f"{name}.crt", self.directory / f"{name}.key")
        save_key_pair(pair, certificate_file=files[0], key_file=files[1])
        return files


def is_status(answer: Answer, code: int, reason: str) -> bool:
    """A whole metav1.Status, and no Retry-After: client-go would sleep inside the HPA controller."""
    wanted = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return (
        answer.code == answer.body["code"] == code
        and answer.body["reason"] == reason
        and wanted.items() <= answer.body.items()
        and bool(answer.body["message"])
        and "Retry-After" not in answer.headers
    )


def sent_headers(request: Any) -> list[tuple[str, str]]:
    """The headers of a recorded request, but for those that belong to its connection."""
    return [(name, value) for name, value in request["headers"] if name != "Host"]
