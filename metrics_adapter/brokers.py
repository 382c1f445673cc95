"""One connection for each broker, whatever number of pools is on it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from shared.celery_control import CeleryControl
from shared.pools import Pool
from shared.workers import Fleet

_SALT = secrets.token_bytes(16)


class Workers(Protocol):
    """What the adapter asks of Celery; never a command."""

    async def inspect(self, nodes: Collection[str], *, timeout_s: float) -> Fleet: ...

    async def queue_lengths(self, queues: Collection[str], *, timeout_s: float) -> Mapping[str, int]: ...

    async def close(self) -> None: ...


class Connect(Protocol):
    def __call__(
        self, url: str, *, control_exchange: str, transport_options: Mapping[str, Any]
    ) -> Workers: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A broker that pools share."""

    name: str
    """Says which, also after a change of the configuration, and nothing of its URL."""
    workers: Workers


class Brokers:
    """The brokers of one configuration; `close` ends their connections."""

    def __init__(self, broker_url: Callable[[Pool], str], *, connect: Connect = CeleryControl) -> None:
        self._broker_url = broker_url
        self._connect = connect
        self._brokers: dict[str, Broker] = {}

    def of(self, pool: Pool) -> Broker:
        """Equal URL and options are one broker, with the same queues."""
        url, settings = self._broker_url(pool), pool.broker
        options = dict(settings.transport_options)
        name = _name(url, settings.control_exchange, json.dumps(options, sort_keys=True, default=str))
        if name not in self._brokers:
            self._brokers[name] = Broker(
                name=name,
                workers=self._connect(
                    url, control_exchange=settings.control_exchange, transport_options=options
                ),
            )
        return self._brokers[name]

    async def close(self) -> None:
        await asyncio.gather(*(broker.workers.close() for broker in self._brokers.values()))


def _name(*parts: str) -> str:
    return hashlib.blake2b("\n".join(parts).encode(), key=_SALT, digest_size=8).hexdigest()
