"""One connection to a Kubernetes API server: who we are, TLS, deadlines, and errors in our words.

The `kubernetes` package brings the kubeconfig, the service account and fresh tokens; documents stay JSON.
Nothing is tried twice: whoever calls knows how much time is left.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp

from shared.errors import (
    ConfigurationError,
    Conflict,
    Forbidden,
    Gone,
    KubernetesError,
    KubernetesUnavailable,
    Mistake,
    NotFound,
)
from shared.kubernetes_aio import ApiClient, Configuration, RESTClientObject, kube_config

log = logging.getLogger(__name__)

TOKEN_RETRY_S = 60.0
KEPT_OPEN_S = 60.0
"""An idle connection. An HPA asks every 15 s, when aiohttp's own patience has just ended, and the handshakes
for thirty connections cost more than their PATCHes. The API server itself waits for 90 s."""
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"


@asynccontextmanager
async def connect(kubeconfig: str | None, *, context: str | None = None) -> AsyncIterator[KubeConnection]:
    """A connection from a kubeconfig file, or without one from the pod's service account.

    Raises ConfigurationError when neither can be used. No call is made yet.
    """
    configuration = Configuration()
    # Every watch holds a connection for itself; whoever sends many calls at once bounds them.
    configuration.connection_pool_maxsize = 0
    # Cluster CAs often lack extensions that Python 3.13 began to insist on; client-go never did.
    configuration.disable_strict_ssl_verification = True
    try:
        loader = await _load(configuration, kubeconfig, context)
        api = ApiClient(configuration)
        api.rest_client = _RestClient(configuration)
    except Exception as error:  # the package checks little: a wrong file raises whatever it runs into
        raise ConfigurationError((_unusable(kubeconfig, error),)) from error
    refresher = asyncio.create_task(_keep_token_fresh(loader, configuration))
    api.user_agent = "celery-hpa"
    try:
        yield KubeConnection(api)
    finally:
        refresher.cancel()
        await api.close()  # type: ignore[no-untyped-call]  # the package is typed, not all of its functions


class _RestClient(RESTClientObject):
    """Overrides what the package leaves to be overridden; it connects when it is first used."""

    def _create_connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(limit=self.maxsize, ssl=self.ssl_context, keepalive_timeout=KEPT_OPEN_S)


class KubeConnection:
    """Sends requests; every failure becomes a KubernetesError."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api

    async def authorization(self) -> str | None:
        """The header by which the API server knows us, with a fresh token; None without a token."""
        settings = await self._api.configuration.auth_settings()
        setting = settings.get("BearerToken")
        return setting["value"] if setting else None

    async def json(
        self,
        method: str,
        path: str,
        *,
        timeout_s: float,
        query: Mapping[str, str] = {},
        body: object = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        """The JSON object that answers."""
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        async with self.response(
            method, path, query=query, body=body, content_type=content_type, timeout=timeout
        ) as response:
            document = json.loads(await response.read())
        if not isinstance(document, dict):
            raise KubernetesUnavailable(f"{method} {path}: the answer is no JSON object.")
        return document

    @asynccontextmanager
    async def response(
        self,
        method: str,
        path: str,
        *,
        timeout: aiohttp.ClientTimeout,
        query: Mapping[str, str] = {},
        body: object = None,
        content_type: str = "application/json",
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A 2xx response; its body is read inside. Every failure becomes a KubernetesError."""
        response: aiohttp.ClientResponse | None = None
        try:
            method, url, headers, body, _ = await self._api.param_serialize(
                method,
                path,
                header_params={"Accept": "application/json", "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
            )
            if query:
                url = f"{url}?{urlencode(query)}"
            reply = await self._api.rest_client.request(  # type: ignore[no-untyped-call]  # as above
                method, url, headers=headers, body=body, _request_timeout=timeout
            )
            response = reply.response
            if response.status >= 300:
                raise _refusal(f"{method} {path}", response, await response.read())
            yield response
        except KubernetesError:
            raise
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            sentence = str(error) or type(error).__name__
            raise KubernetesUnavailable(f"{method} {path}: no usable answer: {sentence}") from error
        finally:
            if response is not None:
                response.release()


async def _load(configuration: Configuration, kubeconfig: str | None, context: str | None) -> Any:
    if kubeconfig is None:
        return kube_config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]  # as above
    _require(Path(kubeconfig))
    return await kube_config.load_kube_config(  # type: ignore[no-untyped-call]  # as above
        config_file=kubeconfig,
        context=context,
        client_configuration=configuration,
        persist_config=False,
    )


def _require(kubeconfig: Path) -> None:
    """The package takes a missing file for an empty one, and complains about what that lacks."""
    if not kubeconfig.expanduser().exists():
        raise FileNotFoundError("there is no such file")


def _unusable(kubeconfig: str | None, error: Exception) -> Mistake:
    message = (
        f"this is not a pod with a service account ({error}); name a kubeconfig file"
        if kubeconfig is None
        else f"{kubeconfig} cannot be used as a kubeconfig file: {error}"
    )
    return Mistake(path="--kubeconfig", message=message)


async def _keep_token_fresh(loader: Any, configuration: Configuration) -> None:
    """Only exec plugins need it: the service account's token is read again by the configuration itself."""
    while loader is not None:
        try:
            await kube_config.refresh_token(loader, configuration)  # type: ignore[no-untyped-call]  # as above
        except Exception as error:
            log.warning("The token of the kubeconfig could not be refreshed: %s", error)
            await asyncio.sleep(TOKEN_RETRY_S)
        else:
            return


def _refusal(what: str, response: aiohttp.ClientResponse, body: bytes) -> KubernetesError:
    """The error of a Status reply, as a sentence."""
    status, message = response.status, body[:200].decode(errors="replace").strip()
    with suppress(ValueError, AttributeError):
        message = json.loads(body).get("message") or message
    return error_type(status)(
        f"{what}: {message} ({status})", status=status, retry_after_s=_retry_after_s(response)
    )


def _retry_after_s(response: aiohttp.ClientResponse) -> float:
    """kube-apiserver writes whole seconds; a date, which a proxy may write, is not looked at."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdecimal() else 0.0


def error_type(status: int) -> type[KubernetesError]:
    """Our error for an HTTP status."""
    kinds = {
        401: Forbidden,
        403: Forbidden,
        404: NotFound,
        409: Conflict,
        410: Gone,
        429: KubernetesUnavailable,
    }
    return kinds.get(status, KubernetesUnavailable if status >= 500 else KubernetesError)
