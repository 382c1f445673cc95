"""A thin client of the Kubernetes API in JSON, for what stands in for the cluster's own components."""

import json
import ssl
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from deploy.sandbox.errors import ApiError
from deploy.sandbox.resources import Document, Resource

MERGE_PATCH = "application/merge-patch+json"
MOST_CONNECTIONS = 50
REQUEST_TIMEOUT_S = 65.0  # beyond what the API server grants any request


class ApiClient:
    """One identity's connections to the API server: a bearer token, or a client certificate in `tls`.

    Every method raises ApiError for an answer that is no success, and aiohttp.ClientError or TimeoutError
    when there is no answer. Nothing is retried here.
    """

    def __init__(
        self,
        url: str,
        *,
        tls: ssl.SSLContext | bool = True,
        token: str | None = None,
        impersonate: str | None = None,
        user_agent: str = "kube-controller-manager/v1.36.2",
    ) -> None:
        headers = {"User-Agent": user_agent, "Accept": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if impersonate is not None:
            headers["Impersonate-User"] = impersonate
        self._url = url.rstrip("/")
        self._tls = tls
        self._headers = headers
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=MOST_CONNECTIONS)
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, resource: Resource, namespace: str, name: str, *, subresource: str = "") -> Document:
        return await self.request("GET", path_of(resource, namespace, name, subresource))

    async def list(self, resource: Resource, namespace: str = "", **query: str) -> Document:
        """The whole list document: `items`, and the resourceVersion a watch may start from."""
        return await self.request("GET", path_of(resource, namespace), query=query)

    async def create(self, resource: Resource, document: Document, namespace: str = "") -> Document:
        """Create an object; its namespace is the document's unless one is given."""
        namespace = namespace or document["metadata"].get("namespace", "")
        return await self.request("POST", path_of(resource, namespace), document)

    async def update(self, resource: Resource, document: Document, *, subresource: str = "") -> Document:
        """PUT an object, or its status or scale; a resourceVersion within makes it conditional."""
        metadata = document["metadata"]
        path = path_of(resource, metadata.get("namespace", ""), metadata["name"], subresource)
        return await self.request("PUT", path, document)

    async def patch(
        self, resource: Resource, namespace: str, name: str, change: Document, *, subresource: str = ""
    ) -> Document:
        """A merge patch."""
        path = path_of(resource, namespace, name, subresource)
        return await self.request("PATCH", path, change, content_type=MERGE_PATCH)

    async def delete(
        self, resource: Resource, namespace: str, name: str, *, grace_s: int | None = None, uid: str = ""
    ) -> Document:
        """Delete an object, if its uid is the given one. Returns the server's last state of it."""
        options: Document = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        if uid:
            options["preconditions"] = {"uid": uid}
        return await self.request("DELETE", path_of(resource, namespace, name), options)

    async def request(
        self,
        method: str,
        path: str,
        body: Document | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Document:
        """Any request for a JSON document; the path, ready to send, may be an aggregated API's."""
        headers = {"Accept": accept} if body is None else {"Accept": accept, "Content-Type": content_type}
        async with self._open.request(
            method,
            self._target(path, query),
            data=None if body is None else json.dumps(body),
            headers=headers,
        ) as response:
            return _document(response.status, response.content_type, await response.text())

    async def watch(
        self, resource: Resource, *, since: str, namespace: str = "", timeout_s: int = 300
    ) -> AsyncIterator[tuple[str, Document]]:
        """Events after a resourceVersion, bookmarks included, until the server ends the watch.

        Raises ApiError with code 410 when the version is too old: list again.
        """
        query = {
            "watch": "true",
            "resourceVersion": since,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(timeout_s),
        }
        async with self._open.get(
            self._target(path_of(resource, namespace), query),
            timeout=aiohttp.ClientTimeout(total=None, sock_read=timeout_s + 30),
        ) as response:
            if response.status != 200:
                _document(response.status, response.content_type, await response.text())
            async for line in _lines(response.content):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise _error(event["object"].get("code", 500), event["object"])
                yield event["type"], event["object"]

    def _target(self, path: str, query: Mapping[str, str] | None) -> URL:
        """Encoded as Go's client does it, a space in a selector as a plus; yarl would decode it again."""
        return URL(self._url + path + (f"?{urlencode(query)}" if query else ""), encoded=True)

    @property
    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the client is not open; use it in `async with`")
        return self._session


def path_of(resource: Resource, namespace: str = "", name: str = "", subresource: str = "") -> str:
    """The URL path of a collection, an object or a subresource."""
    root = f"/apis/{resource.api_version}" if resource.group else f"/api/{resource.version}"
    parts = [root]
    if resource.namespaced and namespace:
        parts += ["namespaces", namespace]
    return "/".join([*parts, resource.plural, *(quote(part) for part in (name, subresource) if part)])


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length: an event of a large object is longer than what aiohttp reads as one line."""
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield line


def _document(code: int, content_type: str, text: str) -> Document:
    if content_type != "application/json":
        if code < 400:
            raise ApiError(code, "", f"serializer for {content_type} doesn't exist")
        raise ApiError(code, "", text or f"the server answered {code}")
    document: Document = json.loads(text)
    if code >= 400:
        raise _error(code, document)
    return document


def _error(code: int, status: Document) -> ApiError:
    return ApiError(code, status.get("reason", ""), status.get("message", ""), details=status.get("details"))
