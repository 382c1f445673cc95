"""A Lease of coordination.k8s.io as a lock: at most one holder acts, and a dead one is replaced.

As in client-go a lease is judged by how long *we* have not seen it change, never by comparing its time stamps
with our clock: clocks of two machines disagree. It does not fence: a holder that was paused may act once more
after another has taken over, so whoever holds it must still write with preconditions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from shared.errors import Conflict, NotFound
from shared.kube_documents import LeaseRecord


class LeaseStore(Protocol):
    """What a Lease asks of the Kubernetes door."""

    async def read_lease(self, *, namespace: str, name: str) -> LeaseRecord: ...

    async def create_lease(self, *, namespace: str, name: str, record: LeaseRecord) -> LeaseRecord: ...

    async def replace_lease(self, *, namespace: str, name: str, record: LeaseRecord) -> LeaseRecord: ...


class Lease:
    """One lock that we may hold. Keep the object: it remembers since when the holder has not moved."""

    def __init__(
        self,
        store: LeaseStore,
        *,
        namespace: str,
        name: str,
        holder: str,
        duration_s: int,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._namespace = namespace
        self._name = name
        self._holder = holder
        self._duration_s = duration_s
        self._clock = clock
        self._wall_clock = wall_clock
        self._seen: LeaseRecord | None = None
        self._seen_at = 0.0
        self._held_until: float | None = None
        self._confirmed_at = (0.0, 0.0)
        """When it was last seen to be ours, by both clocks."""
        self._is_in_doubt = False
        """Whether a write was sent whose answer is not known: it may have taken the lease."""
        self._turn = asyncio.Lock()
        """Of our own writes: two at once would be a conflict of ourselves with ourselves."""

    @property
    def is_held(self) -> bool:
        """Whether we hold it by our own clock: nobody can have taken it over yet."""
        return self.lasts(0.0)

    def lasts(self, seconds: float) -> bool:
        """Whether nobody can take it over for so long yet: what is sent now and ends by then is alone."""
        return self._held_until is not None and self._clock() + seconds < self._held_until

    @property
    def seen_holder(self) -> str:
        """Who held it when we last looked; empty for nobody."""
        return self._seen.holder if self._seen else ""

    async def acquire(self) -> bool:
        """Take it, or keep it; False when somebody else holds it. Raises KubernetesError."""
        async with self._turn:
            return await self._acquire()

    async def _acquire(self) -> bool:
        if self._seen is not None and self._may_take(self._seen) and await self._take(self._seen):
            return True
        try:
            self._see(await self._store.read_lease(namespace=self._namespace, name=self._name))
        except NotFound:
            return await self._create()
        return self._seen is not None and self._may_take(self._seen) and await self._take(self._seen)

    async def look(self) -> None:
        """See who holds it: how long a dead holder is waited for begins with that. Raises KubernetesError."""
        with suppress(NotFound):
            self._see(await self._store.read_lease(namespace=self._namespace, name=self._name))

    async def renew(self) -> bool:
        """Prolong it; False when it is not ours any more. Raises KubernetesError."""
        async with self._turn:
            if self._is_in_doubt:
                # Our own write, if it did arrive, would be taken for that of a successor.
                await self.look()
            if self._seen is None or self._seen.holder != self._holder:
                self._held_until = None
            return self._seen is not None and self.is_held and await self._take(self._seen)

    async def confirm(self, *, after_s: float) -> bool:
        """Whether it is ours; asks when we have not heard so for `after_s`. Raises KubernetesError.

        A process that was paused in between, alone or with its machine, learns here that it was succeeded.
        """
        was, now = self._confirmed_at, self._times()
        # One of the two clocks may have stood still.
        if max(now[0] - was[0], now[1] - was[1]) < after_s:
            return self.is_held
        return await self.renew()

    async def release(self) -> None:
        """Give it back, so that the next one need not wait. Raises KubernetesError."""
        async with self._turn:
            held, self._held_until = self._held_until, None
            if self._is_in_doubt:
                await self.look()
                self._is_in_doubt = False
            elif held is None:
                return
            if self._seen is not None and self._seen.holder == self._holder:
                empty = replace(self._seen, holder="", duration_s=1, renewed_at=self._wall_clock())
                await self._replace(empty)

    def _may_take(self, record: LeaseRecord) -> bool:
        if record.holder in ("", self._holder):
            return True
        return self._clock() - self._seen_at >= record.duration_s

    async def _take(self, record: LeaseRecord) -> bool:
        asked_at, now = self._clock(), self._wall_clock()
        is_ours = record.holder == self._holder
        mine = replace(
            record,
            holder=self._holder,
            duration_s=self._duration_s,
            renewed_at=now,
            acquired_at=record.acquired_at if is_ours else now,
            transitions=record.transitions + (not is_ours),
        )
        return self._hold(asked_at, await self._replace(mine))

    async def _create(self) -> bool:
        asked_at, now = self._clock(), self._wall_clock()
        record = LeaseRecord(
            holder=self._holder, duration_s=self._duration_s, acquired_at=now, renewed_at=now
        )
        create = self._store.create_lease(namespace=self._namespace, name=self._name, record=record)
        return self._hold(asked_at, await self._write(create))

    async def _replace(self, record: LeaseRecord) -> bool:
        """Compare and swap by resourceVersion; False when somebody wrote in between."""
        replacing = self._store.replace_lease(namespace=self._namespace, name=self._name, record=record)
        return await self._write(replacing)

    async def _write(self, writing: Awaitable[LeaseRecord]) -> bool:
        self._is_in_doubt = True
        try:
            self._see(await writing)
        except (Conflict, NotFound):
            self._is_in_doubt = False
            return False
        self._is_in_doubt = False
        return True

    def _hold(self, asked_at: float, is_ours: bool) -> bool:
        # From before the request left: others count from when they saw the answer to it, which is later.
        self._held_until = asked_at + self._duration_s if is_ours else None
        if is_ours:
            self._confirmed_at = self._times()
        return is_ours

    def _times(self) -> tuple[float, float]:
        return self._clock(), self._wall_clock()

    def _see(self, record: LeaseRecord) -> None:
        if self._seen is None or record != self._seen:
            self._seen, self._seen_at = record, self._clock()
