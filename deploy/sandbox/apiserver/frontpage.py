"""Everything that is not about an object: health, version, discovery and OpenAPI."""

from collections.abc import Mapping
from typing import Protocol

from aiohttp import web

from deploy.sandbox.apiserver import discovery, openapi
from deploy.sandbox.apiserver.responses import json_response
from deploy.sandbox.errors import unknown_path
from deploy.sandbox.resources import Document

HEALTH_PATHS = ("/healthz", "/livez", "/readyz")


class OtherServers(Protocol):
    """What the aggregated API servers serve."""

    def group_versions(self) -> list[tuple[str, str]]:
        """Their groups and versions, reachable or not."""
        ...

    def discovered(self) -> list[Document]:
        """Their groups as APIGroupDiscovery documents."""
        ...

    def openapi(self) -> Mapping[str, Document]:
        """Their OpenAPI v3 documents, by path as `apis/GROUP/VERSION`."""
        ...


def answer(http: web.Request, others: OtherServers) -> web.Response:
    """The document at a path. Raises ApiError 404 when there is none."""
    path = http.path.rstrip("/")
    if path in HEALTH_PATHS:
        return web.Response(text="ok")
    if path in ("/api", "/apis") and discovery.wants_aggregated(http.headers.get("Accept", "")):
        document = (
            discovery.core_discovery() if path == "/api" else discovery.group_discovery(others.discovered())
        )
        return json_response(document, content_type=discovery.AGGREGATED)
    found = _document(path, others)
    if found is None:
        raise unknown_path()
    return json_response(found)


def _document(path: str, others: OtherServers) -> Document | None:
    match path.strip("/").split("/"):
        case ["version"]:
            return discovery.VERSION
        case ["api"]:
            return discovery.core_versions()
        case ["api", version]:
            return discovery.resource_list("", version)
        case ["apis"]:
            return discovery.group_list(others.group_versions())
        case ["apis", group]:
            return discovery.group_document(group, others.group_versions())
        case ["apis", group, version]:
            return discovery.resource_list(group, version)
        case ["openapi", "v3"]:
            return openapi.index(others.openapi())
        case ["openapi", "v3", *group_version]:
            return openapi.document("/".join(group_version), others.openapi())
    return None
