"""An aggregated API server that remembers who asked what, and answers as the test says."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.sandbox.authority import Authority

GROUP = "external.metrics.k8s.io"
PATH = f"/apis/{GROUP}/v1beta1"
RESOURCES = {
    "kind": "APIResourceList",
    "apiVersion": "v1",
    "groupVersion": f"{GROUP}/v1beta1",
    "resources": [
        {
            "name": "queue_depth",
            "singularName": "",
            "namespaced": True,
            "kind": "ExternalMetricValueList",
            "verbs": ["get"],
        }
    ],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One request as it arrived."""

    line: str
    headers: list[tuple[str, str]]
    peer: str


@dataclass(slots=True, kw_only=True)
class Backend:
    """`status` answers the discovery path, `groups` (if any) the aggregated one."""

    port: int
    status: int = 200
    groups: list[Any] | None = None
    seen: list[Seen] = field(default_factory=list)

    def requests(self, path: str) -> list[dict[str, str]]:
        """The headers of all requests for a path; of repeated ones the last."""
        return [dict(seen.headers) for seen in self.seen if seen.line == f"GET {path}"]

    async def handle(self, http: web.Request) -> web.Response:
        connection = http.get_extra_info("ssl_object")
        subject = dict(entry[0] for entry in connection.getpeercert()["subject"])
        line = f"{http.method} {http.raw_path}"
        self.seen.append(Seen(line=line, headers=list(http.headers.items()), peer=subject["commonName"]))
        if http.path == PATH:
            return web.json_response(RESOURCES, status=self.status)
        if http.path == "/apis" and self.groups is not None:
            kind = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
            response = web.json_response({"items": self.groups})
            response.headers["Content-Type"] = kind
            return response
        if http.path.endswith("/queue_depth"):
            return web.json_response({"items": [], "seen": http.raw_path}, headers={"ETag": '"x"'})
        return web.json_response({"kind": "Status", "code": 404}, status=404)


def api_service(bundle: str, port: int) -> dict[str, Any]:
    """The registration of a backend on this port."""
    service = {"namespace": "lab-sys", "name": "metrics-adapter", "port": port}
    priorities = {"groupPriorityMinimum": 100, "versionPriority": 100}
    spec = {"group": GROUP, "version": "v1beta1", "service": service, "caBundle": bundle, **priorities}
    return {"metadata": {"name": f"v1beta1.{GROUP}"}, "spec": spec}


@asynccontextmanager
async def serving(
    authority: Authority, front_proxy: Authority, *, port: int = 0, **settings: Any
) -> AsyncIterator[Backend]:
    """A running backend that insists on a certificate of the front proxy."""
    files = authority.serving("metrics-adapter", "metrics-adapter.lab-sys.svc")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(front_proxy.file))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(files.certificate, files.key)
    backend = Backend(port=port, **settings)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", backend.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
    backend.port = runner.addresses[0][1]
    try:
        yield backend
    finally:
        await runner.cleanup()
