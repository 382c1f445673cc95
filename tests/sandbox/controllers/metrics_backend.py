"""An external metrics API that says what the test wants, behind the aggregator."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from deploy.sandbox.apiserver.server import ApiServer
from deploy.sandbox.client import ApiClient
from deploy.sandbox.resources import API_SERVICES, NAMESPACES, SERVICES
from tests.sandbox.apiserver.backend import GROUP, PATH, RESOURCES, api_service
from tests.sandbox.conftest import Cluster
from tests.sandbox.waiting import named, until


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One request for values."""

    line: str
    headers: list[tuple[str, str]]


@dataclass(slots=True, kw_only=True)
class MetricsBackend:
    """Answers every metric with `body`, JSON unless it is a text, and remembers who asked."""

    status: int = 200
    body: Any = None
    queries: list[Query] = field(default_factory=list)

    def say(self, *values: Any) -> None:
        """Answer with items of these values."""
        self.status = 200
        self.body = {"items": [{"metricName": "queue_depth", "value": value} for value in values]}

    async def handle(self, http: web.Request) -> web.Response:
        if "/namespaces/" not in http.path:
            return web.json_response(RESOURCES if http.path == PATH else {}, status=200)
        self.queries.append(Query(line=http.raw_path, headers=list(http.headers.items())))
        if isinstance(self.body, str):
            return web.Response(text=self.body, status=self.status)
        return web.json_response(self.body, status=self.status)


@asynccontextmanager
async def registered(cluster: Cluster, api: ApiClient, server: ApiServer) -> AsyncIterator[MetricsBackend]:
    """A running backend that the aggregator has found available."""
    files = cluster.authority.serving("metrics-adapter", "metrics-adapter.lab-sys.svc")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(cluster.front_proxy.file))
    context.load_cert_chain(files.certificate, files.key)
    backend = MetricsBackend()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", backend.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        await _register(cluster, api, server, runner.addresses[0][1])
        yield backend
    finally:
        await runner.cleanup()


async def _register(cluster: Cluster, api: ApiClient, server: ApiServer, port: int) -> None:
    await api.create(NAMESPACES, {"metadata": {"name": "lab-sys"}})
    external_name = {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": 443}]}
    service = {"metadata": {"name": "metrics-adapter", "namespace": "lab-sys"}, "spec": external_name}
    await api.create(SERVICES, service)
    await api.create(API_SERVICES, api_service(cluster.authority.bundle, port))
    available = named(f"v1beta1.{GROUP}", lambda one: _condition(one, "Available") == "True")
    await until(server, API_SERVICES, available)


def _condition(document: Any, kind: str) -> str:
    conditions = document.get("status", {}).get("conditions") or []
    return next((str(one["status"]) for one in conditions if one["type"] == kind), "")
