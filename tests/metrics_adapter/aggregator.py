"""A kube-apiserver that asks the adapter all the time, as its front proxy: a hundred requests a second."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import aiohttp

from shared.certificates import KeyPair, make_ca, make_leaf, save_key_pair
from tests.metrics_adapter.api_server import GROUP, HPA
from tests.metrics_adapter.certificates import Authority
from tests.metrics_adapter.lab import Lab, until

TRUST = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
PER_SECOND = 100
KEPT_CONNECTIONS = 4
FRESH_EVERY = 10
"""Every so many requests make a connection of their own: a handshake by what holds at that moment."""
Headers = Iterable[Sequence[str]]


class Question(NamedTuple):
    path: str
    headers: Headers = ()


class Answer(NamedTuple):
    path: str
    code: int
    """0 without an answer."""
    seconds: float
    text: str


METRIC = Question(f"{GROUP}/namespaces/default/celery_demand", HPA)


@dataclass(kw_only=True)
class Aggregator:
    """Asks `url`, whose certificate it believes by `cas`, with a certificate of its own."""

    url: str
    directory: Path
    cas: bytes
    certificate: KeyPair
    answers: list[Answer] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    """By how many seconds each question came late: what this machine, or this process, lacks in time."""
    _sessions: tuple[aiohttp.ClientSession, ...] = ()
    _former: list[aiohttp.ClientSession] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self.renew()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session in (*self._sessions, *self._former):
            await session.close()

    def renew(self, *, cas: bytes | None = None, certificate: KeyPair | None = None) -> None:
        """Trust these CAs, and come with this certificate, from the next request on.

        On new connections, as kube-apiserver does; what is under way ends on those that it has.
        """
        self.cas, self.certificate = cas or self.cas, certificate or self.certificate
        self._former += self._sessions
        kept = aiohttp.TCPConnector(ssl=self._tls(), limit=KEPT_CONNECTIONS)
        fresh = aiohttp.TCPConnector(ssl=self._tls(), force_close=True)
        self._sessions = (aiohttp.ClientSession(connector=kept), aiohttp.ClientSession(connector=fresh))

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.cas.decode())
        context.check_hostname = False  # the tests serve on 127.0.0.1
        files = (self.directory / "proxy.crt", self.directory / "proxy.key")
        save_key_pair(self.certificate, certificate_file=files[0], key_file=files[1])
        context.load_cert_chain(*files)
        return context

    async def ask(self, question: Question, *, is_fresh: bool = False) -> Answer:
        """Whatever comes of it is an answer."""
        started = time.perf_counter()
        try:
            async with self._sessions[is_fresh].get(
                self.url + question.path, headers=[(name, value) for name, value in question.headers]
            ) as response:
                text = await response.text()
                code = response.status
        except (aiohttp.ClientError, OSError) as error:
            code, text = 0, repr(error)
        return Answer(question.path, code, time.perf_counter() - started, text)

    @asynccontextmanager
    async def asking(
        self, questions: Sequence[Question], *, keeps_connections: bool = False
    ) -> AsyncIterator[None]:
        """Ask them in turn, PER_SECOND of them, whether or not earlier ones are answered; keep `answers`.

        Some make a new connection, unless it `keeps_connections`.
        """
        stop = asyncio.Event()
        asking = asyncio.create_task(self._ask_all(questions, stop, keeps_connections))
        try:
            yield
        finally:
            stop.set()
            await asking

    async def _ask_all(
        self, questions: Sequence[Question], stop: asyncio.Event, keeps_connections: bool
    ) -> None:
        begun, number = time.perf_counter(), 0
        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                is_fresh = not keeps_connections and number % FRESH_EVERY == 0
                group.create_task(self._note(questions[number % len(questions)], is_fresh))
                number += 1
                due = begun + number / PER_SECOND
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                self.late.append(max(0.0, time.perf_counter() - due))

    async def _note(self, question: Question, is_fresh: bool) -> None:
        self.answers.append(await self.ask(question, is_fresh=is_fresh))

    async def more(self, count: int) -> None:
        """Return when so many more have been answered."""
        wanted = len(self.answers) + count
        async with asyncio.timeout(60):
            while True:
                if len(self.answers) >= wanted:
                    return
                await asyncio.sleep(0.01)


class Serving:
    """The files that the adapter serves with, as cert-manager and the kubelet change them."""

    def __init__(self, directory: Path) -> None:
        self.ca = make_ca("first serving CA")
        self.files = (directory / "serving.crt", directory / "serving.key")
        self.issue()

    def issue(self, ca: KeyPair | None = None) -> None:
        self.ca = ca or self.ca
        leaf = make_leaf(self.ca, common_name="metrics-adapter", names=["localhost"])
        save_key_pair(leaf, certificate_file=self.files[0], key_file=self.files[1])


def front_proxy_of(lab: Lab, serving: Serving, certificate: KeyPair) -> Aggregator:
    """One that asks the adapter of this lab, and believes what it serves with now."""
    return Aggregator(
        url=f"https://127.0.0.1:{lab.port}",
        directory=lab.directory,
        cas=serving.ca.certificate_pem,
        certificate=certificate,
    )


async def trust(lab: Lab, *authorities: Authority) -> None:
    """kube-apiserver publishes the CAs of these, one after the other in one bundle."""
    data = authorities[0].config_map(
        client_ca_file="".join(one.client_ca.certificate_pem.decode() for one in authorities),
        requestheader_client_ca_file="".join(one.proxy_ca.certificate_pem.decode() for one in authorities),
    )
    await lab.stage.send("PATCH", TRUST, {"data": data})


async def until_believed(lab: Lab, serving: Serving, proxy: KeyPair, *, believed: bool = True) -> None:
    """Until a front proxy with this certificate is answered, or is not any more."""
    async with front_proxy_of(lab, serving, proxy) as probe:

        async def ask() -> Answer:
            return await probe.ask(METRIC, is_fresh=True)

        await until(ask, lambda answer: (answer.code == 200) == believed)
