"""The HTTP side of the API server: from a request to a store operation, and every refusal as a Status."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from deploy.sandbox.apiserver.audit import AuditEvent
from deploy.sandbox.apiserver.authentication import Tokens, User
from deploy.sandbox.apiserver.authorization import Authorizer
from deploy.sandbox.apiserver.bodies import read_delete_options, read_json, read_object
from deploy.sandbox.apiserver.patches import apply_patch
from deploy.sandbox.apiserver.request_paths import Target
from deploy.sandbox.apiserver.responses import json_response
from deploy.sandbox.apiserver.reviews import answer_review
from deploy.sandbox.apiserver.scale import scale_of
from deploy.sandbox.apiserver.selection import parse_selection
from deploy.sandbox.apiserver.store import Key, ObjectStore
from deploy.sandbox.apiserver.tables import table, wants_table
from deploy.sandbox.apiserver.watching import events, parse_watch
from deploy.sandbox.apiserver.writing import Write, Writer
from deploy.sandbox.errors import (
    ApiError,
    bad_request,
    method_not_allowed,
    not_found,
    request_timeout,
    unknown_path,
)
from deploy.sandbox.resources import PODS, Document, Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A resource request whose user is known and may do what is asked."""

    http: web.Request
    user: User
    target: Target
    resource: Resource
    verb: str

    @property
    def key(self) -> Key:
        """Where the object that the URL names lives."""
        return Key(self.resource, self.target.namespace, self.target.name)


