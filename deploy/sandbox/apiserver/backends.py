"""The HTTPS client towards aggregated API servers: who we say we are, and who we say is asking."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from deploy.sandbox.apiserver.authentication import MASTERS, User
from deploy.sandbox.apiserver.endpoints import Endpoint, client_tls, resolve_service
from deploy.sandbox.apiserver.store import ObjectStore
from deploy.sandbox.errors import unavailable
from deploy.sandbox.resources import Document

AGGREGATOR = User(name="system:kube-aggregator", groups=(MASTERS,))
REQUEST_TIMEOUT_S = 34.0
# Names of a connection rather than of a message, and what only we may say.
NOT_FORWARDED = (
    "authorization",
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
)
CLAIMS = ("x-remote-", "impersonate-")
"""How headers begin that say who asks; a client's own never reach a backend."""
NOT_RETURNED = ("connection", "content-length", "date", "keep-alive", "server", "transfer-encoding")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendAnswer:
    """What a backend answered, body as it came."""

    status: int
    headers: CIMultiDict[str]
    body: bytes


class Backends:
    """Speaks to the servers behind APIServices, with the front-proxy client certificate."""

    def __init__(self, store: ObjectStore, *, certificate: Path, key: Path) -> None:
        self._store = store
        self._certificate = certificate
        self._key = key
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            auto_decompress=False,
            skip_auto_headers=("Accept", "User-Agent", "Content-Type"),
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    def endpoint(self, service: Document) -> Endpoint:
        """Where an APIService's backend is. Raises ServiceUnresolved."""
        return resolve_service(self._store, service["spec"]["service"])

    async def request(
        self,
        service: Document,
        path: str,
        headers: CIMultiDict[str],
        *,
        method: str = "GET",
        body: bytes | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> BackendAnswer:
        """One request to a backend. Raises LookupError, TimeoutError, OSError or aiohttp.ClientError."""
        endpoint = self.endpoint(service)
        async with self._session.request(
            method,
            URL(f"https://{endpoint.authority}{path}", encoded=True),
            headers=headers,
            data=body or None,
            ssl=client_tls(service["spec"].get("caBundle", ""), self._certificate, self._key),
            server_hostname=endpoint.server_name,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=timeout_s),
        ) as response:
            return BackendAnswer(
                status=response.status,
                headers=CIMultiDict(response.headers),
                body=await response.read(),
            )

    async def proxy(self, http: web.Request, user: User, service: Document) -> web.Response:
        """Pass a user's request on. Raises ApiError 503 when the backend cannot be reached."""
        headers = CIMultiDict(
            (name, value)
            for name, value in http.headers.items()
            if name.lower() not in NOT_FORWARDED and not name.lower().startswith(CLAIMS)
        )
        try:
            headers.update(_forwarding(http, self.endpoint(service)))
            headers.extend(identity(user))
            answer = await self.request(
                service, http.raw_path, headers, method=http.method, body=await http.read()
            )
        except (aiohttp.ClientError, OSError, LookupError) as error:
            raise unavailable() from error
        returned = [
            (name, value) for name, value in answer.headers.items() if name.lower() not in NOT_RETURNED
        ]
        return web.Response(status=answer.status, body=answer.body, headers=CIMultiDict(returned))


def identity(user: User) -> CIMultiDict[str]:
    """The request headers by which a front proxy says who is asking."""
    headers = CIMultiDict([("X-Remote-User", user.name)])
    headers.extend([("X-Remote-Group", group) for group in user.groups])
    if user.uid:
        headers.add("X-Remote-Uid", user.uid)
    for key, values in user.extra.items():
        headers.extend([(f"X-Remote-Extra-{_header_case(key)}", value) for value in values])
    return headers


def _header_case(key: str) -> str:
    return "-".join(part[:1].upper() + part[1:].lower() for part in quote(key, safe="").split("-"))


def _forwarding(http: web.Request, endpoint: Endpoint) -> Iterable[tuple[str, str]]:
    return (
        ("Accept-Encoding", "gzip"),
        ("Audit-Id", str(uuid.uuid4())),
        ("X-Forwarded-For", http.remote or ""),
        ("X-Forwarded-Host", endpoint.authority),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Uri", http.raw_path.partition("?")[0]),
    )
