"""One connection for each broker, whatever number of pools is on it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from shared.pools import Pool

_SALT = secrets.token_bytes(16)


class _Closable(Protocol):
    async def close(self) -> None: ...


Control = TypeVar("Control", bound=_Closable)
"""The door to the workers of a broker, or as much of it as a service uses."""
Opened = TypeVar("Opened", bound=_Closable, covariant=True)


class Connect(Protocol[Opened]):
    """Opens that door."""

    def __call__(
        self, url: str, *, control_exchange: str, transport_options: Mapping[str, Any], with_arguments: bool
    ) -> Opened: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker(Generic[Control]):
    """A broker that pools share."""

    name: str
    """Says which, also after a change of the configuration, and nothing of its URL."""
    control: Control


class Brokers(Generic[Control]):
    """Connections by URL and options, made when first asked for; Airflow's workers have one of their own."""

    def __init__(self, broker_url: Callable[[Pool], str], *, connect: Connect[Control]) -> None:
        self._broker_url = broker_url
        self._connect = connect
        self._brokers: dict[str, Broker[Control]] = {}

    def of(self, pool: Pool) -> Broker[Control]:
        """Equal URL and options are one broker, with the same queues."""
        name = self._name(pool)
        if name not in self._brokers:
            control = self._connect(
                self._broker_url(pool),
                control_exchange=pool.broker.control_exchange,
                transport_options=dict(pool.broker.transport_options),
                with_arguments=pool.airflow is not None,
            )
            self._brokers[name] = Broker(name=name, control=control)
        return self._brokers[name]

    def control_of(self, pool: Pool) -> Control:
        """The door to the pool's workers."""
        return self.of(pool).control

    async def keep_only(self, pools: Iterable[Pool]) -> None:
        """Close the connections of brokers that no pool is on any more; calls still open there fail."""
        kept = set(map(self._name, pools))
        closing = [self._brokers.pop(name) for name in self._brokers.keys() - kept]
        await asyncio.gather(*(broker.control.close() for broker in closing))

    def _name(self, pool: Pool) -> str:
        options = json.dumps(pool.broker.transport_options, sort_keys=True, default=str)
        kind = "celery" if pool.airflow is None else "airflow"
        parts = (self._broker_url(pool), pool.broker.control_exchange, options, kind)
        return hashlib.blake2b("\n".join(parts).encode(), key=_SALT, digest_size=8).hexdigest()
