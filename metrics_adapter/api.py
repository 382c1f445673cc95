"""The HTTP side of external.metrics.k8s.io: who may ask, what is asked for, and an answer from memory."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import Any, Protocol

from aiohttp import web

from metrics_adapter.answers import EVERY_NAMESPACE, Answers, Pools
from metrics_adapter.authentication import Authenticator
from metrics_adapter.authorization import Authorizer
from metrics_adapter.catalogue import METRICS, metric_named
from metrics_adapter.delegate import VIA
from metrics_adapter.delegate_answers import Answer, is_path_segment
from metrics_adapter.documents import (
    JSON,
    VERSION_PATH,
    Discovery,
    Document,
    aggregated_discovery,
    documents,
    json_bytes,
)
from metrics_adapter.negotiation import accepts_json, discovery_version
from metrics_adapter.statuses import (
    ApiError,
    bad_request,
    forbidden_metric,
    forbidden_path,
    internal_error,
    method_not_allowed,
    not_acceptable,
    not_found,
    unknown_metric,
)
from metrics_adapter.users import User
from shared.errors import KubernetesError, SelectorSyntaxError
from shared.serving import HEALTH_PATHS
from shared.tls import presented_by

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Others(Protocol):
    """Whoever answers for metrics that are not ours."""

    @property
    def discovery(self) -> Discovery | None:
        """Our metrics and theirs, known without asking; None while there are none of theirs."""

    async def read(self, *, namespace: str, metric: str, selector: str) -> Answer | None:
        """What they answer, None when nobody is to be asked; raises ApiError 503 without an answer."""


class RequestObserver(Protocol):
    """Who wants to know of each request."""

    def requested(self, *, kind: str, code: int) -> None: ...


ANSWERS = web.AppKey("ANSWERS", Answers)
AUTHENTICATOR = web.AppKey("AUTHENTICATOR", Authenticator)
AUTHORIZER = web.AppKey("AUTHORIZER", Authorizer)
OBSERVER = web.AppKey("OBSERVER", RequestObserver)
OTHERS = web.AppKey("OTHERS", Others)
USER = web.RequestKey("USER", User)


def create_api(
    *,
    pools: Pools,
    authenticator: Authenticator,
    authorizer: Authorizer,
    observer: RequestObserver,
    others: Others | None = None,
) -> web.Application:
    """The API; paths of HEALTH_PATHS may be added to it and are open to everybody."""
    app = web.Application(middlewares=[observed, with_statuses, authenticated, negotiated])
    app[ANSWERS], app[OBSERVER] = Answers(pools), observer
    app[AUTHENTICATOR], app[AUTHORIZER] = authenticator, authorizer
    if others is not None:
        app[OTHERS] = others
    for path, document in documents(version=version("celery-hpa")).items():
        handler = _handler(path, document)
        for each in {path, f"{path.rstrip('/')}/"}:
            app.router.add_get(each, handler)
    app.router.add_get(f"{VERSION_PATH}/namespaces/{{namespace}}/{{metric}}", read_metric)
    return app


@web.middleware
async def observed(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count the request; every error is a response by now."""
    response = await handler(request)
    request.app[OBSERVER].requested(kind=_kind(request.path), code=response.status)
    return response


