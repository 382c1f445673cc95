"""A plain HTTP client for the API server, as a user or as nobody."""

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from tests.sandbox.authority import Files


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the server answered."""

    status: int
    body: Any
    headers: CIMultiDictProxy[str]
    warnings: list[str]


class Client:
    """Plain HTTP with JSON, as one user."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """One request; `Content_Type="…"` sets a header."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        data = None if body is None else json.dumps(body)
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        url = URL(self.url + path, encoded=True)
        async with self.session.request(method, url, data=data, headers=sent) as response:
            text = await response.text()
            parsed = json.loads(text) if "json" in response.content_type else text
            warnings = response.headers.getall("Warning", [])
            return Answer(status=response.status, body=parsed, headers=response.headers, warnings=warnings)

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.send("GET", path, **headers)

    async def post(self, path: str, body: Any) -> Answer:
        return await self.send("POST", path, body)

    async def put(self, path: str, body: Any) -> Answer:
        return await self.send("PUT", path, body)

    async def patch(self, path: str, body: Any, kind: str = "merge-patch") -> Answer:
        return await self.send("PATCH", path, body, Content_Type=f"application/{kind}+json")

    async def delete(self, path: str, body: Any = None) -> Answer:
        return await self.send("DELETE", path, body)


@asynccontextmanager
async def connected(url: str, ca: Path, files: Files | None = None) -> AsyncIterator[Client]:
    """A client that trusts `ca` and shows the certificate, if there is one."""
    context = ssl.create_default_context(cafile=str(ca))
    if files is not None:
        context.load_cert_chain(files.certificate, files.key)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        yield Client(session, url)
