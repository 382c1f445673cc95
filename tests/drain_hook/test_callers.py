"""Reviews are answered only for whoever has the API server's certificate; over real TLS."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from drain_hook.admission import Review, Verdict
from drain_hook.callers import only_for
from drain_hook.webhook import webhook_app
from shared.allowed_clients import AllowedClients
from shared.certificates import KeyPair, make_ca, make_leaf, save_key_pair
from shared.serving import Health, serve
from shared.settings import Settings
from tests.drain_hook.test_webhook import recorded_review

SERVING_CA, CLIENT_CA, NEXT_CA = make_ca("serving"), make_ca("clients"), make_ca("next")
API_SERVER = make_leaf(CLIENT_CA, common_name="apiserver", is_client=True)
ALICE = make_leaf(CLIENT_CA, common_name="alice", is_client=True)
NEXT_API_SERVER = make_leaf(NEXT_CA, common_name="apiserver", is_client=True)


class Reviewer:
    """Allows everything, and counts."""

    def __init__(self) -> None:
        self.asked = 0

    async def review(self, review: Review, *, deadline: float, is_listened_to: Callable[[], bool]) -> Verdict:
        self.asked += 1
        return Verdict(allowed=True, reason="Idle", message="")


@dataclass(kw_only=True)
class Hook:
    url: str
    directory: Path
    ca_file: Path
    reviewer: Reviewer

    def session(self, client: KeyPair | None = None) -> aiohttp.ClientSession:
        context = ssl.create_default_context(cadata=SERVING_CA.certificate_pem.decode())
        if client:
            files = {
                "certificate_file": self.directory / "client.crt",
                "key_file": self.directory / "client.key",
            }
            save_key_pair(client, **files)
            context.load_cert_chain(files["certificate_file"], files["key_file"])
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))

    async def review(self, session: aiohttp.ClientSession) -> int:
        async with session.post(f"{self.url}/validate/scale", json=recorded_review()) as response:
            await response.read()
            return response.status


@asynccontextmanager
async def serving(
    hook: Hook, clients: AllowedClients, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[None]:
    leaf = make_leaf(SERVING_CA, common_name="hook", addresses=["127.0.0.1"])
    files = {"certificate_file": hook.directory / "crt", "key_file": hook.directory / "key"}
    save_key_pair(leaf, **files)
    app, stop = webhook_app(hook.reviewer), asyncio.Event()
    app.middlewares.append(only_for(clients))
    settings = Settings(
        config=Path("none"),
        host="127.0.0.1",
        port=0,
        telemetry_port=0,
        tls_cert_file=files["certificate_file"],
        tls_private_key_file=files["key_file"],
    )
    task = asyncio.create_task(
        serve(
            app,
            settings=settings,
            name="hook",
            registry=CollectorRegistry(),
            health=Health,
            client_ca=clients.ca_bundle,
            stop=stop,
        )
    )
    async with asyncio.timeout(10):
        while not (match := re.search(r"serves (\S+),", capsys.readouterr().out)):
            assert not task.done(), task.exception()
            await asyncio.sleep(0)
    hook.url = match[1]
    try:
        yield
    finally:
        stop.set()
        await task


@pytest.fixture
async def hook(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Hook]:
    hook = Hook(url="", directory=tmp_path, ca_file=tmp_path / "ca.crt", reviewer=Reviewer())
    hook.ca_file.write_bytes(CLIENT_CA.certificate_pem)
    clients = AllowedClients(hook.ca_file, names=frozenset({"apiserver"}))
    async with serving(hook, clients, capsys):
        yield hook


async def test_the_api_server_is_answered(hook: Hook) -> None:
    async with hook.session(API_SERVER) as session:
        assert await hook.review(session) == 200
    assert hook.reviewer.asked == 1


async def test_a_client_without_a_certificate_is_not(hook: Hook, caplog: pytest.LogCaptureFixture) -> None:
    """Any pod of the cluster could forge a review. The log tells of it once."""
    async with hook.session() as session:
        assert [await hook.review(session) for _ in range(3)] == [401, 401, 401]
    assert hook.reviewer.asked == 0
    assert caplog.text.count("turned away") == 1


async def test_nor_is_another_client_of_the_same_ca(hook: Hook) -> None:
    """With the CA of the cluster, that would be every user that has a certificate."""
    async with hook.session(ALICE) as session:
        assert await hook.review(session) == 403
    assert hook.reviewer.asked == 0


async def test_a_certificate_of_another_ca_ends_at_the_handshake(hook: Hook) -> None:
    async with hook.session(NEXT_API_SERVER) as session:
        with pytest.raises(aiohttp.ClientError):
            await hook.review(session)
    assert hook.reviewer.asked == 0


async def test_health_is_open(hook: Hook) -> None:
    """The kubelet has no certificate to show, nor has a load balancer."""
    async with hook.session() as session:
        for path in ("/healthz", "/livez", "/readyz"):
            async with session.get(f"{hook.url}{path}") as response:
                assert (path, response.status) == (path, 200)


async def test_the_ca_is_replaced_without_a_restart(hook: Hook) -> None:
    """Over a connection that is open, too: who was let in by a CA that is gone is let in no more."""
    async with hook.session(API_SERVER) as session:
        assert await hook.review(session) == 200
        hook.ca_file.write_bytes(NEXT_CA.certificate_pem)
        assert await hook.review(session) == 403
    async with hook.session(NEXT_API_SERVER) as session:
        assert await hook.review(session) == 200
