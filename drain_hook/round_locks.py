"""One round at a time for each workload: a lock in this process, a Lease between replicas of the hook."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from shared.errors import CeleryHpaError, KubernetesError
from shared.leases import Lease, LeaseStore
from shared.pools import Pool

log = logging.getLogger(__name__)

LEASE_DURATION_S = 30
"""Longer than any review may take; after so long a hook that died is succeeded by another."""
RENEW_EVERY_S = 7.5
"""While work goes on, which may be longer than a Lease lasts; three renewals may fail."""
LAST_WRITE_S = 5.0
"""Before the Lease ends nothing is sent any more: a request is given up after 3 s, and may be on its way."""


class WorkloadLocked(CeleryHpaError):
    """Somebody else drains this workload now."""


def ensure_held(lease: Lease) -> None:
    """Raises WorkloadLocked when what is sent now might take effect after somebody has taken it over."""
    if not lease.lasts(LAST_WRITE_S):
        raise WorkloadLocked("its Lease went to another replica of this hook")


class RoundLocks:
    """Locks of workloads, by pool."""

    def __init__(
        self,
        store: LeaseStore,
        *,
        holder: str,
        retry_pause_s: float = 0.05,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._holder = holder
        self._retry_pause_s = retry_pause_s
        self._clock = clock
        self._locks: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._leases: dict[tuple[str, str], Lease] = {}

    @asynccontextmanager
    async def hold(self, pool: Pool, *, wait_s: float) -> AsyncIterator[Lease]:
        """The lock of the pool's workload, for as long as it takes.

        Raises WorkloadLocked after `wait_s`, and KubernetesError.
        """
        lock, lease = self._locks[_key(pool)], self._lease(pool)
        deadline = asyncio.get_running_loop().time() + wait_s
        try:
            async with asyncio.timeout_at(deadline):
                await lock.acquire()
        except TimeoutError as error:
            raise WorkloadLocked("another scale-down of it is being prepared here") from error
        try:
            try:
                await self._acquire(lease, deadline)
                async with _kept(lease):
                    yield lease
            finally:
                # Also when it could not be acquired: a request without an answer may have taken it.
                await _give_back(lease)
        finally:
            lock.release()

    async def look(self, pool: Pool) -> None:
        """See who holds the pool's lock, so that one who died with it is succeeded in time.

        Raises KubernetesError.
        """
        lock = self._locks[_key(pool)]
        if not lock.locked():
            async with lock:
                await self._lease(pool).look()

    async def _acquire(self, lease: Lease, deadline: float) -> None:
        # At least one try, however little time is left; and none is cut short: a request that was sent may
        # yet take the lease, and nobody would give it back.
        while not await lease.acquire():
            if asyncio.get_running_loop().time() + self._retry_pause_s >= deadline:
                raise WorkloadLocked(
                    f"{lease.seen_holder or 'another replica'} is preparing a scale-down of it"
                )
            await asyncio.sleep(self._retry_pause_s)

    def _lease(self, pool: Pool) -> Lease:
        key = _key(pool)
        if key not in self._leases:
            self._leases[key] = Lease(
                self._store,
                namespace=pool.namespace,
                name=f"celery-hpa-drain-{pool.workload.name}",
                holder=self._holder,
                duration_s=LEASE_DURATION_S,
                clock=self._clock,
            )
        return self._leases[key]


@asynccontextmanager
async def _kept(lease: Lease) -> AsyncIterator[None]:
    """Renewed now and then; no request of it is under way any more when this ends."""
    is_over = asyncio.Event()
    keeping = asyncio.create_task(_keep(lease, is_over))
    try:
        yield
    finally:
        is_over.set()
        await keeping


async def _keep(lease: Lease, is_over: asyncio.Event) -> None:
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(is_over.wait(), RENEW_EVERY_S)
            return
        try:
            if not await lease.renew():
                return
        except KubernetesError as error:
            log.warning("The Lease of a round could not be renewed, and is tried again: %s", error)


async def _give_back(lease: Lease) -> None:
    try:
        await lease.release()
    except KubernetesError as error:
        log.warning("A Lease could not be given back; it runs out by itself: %s", error)


def _key(pool: Pool) -> tuple[str, str]:
    return pool.namespace, pool.workload.name
