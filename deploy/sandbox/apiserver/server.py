"""The emulated kube-apiserver as one object: start it, stop it, ask it where it is."""

import asyncio
import json
import logging
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from aiohttp import web

from deploy.sandbox.apiserver import frontpage
from deploy.sandbox.apiserver.admission import ValidatingAdmission
from deploy.sandbox.apiserver.aggregation import Aggregator
from deploy.sandbox.apiserver.api import Api, verb_of
from deploy.sandbox.apiserver.audit import AuditEvent
from deploy.sandbox.apiserver.authentication import (
    Tokens,
    User,
    authenticate,
    impersonated,
    service_account_of,
)
from deploy.sandbox.apiserver.authorization import Attributes, Authorizer, refusal
from deploy.sandbox.apiserver.availability import is_available
from deploy.sandbox.apiserver.backends import Backends
from deploy.sandbox.apiserver.bootstrap_policy import bootstrap_policy
from deploy.sandbox.apiserver.rbac import RoleBasedAccess
from deploy.sandbox.apiserver.request_paths import Target, parse_path
from deploy.sandbox.apiserver.responses import json_response
from deploy.sandbox.apiserver.store import Key, ObjectStore
from deploy.sandbox.apiserver.strategy import new_object
from deploy.sandbox.apiserver.webhooks import WebhookClient
from deploy.sandbox.apiserver.writing import Writer
from deploy.sandbox.errors import ApiError, forbidden, internal, unavailable
from deploy.sandbox.resources import CONFIGMAPS, NAMESPACES, Document, Resource

log = logging.getLogger(__name__)

Trouble = Callable[[web.Request], Awaitable[web.StreamResponse | None]]
"""Answers some requests, delays others, and returns None for those that are served as usual."""

REQUEST_TIMEOUT_S = 34.0
SELECTING = ("list", "watch", "deletecollection")
BY_NAME = "metadata.name"
FIRST_NAMESPACES = ("default", "kube-system")


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """The PEM files the API server needs."""

    client_ca: Path
    """Who signs client certificates; also what clients verify the server with."""
    serving_certificate: Path
    serving_key: Path
    front_proxy_ca: Path
    front_proxy_certificate: Path
    front_proxy_key: Path


