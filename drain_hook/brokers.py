"""One connection for each broker, whatever number of pools is on it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from drain_hook.cordon import Workers
from shared.celery_control import CeleryControl
from shared.pools import Pool


class _Key(NamedTuple):
    url: str
    control_exchange: str
    transport_options: str


class Control(Workers, Protocol):
    """The door to the workers of a broker."""

    async def close(self) -> None: ...


class Connect(Protocol):
    def __call__(
        self, url: str, *, control_exchange: str, transport_options: Mapping[str, Any]
    ) -> Control: ...


class Brokers:
    """Connections by URL and options, made when first asked for."""

    def __init__(self, broker_url: Callable[[Pool], str], *, connect: Connect = CeleryControl) -> None:
        self._broker_url = broker_url
        self._connect = connect
        self._controls: dict[_Key, Control] = {}

    def of(self, pool: Pool) -> Control:
        """The control of the pool's workers."""
        key = self._key(pool)
        if key not in self._controls:
            self._controls[key] = self._connect(
                key.url,
                control_exchange=key.control_exchange,
                transport_options=dict(pool.broker.transport_options),
            )
        return self._controls[key]

    async def keep_only(self, pools: Iterable[Pool]) -> None:
        """Close the connections of brokers that no pool is on any more; calls still open there fail."""
        kept = {self._key(pool) for pool in pools}
        closing = [self._controls.pop(key) for key in self._controls.keys() - kept]
        await asyncio.gather(*(control.close() for control in closing))

    def _key(self, pool: Pool) -> _Key:
        broker = pool.broker
        options = json.dumps(broker.transport_options, sort_keys=True, default=str)
        return _Key(self._broker_url(pool), broker.control_exchange, options)
