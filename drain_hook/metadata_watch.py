"""Airflow's metadata databases as the hook reads them: live, and told once when one is away or back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from typing import Protocol

from drain_hook.telemetry import Telemetry
from shared.airflow_tasks import Metadata
from shared.errors import DatabaseUnavailable
from shared.pools import Pool

log = logging.getLogger(__name__)


class Database(Protocol):
    async def read(self, dag_ids: Collection[str] = (), *, timeout_s: float) -> Metadata: ...


class MetadataWatch:
    """Reads the database of a pool, and remembers which could not be read when they were last asked."""

    def __init__(self, database: Callable[[Pool], Database], *, telemetry: Telemetry) -> None:
        self._database = database
        self._telemetry = telemetry
        self._problems: dict[tuple[str, str], str] = {}

    async def read(self, pool: Pool, dag_ids: Collection[str], *, timeout_s: float) -> Metadata:
        """What it says now; `dag_ids` are of tasks that may have no row. Raises DatabaseUnavailable."""
        try:
            metadata = await self._database(pool).read(dag_ids, timeout_s=timeout_s)
        except DatabaseUnavailable as error:
            self._is_away(pool, str(error))
            raise
        if self._problems.pop(pool.key, None) is not None:
            log.info("Airflow's metadata database of pool %s/%s can be read again.", *pool.key)
        return metadata

    @property
    def problems(self) -> tuple[str, ...]:
        """A sentence for each pool whose database could not be read when a round last asked."""
        return tuple(
            f"The last round of pool {namespace}/{name} could not read Airflow's metadata database: {why}"
            for (namespace, name), why in sorted(self._problems.items())
        )

    def keep_only(self, pools: Iterable[Pool]) -> None:
        """Forget what is not in the configuration any more."""
        kept = {pool.key for pool in pools if pool.airflow}
        self._problems = {key: why for key, why in self._problems.items() if key in kept}

    def _is_away(self, pool: Pool, why: str) -> None:
        self._telemetry.database_failed(pool)
        if pool.key not in self._problems:
            log.warning("Airflow's metadata database of pool %s/%s cannot be read: %s", *pool.key, why)
        self._problems[pool.key] = why
