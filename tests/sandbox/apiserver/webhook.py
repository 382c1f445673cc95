"""A validating webhook that remembers what it was asked and answers what the test says."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.sandbox.authority import Authority

SERVICE = {"namespace": "lab-sys", "name": "drain-webhook", "path": "/validate"}
RULE = {
    "apiGroups": ["apps"],
    "apiVersions": ["v1"],
    "operations": ["UPDATE"],
    "resources": ["deployments/scale"],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request as it arrived."""

    path: str
    headers: list[tuple[str, str]]
    review: Any

    @property
    def request(self) -> Any:
        """What is under review."""
        return self.review["request"]

    @property
    def replicas(self) -> tuple[int, int]:
        """From, to."""
        return tuple(self.request[part]["spec"].get("replicas", 0) for part in ("oldObject", "object"))


def allow(uid: str) -> dict[str, Any]:
    """A review's answer that lets the write through."""
    return answered(uid, allowed=True)


def answered(uid: str, **response: Any) -> dict[str, Any]:
    """A review's answer."""
    return {
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "response": {"uid": uid, **response},
    }


@dataclass(slots=True, kw_only=True)
class Webhook:
    """`during` runs while the API server waits; `answer` makes the body from the review's uid."""

    port: int
    bundle: str
    calls: list[Call] = field(default_factory=list)
    answer: Callable[[str], Any] = allow
    status: int = 200
    content_type: str = "application/json"
    during: Callable[[Call], Awaitable[None]] | None = None

    async def handle(self, http: web.Request) -> web.Response:
        call = Call(path=http.path_qs, headers=list(http.headers.items()), review=await http.json())
        self.calls.append(call)
        if self.during is not None:
            await self.during(call)
        body = self.answer(call.request["uid"])
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(text=text, status=self.status, content_type=self.content_type)

    def configuration(self, **settings: Any) -> dict[str, Any]:
        """A configuration that sends scales of Deployments here."""
        webhook = {
            "name": "drain.lab.example",
            "clientConfig": {"service": SERVICE | {"port": self.port}, "caBundle": self.bundle},
            "rules": [RULE],
            "sideEffects": "NoneOnDryRun",
            "admissionReviewVersions": ["v1"],
        }
        return {"metadata": {"name": "lab-wh"}, "webhooks": [webhook | settings]}


async def never(_: Call) -> None:
    """Keeps the API server waiting until it goes away."""
    await asyncio.Event().wait()


@asynccontextmanager
async def serving(authority: Authority) -> AsyncIterator[Webhook]:
    """A running webhook with a certificate for its Service's name."""
    files = authority.serving("drain-webhook", "drain-webhook.lab-sys.svc")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.certificate, files.key)
    webhook = Webhook(port=0, bundle=authority.bundle)
    app = web.Application()
    app.router.add_post("/validate", webhook.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    webhook.port = runner.addresses[0][1]
    try:
        yield webhook
    finally:
        await runner.cleanup()
