"""One call of a validating webhook: the review that is sent, and what may come back."""

import asyncio
import json
import math
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from deploy.sandbox.apiserver.endpoints import ServiceUnresolved, client_tls, resolve_service
from deploy.sandbox.apiserver.store import ObjectStore
from deploy.sandbox.resources import Document

USER_AGENT = "kube-apiserver-admission"


class WebhookFailed(Exception):
    """The webhook gave no usable answer: what happens then is its failurePolicy's matter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a webhook decided."""

    allowed: bool
    status: Document = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    annotations: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Destination:
    url: str
    """What error messages show and the Host header says."""
    dialled: URL
    server_name: str | None


class WebhookClient:
    """Calls webhooks over kept-alive HTTP/1.1 connections."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), headers={"User-Agent": USER_AGENT}
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def call(self, webhook: Document, request: Document, *, time_left_s: float) -> Answer:
        """Send one review. Raises WebhookFailed with the sentence the real server would use."""
        timeout_s = min(float(webhook["timeoutSeconds"]), time_left_s)
        destination = self._destination(webhook["clientConfig"], math.ceil(timeout_s))
        review = {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}
        try:
            async with asyncio.timeout(timeout_s):
                body = await self._post(destination, webhook["clientConfig"], review)
        except TimeoutError as error:
            raise WebhookFailed(
                f'failed to call webhook: Post "{destination.url}": context deadline exceeded'
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise WebhookFailed(f'failed to call webhook: Post "{destination.url}": {error}') from error
        return _parse_answer(body, request["uid"])

    def _destination(self, client_config: Document, timeout_s: int) -> _Destination:
        if "url" in client_config:
            url = URL(client_config["url"]).update_query(timeout=f"{timeout_s}s")
            return _Destination(url=str(url), dialled=url, server_name=None)
        reference = client_config["service"]
        try:
            endpoint = resolve_service(self._store, reference)
        except ServiceUnresolved as error:
            raise WebhookFailed(f"failed to call webhook: {error}") from error
        path = f"/{(reference.get('path') or '/').lstrip('/')}?timeout={timeout_s}s"
        return _Destination(
            url=f"https://{endpoint.server_name}:{endpoint.port}{path}",
            dialled=URL(f"https://{endpoint.authority}{path}"),
            server_name=endpoint.server_name,
        )

    async def _post(self, to: _Destination, client_config: Document, review: Document) -> Any:
        async with self._session.post(
            to.dialled,
            data=json.dumps(review, separators=(",", ":")).encode(),
            headers={
                "Host": urlsplit(to.url).netloc,
                "Accept": "application/json, */*",
                "Content-Type": "application/json",
                "Accept-Encoding": "gzip",
            },
            ssl=client_tls(client_config.get("caBundle", "")),
            server_hostname=to.server_name,
            allow_redirects=False,
        ) as response:
            body = await response.read()
        if not 200 <= response.status < 300:
            why = 'an error on the server ("unknown") has prevented the request from succeeding'
            raise WebhookFailed(f"failed to call webhook: {why}")
        return body


def _parse_answer(body: bytes, uid: str) -> Answer:
    try:
        review = json.loads(body)
        if not isinstance(review, dict):
            raise ValueError(f"{type(review).__name__} instead of an object")
    except ValueError as error:
        why = f"couldn't get version/kind; json parse error: {error}"
        raise WebhookFailed(f"failed to call webhook: {why}") from error
    if (review.get("kind"), review.get("apiVersion")) != ("AdmissionReview", "admission.k8s.io/v1"):
        kind = f"{review.get('apiVersion')}, Kind={review.get('kind')}"
        raise _invalid_response(
            f"expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {kind}"
        )
    response = review.get("response")
    if not isinstance(response, dict):
        raise _invalid_response("webhook response was absent")
    if response.get("uid", "") != uid:
        raise _invalid_response(f'expected response.uid="{uid}", got "{response.get("uid", "")}"')
    if response.get("patch"):
        raise _invalid_response("a validating webhook may not patch")
    return Answer(
        allowed=response.get("allowed") is True,
        status=response.get("status") or {},
        warnings=tuple(response.get("warnings") or ()),
        annotations=dict(response.get("auditAnnotations") or {}),
    )


def _invalid_response(why: str) -> WebhookFailed:
    return WebhookFailed(f"received invalid webhook response: {why}")
