"""Looks at Airflow's metadata databases now and then, so that the labels that tasks began with are known.

A round reads labels live. But Airflow writes a DAG that was changed over the code that its running tasks
began with, and most tasks begin between two scale-downs: what was said then, nobody can ask for later.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress

from shared.databases import Databases
from shared.errors import DatabaseUnavailable
from shared.pools import Configuration, Pool

LEARN_EVERY_S = 15.0
"""Airflow parses a file every 30 s unless told otherwise; a task that began less before is missed."""
_READ_S = 5.0


class LabelLearning:
    """Readings that nobody waits for: what the doors remember of them is what they are for."""

    def __init__(self, databases: Databases, *, configuration: Callable[[], Configuration]) -> None:
        self._databases = databases
        self._configuration = configuration

    async def run(self) -> None:
        """Look for ever. One of several pools of a database is enough; unequal pauses part the replicas."""
        while True:
            await self.learn()
            await asyncio.sleep(LEARN_EVERY_S * random.uniform(0.8, 1.2))

    async def learn(self) -> None:
        """Read each database once; that one is away is for the rounds to tell, which need it."""
        pools = (pool for pool in self._configuration().pools if pool.airflow is not None)
        by_database = {self._databases.name_of(pool): pool for pool in pools}
        await asyncio.gather(*map(self._read, by_database.values()))

    async def _read(self, pool: Pool) -> None:
        with suppress(DatabaseUnavailable):
            await self._databases.live(pool).read(timeout_s=_READ_S)