@web.middleware
async def with_statuses(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error becomes a Status: of anything else clients show only a riddle."""
    try:
        return await handler(request)
    except ApiError as error:
        return _json(error.document, status=error.code)
    except web.HTTPNotFound:
        return _json(not_found().document, status=404)
    except web.HTTPMethodNotAllowed:
        return _json(method_not_allowed().document, status=405)
    except web.HTTPException as error:
        return _json(bad_request(error.reason).document, status=error.status)
    except KubernetesError as error:
        # Nobody could tell who asks or what they may do: closed is the safe way to fail. The log has it once
        # already, of whoever asked the API server.
        log.debug("A request could not be authorized, the Kubernetes API failed: %s", error)
        problem = internal_error("the API server could not say who may read this")
        return _json(problem.document, status=problem.code)
    except Exception:
        log.exception("%s %s failed.", request.method, request.path)
        problem = internal_error("this should not occur; the adapter's log says more")
        return _json(problem.document, status=problem.code)


@web.middleware
async def authenticated(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Find out who asks. What is no metric is for everybody with a name: it says nothing secret."""
    if request.path in HEALTH_PATHS:
        return await handler(request)
    user = await request.app[AUTHENTICATOR].authenticate(request.headers, presented_by(request.transport))
    if user.is_anonymous:
        raise forbidden_path(user, request.path)
    request[USER] = user
    return await handler(request)


@web.middleware
async def negotiated(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.path not in HEALTH_PATHS and not accepts_json(",".join(request.headers.getall("Accept", []))):
        raise not_acceptable()
    return await handler(request)


async def read_metric(request: web.Request) -> web.StreamResponse:
    """The values of a metric in a namespace, of the pools that the selector selects."""
    namespace, name = request.match_info["namespace"], request.match_info["metric"]
    metric = metric_named(name)
    # What is passed on keeps its case: the other provider looks for that very name, and so must RBAC.
    name = metric.name if metric else name
    await _authorize(request, metric=name, namespace=namespace)
    _check_parameters(request.query)
    if metric is None:
        return await _read_elsewhere(request, namespace=namespace, name=name)
    selector = request.query.get("labelSelector", "")
    try:
        body = request.app[ANSWERS].body(metric, namespace=namespace, selector=selector)
    except SelectorSyntaxError as error:
        raise bad_request(f"unable to parse requirement: {error}") from error
    return web.Response(body=body, content_type=JSON)


async def _read_elsewhere(request: web.Request, *, namespace: str, name: str) -> web.StreamResponse:
    """A metric that is not ours. One that we have passed on already, and that came back, is nobody's."""
    others = _others(request)
    if others is not None and is_path_segment(name) and is_path_segment(namespace):
        selector = request.query.get("labelSelector", "")
        if answer := await others.read(namespace=namespace, metric=name, selector=selector):
            return web.Response(body=answer.body, status=answer.code, content_type=JSON)
    raise unknown_metric(name, known=METRICS)


async def _authorize(request: web.Request, *, metric: str, namespace: str) -> None:
    user = request[USER]
    asked_for = "" if namespace == EVERY_NAMESPACE else namespace
    if not await request.app[AUTHORIZER].may_read(user, metric=metric, namespace=asked_for):
        raise forbidden_metric(user, metric=metric, namespace=asked_for)


def _check_parameters(query: Mapping[str, str]) -> None:
    """Others, as limit, pretty or timeoutSeconds, change nothing here."""
    if query.get("watch", "false").lower() not in ("false", "0"):
        raise method_not_allowed()
    for term in filter(None, query.get("fieldSelector", "").split(",")):
        if not term.startswith("metadata.name"):
            raise bad_request(f"{term} is no field selector for metrics: only metadata.name is")


def _handler(path: str, document: Document) -> Handler:
    return {"/apis": _apis, VERSION_PATH: _resources}.get(path, _fixed)(document)


def _resources(ours: Document) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        everybody = _of_everybody(request)
        return _document(request, everybody.resources if everybody else ours)

    return handler


def _of_everybody(request: web.Request) -> Discovery | None:
    """None where all metrics are ours, and for those who pass requests on to us."""
    others = _others(request)
    return None if others is None else others.discovery


def _others(request: web.Request) -> Others | None:
    """Nobody for a request that an adapter has passed on.

    Two adapters that are each other's delegates would tell each other for ever of names that are gone.
    """
    is_passed_on = any(VIA in via for via in request.headers.getall("Via", []))
    return None if is_passed_on else request.app.get(OTHERS)


def _fixed(document: Document) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        return _document(request, document)

    return handler


def _apis(legacy: Document) -> Handler:
    ours = aggregated_discovery()

    async def handler(request: web.Request) -> web.StreamResponse:
        everybody = _of_everybody(request)
        by_version = everybody.aggregated if everybody else ours
        wanted = discovery_version(",".join(request.headers.getall("Accept", [])))
        response = _document(request, by_version[wanted] if wanted else legacy)
        response.headers["Vary"] = "Accept"
        return response

    return handler


def _document(request: web.Request, document: Document) -> web.Response:
    headers = {"ETag": document.etag, "Cache-Control": "no-cache, private"}
    known = request.headers.getall("If-None-Match", [])
    if document.etag in (tag.strip() for tags in known for tag in tags.split(",")):
        return web.Response(status=304, headers=headers)
    headers["Content-Type"] = document.content_type
    return web.Response(body=document.body, headers=headers)


def _json(content: Mapping[str, Any], *, status: int) -> web.Response:
    return web.Response(body=json_bytes(content), status=status, content_type=JSON)


def _kind(path: str) -> str:
    if path in HEALTH_PATHS:
        return "health"
    return next((kind for prefix, kind in _KINDS if path.startswith(prefix)), "other")


_KINDS = ((f"{VERSION_PATH}/namespaces/", "metric"), ("/openapi", "openapi"), ("/apis", "discovery"))