class Api:
    """Handles every request that is about objects of this server."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        writer: Writer,
        authorizer: Authorizer,
        tokens: Tokens,
        audit: deque[AuditEvent],
        request_timeout_s: float,
    ) -> None:
        self._request_timeout_s = request_timeout_s
        self._audit = audit
        self._store = store
        self._writer = writer
        self._authorizer = authorizer
        self._tokens = tokens
        self._verbs: dict[str, Callable[[Request], Awaitable[web.StreamResponse]]] = {
            "get": self._get,
            "list": self._list,
            "watch": self._watch,
            "create": self._create,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
            "deletecollection": self._delete_collection,
        }

    async def handle(self, http: web.Request, user: User, target: Target) -> web.StreamResponse:
        """Answer a request on a resource path. Raises ApiError."""
        resource, verb = target.resource, verb_of(http, target)
        if resource is None or not _has_subresource(resource, target.subresource):
            raise unknown_path()
        if resource.namespaced and not target.namespace and verb not in ("list", "watch"):
            raise method_not_allowed(resource)
        if resource.create_only and verb != "create":
            raise method_not_allowed(resource)
        request = Request(http=http, user=user, target=target, resource=resource, verb=verb)
        return await self._verbs[verb](request)

    async def _get(self, request: Request) -> web.StreamResponse:
        document = self._store.get(request.key)
        if document is None:
            raise not_found(request.resource, request.target.name)
        if request.target.subresource == "scale":
            return json_response(scale_of(document))
        return self._represented(request, [document]) or json_response(document)

    async def _list(self, request: Request) -> web.StreamResponse:
        resource = request.resource
        selection = parse_selection(resource, request.http.query)
        found = [
            document
            for document in self._store.select(resource, request.target.namespace)
            if selection.matches(document)
        ]
        return self._represented(request, found) or json_response(
            {
                "kind": f"{resource.kind}List",
                "apiVersion": resource.api_version,
                "metadata": {"resourceVersion": str(self._store.resource_version)},
                "items": [_list_item(document) for document in found],
            }
        )

    async def _watch(self, request: Request) -> web.StreamResponse:
        target, query = request.target, request.http.query
        selection = parse_selection(request.resource, query)
        watch = parse_watch(request.resource, target.namespace, target.name, selection, query)
        if wants_table(request.http.headers.get("Accept", "")):
            watch = replace(watch, render=lambda document: self._table(request, [document]))
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request.http)
        with suppress(ConnectionResetError):  # a client that has seen enough
            async with aclosing(events(self._store, watch)) as pieces:
                async for piece in pieces:
                    if piece:
                        await response.write(piece.encode())
        return response

    def _represented(self, request: Request, documents: list[Document]) -> web.Response | None:
        if not wants_table(request.http.headers.get("Accept", "")):
            return None
        return json_response(self._table(request, documents))

    def _table(self, request: Request, documents: list[Document]) -> Document:
        return table(
            request.resource,
            documents,
            resource_version=str(self._store.resource_version),
            include_object=request.http.query.get("includeObject", "Metadata"),
            now=datetime.now(UTC),
        )

    async def _create(self, request: Request) -> web.StreamResponse:
        document = await read_object(request.http)
        if request.resource.create_only:
            answer = answer_review(
                request.resource,
                document,
                user=request.user,
                authorizer=self._authorizer,
                tokens=self._tokens,
            )
            return json_response(answer, status=201)
        if request.target.name:
            raise method_not_allowed(request.resource)
        name = (document.get("metadata") or {}).get("name", "")
        write = self._write(request, name=name, options_kind="CreateOptions")
        return await self._written(request, write, self._writer.create(write, document), status=201)

    async def _update(self, request: Request) -> web.StreamResponse:
        document = await read_object(request.http)
        write = self._write(request)
        return await self._written(request, write, self._writer.update(write, lambda _: document))

    async def _patch(self, request: Request) -> web.StreamResponse:
        patch = await read_json(request.http)
        content_type = request.http.headers.get("Content-Type", "")
        write = self._write(request)
        change = self._writer.update(write, lambda current: apply_patch(content_type, patch, current))
        return await self._written(request, write, change)

    async def _delete(self, request: Request) -> web.StreamResponse:
        options = await read_delete_options(request.http)
        write = self._write(request, dry_run=options.get("dryRun"), options_kind="DeleteOptions")
        deleted = self._writer.delete(write, options)
        if request.resource is PODS:
            return await self._written(request, write, deleted)
        return await self._written(request, write, _deleted_status(request.resource, deleted))

    async def _delete_collection(self, request: Request) -> web.StreamResponse:
        options = await read_delete_options(request.http)
        selection = parse_selection(request.resource, request.http.query)
        for document in self._store.select(request.resource, request.target.namespace):
            if selection.matches(document):
                metadata = document["metadata"]
                write = self._write(
                    request,
                    name=metadata["name"],
                    namespace=metadata.get("namespace", ""),
                    options_kind="DeleteOptions",
                )
                await self._writer.delete(write, options)
        return json_response({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})

    def _write(
        self,
        request: Request,
        *,
        name: str = "",
        namespace: str = "",
        dry_run: Any = None,
        options_kind: str = "UpdateOptions",
    ) -> Write:
        query = request.http.query
        options: Document = {"kind": options_kind, "apiVersion": "meta.k8s.io/v1"}
        is_dry = "All" in (dry_run or query.getall("dryRun", []))
        if is_dry:
            options["dryRun"] = ["All"]
        for parameter in ("fieldManager", "fieldValidation"):
            if value := query.get(parameter):
                options[parameter] = value
        return Write(
            user=request.user,
            resource=request.resource,
            namespace=namespace or request.target.namespace,
            name=name or request.target.name,
            subresource=request.target.subresource,
            dry_run=is_dry,
            deadline=time.monotonic() + self._request_timeout_s,
            options=options,
        )

    async def _written(
        self, request: Request, write: Write, work: Awaitable[Document], *, status: int = 200
    ) -> web.StreamResponse:
        code = 500
        try:
            async with asyncio.timeout(self._request_timeout_s):
                document = await work
            code = status
        except TimeoutError as error:
            code = 504
            raise request_timeout() from error
        except ApiError as error:
            code = error.code
            error.warnings = tuple(write.warnings)
            raise
        finally:
            self._audit.append(
                AuditEvent(
                    user=request.user,
                    verb=request.verb,
                    path=request.http.path,
                    code=code,
                    annotations=write.annotations,
                )
            )
        return json_response(document, status=code, warnings=write.warnings)


def verb_of(http: web.Request, target: Target) -> str:
    """The API's verb for an HTTP method. Raises ApiError 400 for a method that is none."""
    if http.method == "GET" and http.query.get("watch") in ("true", "1"):
        return "watch"
    one, many = {
        "GET": ("get", "list"),
        "POST": ("create", "create"),
        "PUT": ("update", "update"),
        "PATCH": ("patch", "patch"),
        "DELETE": ("delete", "deletecollection"),
    }.get(http.method, ("", ""))
    if not one:
        raise bad_request(f"the method {http.method} is not served")
    return one if target.name else many


def _has_subresource(resource: Resource, subresource: str) -> bool:
    return {"": True, "status": resource.has_status, "scale": resource.has_scale}.get(subresource, False)


def _list_item(document: Document) -> Document:
    # Items of a list of built-in kinds say nothing about their kind in a real cluster.
    return {field: value for field, value in document.items() if field not in ("kind", "apiVersion")}


async def _deleted_status(resource: Resource, deleted: Awaitable[Document]) -> Document:
    metadata = (await deleted)["metadata"]
    details = {"name": metadata["name"], "kind": resource.plural, "uid": metadata["uid"]}
    if resource.group:
        details["group"] = resource.group
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
