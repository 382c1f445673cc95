"""Which versions of Celery and kombu the workers run, asked of each worker once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from drain_hook.explanations import enumerate_some
from shared.pools import Pool
from shared.workers import OLDEST_TRIED, Software, WorkerSnapshot

log = logging.getLogger(__name__)

ASK_TIMEOUT_S = 2.0
"""Nobody waits for it here, and a worker that does not answer is not asked again."""
MOST_AT_ONCE = 100
"""Answers hold several kB of settings, which are dropped as they come: no thousand of them at a time."""

Process = tuple[str, int]
"""Node name and pid: another process under the same name may run other versions."""


class Reporter(Protocol):
    async def software(self, nodes: Collection[str], *, timeout_s: float) -> Mapping[str, Software]: ...


class WorkerSoftware:
    """What the workers of each pool run; `tell` hears how many of a pool's are old whenever it is asked."""

    def __init__(self, tell: Callable[[Pool, int], None] = lambda pool, workers: None) -> None:
        self._tell = tell
        self._known: dict[tuple[str, str], dict[Process, Software | None]] = {}
        self._warned: set[tuple[str, str]] = set()

    async def meet(
        self, pool: Pool, workers: Mapping[str, WorkerSnapshot], reporter: Reporter, *, nodes: Collection[str]
    ) -> None:
        """Ask those who are new, and forget whose node is not among `nodes`. Raises BrokerUnavailable."""
        known = self._known.setdefault(pool.key, {})
        for process in [process for process in known if process[0] not in nodes]:
            del known[process]
        here = {(worker.node, worker.pid) for worker in workers.values()}
        if new := sorted(here - known.keys())[:MOST_AT_ONCE]:
            said = await reporter.software([node for node, _ in new], timeout_s=ASK_TIMEOUT_S)
            known.update((process, said.get(process[0])) for process in new)
        self._announce(pool, {node: software for node, pid in here if (software := known.get((node, pid)))})

    def warning(self, pool: Pool, workers: Collection[WorkerSnapshot]) -> str:
        """A sentence about those of these workers that are old; empty when none is known to be."""
        known = self._known.get(pool.key, {})
        return _sentence({w.node: s for w in workers if (s := known.get((w.node, w.pid))) and s.is_old})

    def _announce(self, pool: Pool, here: Mapping[str, Software]) -> None:
        """The log has it once for each pool, until its old workers are gone."""
        old = {node: software for node, software in here.items() if software.is_old}
        self._tell(pool, len(old))
        if old and pool.key not in self._warned:
            log.warning("Pool %s/%s: %s", pool.namespace, pool.name, _sentence(old))
        (self._warned.add if old else self._warned.discard)(pool.key)


def _sentence(old: Mapping[str, Software]) -> str:
    if not old:
        return ""
    names = [f"{node} (celery {s.celery}, kombu {s.kombu})" for node, s in sorted(old.items())]
    oldest = ".".join(map(str, OLDEST_TRIED))
    return (
        f"{enumerate_some(names)} run versions before {oldest}, with which draining was never tried: there a"
        " cancelled consumer may stop its worker, or leave a task prefetched. Upgrade them."
    )
