"""The door to another provider of external metrics: one GET, as ourselves, bounded in time and in size."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from metrics_adapter.delegate_answers import (
    MOST_BYTES,
    MOST_BYTES_OF_DISCOVERY,
    Answer,
    NoAnswer,
    answer_from,
    names_from,
)
from metrics_adapter.documents import JSON, VERSION_PATH
from shared.kube_documents import quoted
from shared.pools import Delegate

VIA = "1.1 celery-hpa"
"""Goes with every request of ours: one that comes back to us is not passed on again."""

Authorization = Callable[[], Awaitable[str | None]]
"""The header by which the Kubernetes API knows our service account; None without a token."""


class Provider(Protocol):
    """Another provider; what it does not answer well raises NoAnswer, in time."""

    async def values(self, *, namespace: str, metric: str, selector: str) -> Answer:
        """A list of values, or a Status."""

    async def names(self) -> tuple[str, ...]:
        """The metrics of its discovery."""


@asynccontextmanager
async def connect(delegate: Delegate, *, authorization: Authorization) -> AsyncIterator[Provider]:
    """A door to the Service that the configuration names. No call is made yet."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=delegate.timeout),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        yield DelegateConnection(delegate, session=session, authorization=authorization)


class DelegateConnection:
    """HTTPS towards a Service. The user's headers are not passed on: who asks is us."""

    def __init__(
        self, delegate: Delegate, *, session: aiohttp.ClientSession, authorization: Authorization
    ) -> None:
        self._delegate = delegate
        self._session = session
        self._authorization = authorization
        self._discovered: tuple[int, bytes] | None = None
        self._names: tuple[str, ...] = ()
        self._ca = ""
        self._tls: ssl.SSLContext | None = None

    async def values(self, *, namespace: str, metric: str, selector: str) -> Answer:
        path = f"{VERSION_PATH}/namespaces/{quoted(namespace)}/{quoted(metric)}"
        query = {"labelSelector": selector} if selector else {}
        return answer_from(*await self._get(path, query, most_bytes=MOST_BYTES))

    async def names(self) -> tuple[str, ...]:
        found = await self._get(VERSION_PATH, {}, most_bytes=MOST_BYTES_OF_DISCOVERY, looks_at_ca=True)
        if found != self._discovered:
            self._names, self._discovered = names_from(*found), found
        return self._names

    async def _get(
        self, path: str, query: Mapping[str, str], *, most_bytes: int, looks_at_ca: bool = False
    ) -> tuple[int, bytes]:
        try:
            if looks_at_ca or self._tls is None:
                self._look_at_ca()
            async with asyncio.timeout(self._delegate.timeout):
                return await self._exchange(path, query, most_bytes)
        except TimeoutError as error:
            raise NoAnswer(f"did not answer within {self._delegate.timeout:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NoAnswer(f"cannot be asked: {str(error) or type(error).__name__}") from error

    async def _exchange(self, path: str, query: Mapping[str, str], most_bytes: int) -> tuple[int, bytes]:
        delegate = self._delegate
        url = URL.build(
            scheme="https",
            host=delegate.address or delegate.host,
            port=delegate.port,
            path=path,
            query_string=urlencode(query),
            encoded=True,
        )
        async with self._session.get(
            url,
            headers=await self._headers(),
            ssl=self._tls or True,
            server_hostname=delegate.host,
            allow_redirects=False,  # our token is for this Service and nobody else
        ) as response:
            return response.status, await _bounded(response, most_bytes)

    async def _headers(self) -> dict[str, str]:
        headers = {"Accept": JSON, "Accept-Encoding": "identity", "User-Agent": "celery-hpa", "Via": VIA}
        authorization = await self._authorization()
        return headers | ({"Authorization": authorization} if authorization else {})

    def _look_at_ca(self) -> None:
        """Read the CA again. Another context only for another one: connections are kept by context."""
        delegate = self._delegate
        pem = Path(delegate.ca_file).read_text() if delegate.ca_file else delegate.ca or ""
        if self._tls is None or self._ca != pem:
            self._tls = _context(pem, verifies=not delegate.insecure_skip_tls_verify)
            self._ca = pem


def _context(pem: str, *, verifies: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The CAs of clusters often lack extensions that Python 3.13 began to insist on; Go never did.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["http/1.1"])
    if verifies:
        context.load_verify_locations(cadata=pem)
    else:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def _bounded(response: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > most_bytes:
            raise NoAnswer(f"answered with more than {most_bytes >> 10} KiB")
    return bytes(body)
