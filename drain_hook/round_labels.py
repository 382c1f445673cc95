"""Labels of the tasks that a round sees, and what Airflow says of workers without an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager

from drain_hook.metadata_watch import MetadataWatch
from shared.airflow_fleet import dags_of, with_metadata, with_what_may_have_begun
from shared.airflow_tasks import Metadata
from shared.errors import DatabaseUnavailable
from shared.pools import Pool
from shared.workers import Fleet


class RoundLabels:
    """The metadata database as one round sees it: read for whoever works, and again for what is new.

    Nothing is remembered from one round to the next: a tag counts as soon as Airflow has stored it.
    """

    def __init__(
        self,
        pool: Pool,
        watch: MetadataWatch,
        *,
        phase: Callable[[], AbstractContextManager[None]],
        timeout_s: Callable[[], float],
    ) -> None:
        """`phase` measures a reading; `timeout_s` is how long it may take when it is begun now."""
        self.problem = ""
        """Why it could not be read in this round; one failure is enough not to ask again."""
        self._pool = pool
        self._watch = watch
        self._phase = phase
        self._timeout_s = timeout_s
        self._metadata: Metadata | None = None
        self._covered: frozenset[tuple[str, str]] = frozenset()
        """What ran where, and who was silent, as it was read."""

    @asynccontextmanager
    async def reading_beside(self, remembered: Fleet) -> AsyncIterator[None]:
        """Read for what is remembered of the fleet, while others find out whether it is still so."""
        reading = asyncio.create_task(self.read_for(remembered))
        try:
            yield
            await reading
        finally:
            reading.cancel()
            await asyncio.wait({reading})

    async def read_for(self, fleet: Fleet) -> None:
        """Read if somebody runs a task, or is silent, that was not there when it was last read."""
        if self._pool.airflow is None or self.problem or self._covered.issuperset(_work(fleet)):
            return
        with self._phase():
            try:
                self._metadata = await self._watch.read(
                    self._pool, dags_of(fleet), timeout_s=self._timeout_s()
                )
            except DatabaseUnavailable as error:
                self.problem = str(error)
        self._covered |= frozenset(_work(fleet))

    async def read_again_for(self, fleet: Fleet) -> None:
        """Read whatever was read before: the silent do not say what they have taken since."""
        self._covered = frozenset()
        await self.read_for(fleet)

    @property
    def were_read(self) -> bool:
        """Whether there is anything to add to what the workers say."""
        return self._metadata is not None

    def of(
        self,
        fleet: Fleet,
        *,
        nodes: Collection[str],
        asked_at: Mapping[str, float],
        elsewhere: Collection[str],
    ) -> Fleet:
        """The fleet with labels, and with what silent workers run, once they were read.

        `nodes` are those of all pods; `asked_at` is when each was asked, in seconds since the epoch;
        `elsewhere` are the names of other pools' pods.
        """
        assert self._metadata is not None, "nothing was read yet"
        answered = [at for node, at in asked_at.items() if node in fleet.workers]
        labelled = with_metadata(
            fleet,
            self._metadata,
            pool=self._pool,
            nodes=nodes,
            asked_at=min(answered, default=self._metadata.read_at),
            asked_later={node for node, at in asked_at.items() if at >= self._metadata.read_at},
            elsewhere=elsewhere,
        )
        return with_what_may_have_begun(labelled, self._metadata, pool=self._pool, nodes=nodes)


def _work(fleet: Fleet) -> Iterator[tuple[str, str]]:
    """Node names with ids of tasks; silence is work of which nothing is known."""
    yield from ((node, "") for node in fleet.silent)
    yield from ((node, task.id) for node, worker in fleet.workers.items() for task in worker.tasks)
