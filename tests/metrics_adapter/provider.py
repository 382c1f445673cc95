"""Another provider of external metrics over real TLS, as KEDA's, with what a real one was recorded to say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from metrics_adapter.delegate import connect
from shared.certificates import KeyPair, make_leaf, save_key_pair
from shared.pools import Delegate
from shared.tls import ReloadingTls
from tests.sandbox.apiserver.backend import RESOURCES

GROUP = "/apis/external.metrics.k8s.io/v1beta1"
HOST = "keda-metrics.keda.svc"
TOKEN = "Bearer our-own-token"

VALUES: dict[str, Any] = {
    "kind": "ExternalMetricValueList",
    "apiVersion": "external.metrics.k8s.io/v1beta1",
    "metadata": {},
    "items": [
        {
            "metricName": "queue_depth",
            "metricLabels": {},
            "timestamp": "2024-01-01T00:00:00Z",
            "value": "10",
        }
    ],
}


def status(code: int, reason: str, message: str) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


def values_of(value: str) -> dict[str, Any]:
    return VALUES | {"items": [VALUES["items"][0] | {"value": value}]}


@dataclass(kw_only=True)
class SecondProvider:
    """Answers with `reply`, or never when `is_stuck`; remembers what it was asked."""

    ca: KeyPair
    directory: Path
    host: str = HOST
    reply: Any = field(default_factory=lambda: VALUES)
    code: int = 200
    resources: Any = field(default_factory=lambda: RESOURCES)
    is_stuck: bool = False
    extra_headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    port: int = 0

    def delegate(self, **fields: Any) -> Delegate:
        """How a configuration names it."""
        trust = {"ca": self.ca.certificate_pem.decode()}
        if "caFile" in fields or "insecureSkipTLSVerify" in fields or "ca" in fields:
            trust = {}
        name, namespace, _ = HOST.split(".")
        return Delegate.model_validate(
            {
                "namespace": namespace,
                "name": name,
                "address": "127.0.0.1",
                "port": self.port,
                **trust,
                **fields,
            }
        )

    def serve_under(self, ca: KeyPair) -> None:
        """From the next connection on, with a certificate of another CA."""
        leaf = make_leaf(ca, common_name=self.host, names=[self.host])
        save_key_pair(leaf, certificate_file=self._certificate, key_file=self._key)

    @property
    def _certificate(self) -> Path:
        return self.directory / "provider.crt"

    @property
    def _key(self) -> Path:
        return self.directory / "provider.key"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.serve_under(self.ca)
        tls = ReloadingTls(certificate_file=self._certificate, key_file=self._key)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=tls.context)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield
        finally:
            await runner.cleanup()

    async def _answer(self, http: web.Request) -> web.Response:
        self.asked.append((http.raw_path, dict(http.headers)))
        if self.is_stuck:
            await asyncio.Event().wait()
        if http.path == GROUP:
            return _response(self.resources)
        return _response(self.reply, status=self.code, headers=self.extra_headers)


def _response(content: Any, **terms: Any) -> web.Response:
    """Bytes as they are, all else as JSON."""
    if isinstance(content, bytes):
        return web.Response(body=content, **terms)
    return web.json_response(content, **terms)


async def our_token() -> str | None:
    return TOKEN


async def no_token() -> str | None:
    return None


def to(delegate: Delegate) -> Any:
    return connect(delegate, authorization=our_token)
