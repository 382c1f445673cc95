"""Asks the brokers and the workers of the pools; sends no command that changes anything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from shared.brokers import Brokers
from shared.checkup.picture import Unread, Workers
from shared.errors import BrokerUnavailable, ConfigurationError
from shared.pods import WorkloadState, answering_nodes
from shared.pools import Pool
from shared.workers import Fleet, Software

ASK_TIMEOUT_S = 3.0
"""Workers of a green pool answer within 2 s."""
MOST_REPORTS = 100
"""Workers whose versions are asked for: their answers are several kB each."""


class Control(Protocol):
    """The door to the workers of a broker."""

    async def inspect(self, nodes: Collection[str], *, timeout_s: float) -> Fleet: ...
    async def consumers(self, *, timeout_s: float) -> Mapping[str, frozenset[str]]: ...
    async def listening(self, nodes: Collection[str], *, timeout_s: float) -> frozenset[str]: ...
    async def software(self, nodes: Collection[str], *, timeout_s: float) -> Mapping[str, Software]: ...
    async def queue_lengths(self, queues: Collection[str], *, timeout_s: float) -> Mapping[str, int]: ...
    async def close(self) -> None: ...


class BrokerLook:
    """Looks at the brokers of the pools; one that cannot be used becomes Unread."""

    def __init__(
        self, brokers: Brokers[Control], *, url_of: Callable[[Pool], str], timeout_s: float = ASK_TIMEOUT_S
    ) -> None:
        self._brokers = brokers
        self._url_of = url_of
        self._timeout_s = timeout_s
        self._everyone: dict[str, asyncio.Task[Mapping[str, frozenset[str]]]] = {}

    def url(self, pool: Pool) -> str | Unread:
        """The broker's URL with its password, where it can be read."""
        try:
            return self._url_of(pool)
        except ConfigurationError as error:
            return Unread(reason=f"{error}.")

    async def workers(self, pool: Pool, state: WorkloadState | Unread) -> Workers | Unread:
        """What the pool's workers say; without a state only whether the broker is there."""
        url = self.url(pool)
        if isinstance(url, Unread):
            return url
        pods = () if isinstance(state, Unread) else state.pods
        nodes = answering_nodes(pods, worker_name=pool.worker_name)
        try:
            return await self._ask(pool, nodes)
        except BrokerUnavailable as error:
            return Unread(reason=str(error))

    async def _ask(self, pool: Pool, nodes: Collection[str]) -> Workers:
        broker = self._brokers.of(pool)
        # Before any worker is waited for: it is the broker that answers.
        waiting = await broker.control.queue_lengths(pool.queues, timeout_s=self._timeout_s)
        if broker.name not in self._everyone:
            question = broker.control.consumers(timeout_s=self._timeout_s)
            self._everyone[broker.name] = asyncio.create_task(question)
        fleet, everyone = await asyncio.gather(
            broker.control.inspect(nodes, timeout_s=self._timeout_s), self._everyone[broker.name]
        )
        reporting = sorted(fleet.workers)[:MOST_REPORTS]
        return Workers(
            fleet=fleet,
            listening=await broker.control.listening(sorted(fleet.silent), timeout_s=self._timeout_s),
            software=await broker.control.software(reporting, timeout_s=self._timeout_s),
            everyone=everyone,
            waiting=waiting,
        )
