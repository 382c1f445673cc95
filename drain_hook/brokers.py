"""One connection for each broker, whatever number of pools is on it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from typing import NamedTuple

from shared.celery_control import CeleryControl
from shared.pools import Pool


class _Key(NamedTuple):
    url: str
    control_exchange: str
    transport_options: str


class Brokers:
    """Connections by URL and options, made when first asked for."""

    def __init__(self, broker_url: Callable[[Pool], str]) -> None:
        self._broker_url = broker_url
        self._controls: dict[_Key, CeleryControl] = {}

    def of(self, pool: Pool) -> CeleryControl:
        """The control of the pool's workers."""
        key = self._key(pool)
        if key not in self._controls:
            self._controls[key] = CeleryControl(
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