class ApiServer:
    """`async with ApiServer(certificates) as server:` serves until the block ends, at `url`.

    `latency_s` delays every request, its roles and bindings decide on them, `tokens` gives out bearer tokens.
    `honours_costs` is the feature gate PodDeletionCost.
    `trouble` may answer in place of the server, as one that is overloaded or restarted would.
    """

    def __init__(
        self,
        certificates: Certificates,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        latency_s: float = 0.0,
        history_limit: int = 10_000,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        honours_costs: bool = True,
    ) -> None:
        self.host = host
        self.port = port
        self.latency_s = latency_s
        self.trouble: Trouble | None = None
        self.tokens = Tokens()
        self.store = ObjectStore(history_limit=history_limit)
        self._authorizer: Authorizer = RoleBasedAccess(self.store)
        self.audit: deque[AuditEvent] = deque(maxlen=1000)
        self._certificates = certificates
        self._request_timeout_s = request_timeout_s
        self._honours_costs = honours_costs
        self._doors = AsyncExitStack()

    @property
    def url(self) -> str:
        """Where it is served."""
        return f"https://{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        self._publish_first_objects()
        try:
            await self._open_doors()
            await self._serve()
        except BaseException:
            await self._doors.aclose()
            raise
        log.info("The API server is at %s.", self.url)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._doors.aclose()

    async def _serve(self) -> None:
        app = web.Application(client_max_size=3 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        # A client that goes away takes its request with it, as in the real server.
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
        await runner.setup()
        self._doors.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, self.host, self.port, ssl_context=self._serving_context())
        await site.start()
        self.port = runner.addresses[0][1]

    async def _open_doors(self) -> None:
        certificates = self._certificates
        webhooks = WebhookClient(self.store)
        self._doors.push_async_callback(webhooks.close)
        self._backends = Backends(
            self.store,
            certificate=certificates.front_proxy_certificate,
            key=certificates.front_proxy_key,
        )
        self._doors.push_async_callback(self._backends.close)
        self._aggregator = Aggregator(self.store, self._backends, _now)
        await self._aggregator.start()
        self._doors.push_async_callback(self._aggregator.close)
        admission = ValidatingAdmission(self.store, webhooks)
        writer = Writer(self.store, admission, _now, honours_costs=self._honours_costs)
        self._api = Api(
            store=self.store,
            writer=writer,
            authorizer=self._authorizer,
            tokens=self.tokens,
            audit=self.audit,
            request_timeout_s=self._request_timeout_s,
        )

    def _serving_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(
            ssl.Purpose.CLIENT_AUTH, cafile=str(self._certificates.client_ca)
        )
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_cert_chain(self._certificates.serving_certificate, self._certificates.serving_key)
        return context

    def _publish_first_objects(self) -> None:
        for name in FIRST_NAMESPACES:
            self._publish(NAMESPACES, "", {"metadata": {"name": name}})
        proxy_ca = self._certificates.front_proxy_ca.read_text()
        data = {
            "client-ca-file": self._certificates.client_ca.read_text(),
            "requestheader-allowed-names": json.dumps(["front-proxy-client"]),
            "requestheader-client-ca-file": proxy_ca,
            "requestheader-extra-headers-prefix": json.dumps(["X-Remote-Extra-"]),
            "requestheader-group-headers": json.dumps(["X-Remote-Group"]),
            "requestheader-username-headers": json.dumps(["X-Remote-User"]),
        }
        metadata = {"name": "extension-apiserver-authentication"}
        self._publish(CONFIGMAPS, "kube-system", {"metadata": metadata, "data": data})
        for resource, namespace, document in bootstrap_policy():
            self._publish(resource, namespace, document)

    def _publish(self, resource: Resource, namespace: str, document: Document) -> None:
        key = Key(resource, namespace, document["metadata"]["name"])
        if self.store.get(key) is None:
            self.store.put(key, new_object(resource, document, namespace=namespace, now=_now()))

    async def _answer(self, http: web.Request) -> web.StreamResponse:
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        if self.trouble is not None and (answer := await self.trouble(http)) is not None:
            return answer
        try:
            return await self._dispatch(http)
        except ApiError as error:
            return _refused(error)
        except Exception:
            log.exception("The API server failed on %s %s.", http.method, http.path)
            return json_response(internal("see the API server's log").status(), status=500)

    async def _dispatch(self, http: web.Request) -> web.StreamResponse:
        user = self._user(http)
        target = parse_path(http.raw_path.partition("?")[0])
        self._require(user, _attributes(http, target))
        if service := self._service_behind(http):
            if not is_available(service):
                raise unavailable()
            return await self._backends.proxy(http, user, service)
        if target is not None:
            return await self._api.handle(http, user, target)
        return frontpage.answer(http, self._aggregator)

    def _service_behind(self, http: web.Request) -> Document | None:
        parts = http.path.split("/")
        return self._aggregator.service(parts[2], parts[3]) if parts[1] == "apis" and len(parts) > 3 else None

    def _user(self, http: web.Request) -> User:
        user = authenticate(_peer_certificate(http), http.headers, self.tokens)
        other = impersonated(http.headers)
        for attributes in _impersonations(other) if other else ():
            self._require(user, attributes)
        return other or user

    def _require(self, user: User, attributes: Attributes) -> None:
        """Raises ApiError 403 for what the user may not do."""
        decision = self._authorizer.authorize(user, attributes)
        if decision.allowed:
            return
        sentence = refusal(user, attributes, decision.reason)
        if attributes.path:
            raise ApiError(403, "Forbidden", f"forbidden: {sentence}")
        resource = Resource(
            group=attributes.group, version=attributes.version, plural=attributes.resource, kind=""
        )
        raise forbidden(resource, attributes.name, sentence)


def _refused(error: ApiError) -> web.Response:
    response = json_response(error.status(), status=error.code, warnings=error.warnings)
    if retry_after := error.details.get("retryAfterSeconds"):
        response.headers["Retry-After"] = str(retry_after)
    return response


def _now() -> datetime:
    return datetime.now(UTC)


def _peer_certificate(http: web.Request) -> bytes | None:
    connection = http.get_extra_info("ssl_object")
    certificate: bytes | None = connection.getpeercert(binary_form=True) if connection else None
    return certificate


def _attributes(http: web.Request, target: Target | None) -> Attributes:
    if target is None:
        return Attributes(verb=http.method.lower(), path=http.path)
    verb = verb_of(http, target)
    return Attributes(
        verb=verb,
        group=target.group,
        version=target.version,
        resource=target.plural,
        subresource=target.subresource,
        namespace=target.namespace,
        name=target.name or (_selected_name(http) if verb in SELECTING else ""),
    )


def _selected_name(http: web.Request) -> str:
    """A list of one object by its name is authorized as a request for that object."""
    for term in http.query.get("fieldSelector", "").split(","):
        field, _, value = term.partition("=")
        if field == BY_NAME:
            return value.removeprefix("=")
    return ""


def _impersonations(other: User) -> Iterator[Attributes]:
    """What one must be allowed who poses as another."""
    account = service_account_of(other.name)
    namespace, name = account or ("", other.name)
    kind = "serviceaccounts" if account else "users"
    yield Attributes(verb="impersonate", version="v1", resource=kind, namespace=namespace, name=name)
    if account is None:
        for group in other.groups[:-1]:
            yield Attributes(verb="impersonate", version="v1", resource="groups", name=group)
