"""Gives back what a scale-down did not use, and mends workers that drifted; whatever crashed before.

Every replica runs it, one acts. What there is to do follows from the pods and from what their workers say; it
is looked at once more, live and under the lock of the workload, before anything is done.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from typing import Protocol

from drain_hook.announcements import Announcer
from drain_hook.chores import Chores, Deviation, Fault, chores_of
from drain_hook.cordon import Cordon, Workers
from drain_hook.mark_life import Ending
from drain_hook.reconciler_memory import Patience, Suspects
from drain_hook.round_locks import RoundLocks, WorkloadLocked, ensure_held
from drain_hook.rounds import Surroundings
from shared.errors import BrokerUnavailable, CeleryHpaError, KubernetesError, NotFound
from shared.leases import Lease
from shared.pods import Pod, WorkloadState
from shared.pools import Configuration, Pool
from shared.workers import WorkerSnapshot

log = logging.getLogger(__name__)

PERIOD_S = 3.0
"""Between two passes when nothing changes."""
PAUSE_S = 0.1
"""Between two passes in any case: changes come in swarms."""
DISMISSAL_S = 30.0
"""For rounds of a pool that is not ours any more; they end within the time-out of a review."""
LEADER_LEASE_S = 15
RENEW_EVERY_S = 4.0

_WHY = {
    Ending.COPIED: "the drain record was copied from another pod, or cannot be read",
    Ending.FOREIGN: "the drain record is about another workload",
    Ending.SCALED_UP: "the workload was scaled up again, or further",
    Ending.SPARED: "the scale-down is done, and Kubernetes deleted other pods",
    Ending.LEFT: "the scale-down is done, and of pods of one age Kubernetes takes any",
    Ending.FORGOTTEN: "nobody asked for the scale-down again",
    Ending.DISMISSED: "the pool is not in the configuration any more",
}


class Changes(Protocol):
    """The workload cache, as something to wait for."""

    version: int

    async def wait_changed(self, version: int) -> int: ...


class Reconciler:
    """Level-triggered: a pass looks at everything, whatever woke it."""

    def __init__(
        self,
        around: Surroundings,
        *,
        changes: Changes,
        configuration: Callable[[], Configuration],
        locks: RoundLocks,
        leadership: Lease,
        announcer: Announcer,
        on_misprediction: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_misprediction` is called when Kubernetes has deleted others than those that were drained."""
        self._around = around
        self._on_misprediction = on_misprediction
        self._changes = changes
        self._configuration = configuration
        self._locks = locks
        self._leadership = leadership
        self._announcer = announcer
        self._asked_at = float("-inf")
        self._suspects: defaultdict[tuple[str, str], Suspects] = defaultdict(Suspects)
        self._patience: defaultdict[tuple[str, str], Patience] = defaultdict(Patience)
        self._problems: dict[tuple[str, str], str] = {}
        """All three by pool."""

    async def run(self) -> None:
        """Pass after pass, when something has changed and every few seconds."""
        try:
            while True:
                version = self._changes.version
                if await self._leads():
                    await self.reconcile()
                await asyncio.sleep(PAUSE_S)
                with suppress(TimeoutError):
                    async with asyncio.timeout(PERIOD_S):
                        await self._changes.wait_changed(version)
        finally:
            with suppress(KubernetesError):
                await self._leadership.release()

    async def reconcile(self) -> None:
        """One pass over all pools; a failure with one does not stop the others."""
        for pool in self._configuration().pools:
            try:
                await self._reconcile(pool)
                self._problems.pop(pool.key, None)
            except WorkloadLocked:
                continue
            except (BrokerUnavailable, KubernetesError) as error:
                self._tell(pool, error)
            except Exception:
                log.exception("Pool %s/%s could not be looked after.", pool.namespace, pool.name)

    async def dismiss(self, pool: Pool, workers: Workers) -> None:
        """Give everything back in a pool that the configuration does not name any more."""
        try:
            with suppress(NotFound):
                async with self._locks.hold(pool, wait_s=DISMISSAL_S) as lease:
                    state = await self._around.cluster.workload_state(**pool.workload_key._asdict())
                    marked = [pod for pod in state.pods if pod.has_mark_annotation]
                    cordon = self._cordon(pool, lease, workers)
                    await self._release(pool, state, Ending.DISMISSED, marked, cordon)
        except (WorkloadLocked, BrokerUnavailable, KubernetesError) as error:
            log.warning(
                "Pool %s/%s is not ours any more, and what was being drained there was not given back: %s "
                "Name it again for a minute, with drain.enabled: false.",
                *pool.key,
                error,
            )

    async def _leads(self) -> bool:
        now = asyncio.get_running_loop().time()
        if now - self._asked_at >= RENEW_EVERY_S:
            self._asked_at = now
            try:
                await self._leadership.acquire()
                await self._look_at_locks()
            except KubernetesError as error:
                log.warning("The reconciler's Lease, or that of a round, could not be had: %s", error)
        self._around.telemetry.leads(self._leadership.is_held)
        return self._leadership.is_held

    async def _look_at_locks(self) -> None:
        """Where pods are marked: if a replica died in the midst of it, time runs from when others look."""
        for pool in self._configuration().pools:
            state = self._around.cache.state(**pool.workload_key._asdict())
            if state is not None and any(pod.has_mark_annotation for pod in state.pods):
                await self._locks.look(pool)

    async def _reconcile(self, pool: Pool) -> None:
        state = self._around.cache.state(**pool.workload_key._asdict())
        if state is None:
            return
        marked = {pod.uid for pod in state.pods if pod.has_mark_annotation}
        self._around.telemetry.marked_now(pool, len(marked))
        self._patience[pool.key].keep_only(marked)
        chores = self._chores(pool, state)
        drifted = self._suspects[pool.key].confirmed(
            [(d, self._asked(pool, d.node)) for d in chores.deviations]
        )
        if drifted or any(self._due(pool, pods) for pods in chores.endings.values()):
            async with self._locks.hold(pool, wait_s=0.0) as lease:
                await self._work(pool, drifted, self._cordon(pool, lease, self._around.workers(pool)))

    async def _work(self, pool: Pool, drifted: Collection[str], cordon: Cordon) -> None:
        """Look once more, and do it. A round may have ended just now, which our cache has not heard of."""
        with suppress(NotFound):
            state = await self._around.cluster.workload_state(**pool.workload_key._asdict())
            chores = self._chores(pool, state)
            for ending, pods in chores.endings.items():
                await self._release(pool, state, ending, self._due(pool, pods), cordon)
            await self._mend(pool, [d for d in chores.deviations if d.node in drifted], cordon)

    async def _release(
        self, pool: Pool, state: WorkloadState, ending: Ending, pods: Collection[Pod], cordon: Cordon
    ) -> None:
        for pod in pods:
            # Until it has succeeded: an error of the broker or of Kubernetes must not be tried at every pass.
            self._patience[pool.key].failed(pod.uid, now=self._now())
        free = await cordon.release(pods)
        self._patience[pool.key].forget({pod.uid for pod in free})
        if not free:
            return
        self._around.telemetry.released(pool, ending, len(free))
        if ending is Ending.SPARED:
            self._around.telemetry.mispredicted(pool, len(free))
            self._on_misprediction()
        self._announcer.released(state.workload, free, _WHY[ending])

    async def _mend(self, pool: Pool, deviations: Collection[Deviation], cordon: Cordon) -> None:
        """Ask these workers once more, and tell those that are still wrong."""
        if not deviations:
            return
        consumed = await self._around.workers(pool).active_queues(
            [deviation.node for deviation in deviations], timeout_s=self._around.pace.answer_s
        )
        wrong = [d for d in (d.given(consumed.get(d.node)) for d in deviations) if d is not None]
        to_add, to_cancel = (
            {d.node: d.queues for d in wrong if d.fault is fault}
            for fault in (Fault.LACKS_QUEUES, Fault.CONSUMES)
        )
        await cordon.give_back(to_add)
        await cordon.mark((d.pod, mark) for d in wrong if (mark := d.record_to_write()) is not None)
        await cordon.cancel(to_cancel, within_s=self._around.pace.confirm_s)
        for fault, nodes in ((Fault.LACKS_QUEUES, to_add), (Fault.CONSUMES, to_cancel)):
            if nodes:
                self._around.telemetry.healed(pool, fault, len(nodes))
                log.warning("Sent %s to workers that had drifted: %s.", fault, ", ".join(sorted(nodes)))

    def _chores(self, pool: Pool, state: WorkloadState) -> Chores:
        def seen(node: str) -> WorkerSnapshot | None:
            sighting = self._around.warm.sighting(pool, node)
            return sighting.worker if sighting else None

        ttl_s = self._configuration().round_ttl
        return chores_of(state, pool, seen=seen, now=self._around.clock(), ttl_s=ttl_s)

    def _due(self, pool: Pool, pods: Collection[Pod]) -> list[Pod]:
        return [pod for pod in pods if self._patience[pool.key].is_due(pod.uid, now=self._now())]

    def _asked(self, pool: Pool, node: str) -> float:
        sighting = self._around.warm.sighting(pool, node)
        return sighting.asked_at if sighting else 0.0

    def _now(self) -> float:
        return self._around.warm.now()

    def _cordon(self, pool: Pool, lease: Lease, workers: Workers) -> Cordon:
        return Cordon(
            pool,
            cluster=self._around.cluster,
            workers=workers,
            pace=self._around.pace,
            may_go_on=partial(ensure_held, lease),
        )

    def _tell(self, pool: Pool, error: CeleryHpaError) -> None:
        """Each problem once, not at every pass."""
        if self._problems.get(pool.key) != str(error):
            log.warning("Pool %s/%s could not be looked after: %s", pool.namespace, pool.name, error)
        self._problems[pool.key] = str(error)
