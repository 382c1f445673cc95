"""Workloads with their ReplicaSets and pods, kept current in memory by watches: reading costs nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar

from shared.kube_documents import pods_path, replica_sets_path, workloads_path
from shared.mirror import Mirror, Source
from shared.pods import (
    OWN_THEIR_PODS,
    Document,
    Pod,
    ReplicaSet,
    Workload,
    WorkloadKey,
    WorkloadState,
    pod_from,
    replica_set_from,
    state_of,
    workload_from,
)

T = TypeVar("T")
Spawn = Callable[[Mirror[Any]], asyncio.Task[None]]


class WorkloadCache:
    """Follows the workloads it is told to, from `async with` to its end."""

    def __init__(self, kube: Source, keys: Iterable[WorkloadKey] = ()) -> None:
        self._kube = kube
        self._followed: dict[WorkloadKey, _Followed] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._wanted = frozenset(keys)
        self._event = asyncio.Event()
        self.version = 0
        """Grows with every change."""

    async def __aenter__(self) -> Self:
        self.follow(self._wanted)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def follow(self, keys: Iterable[WorkloadKey]) -> None:
        """Follow exactly these from now on."""
        wanted = frozenset(keys)
        for key in self._followed.keys() - wanted:
            self._followed.pop(key).stop()
        for key in wanted - self._followed.keys():
            self._followed[key] = _Followed(self._kube, key, spawn=self._spawn, on_change=self._changed)
        self._changed()

    def state(self, *, kind: str, namespace: str, name: str) -> WorkloadState | None:
        """What is known of a workload; None until it has been listed, and when it does not exist."""
        followed = self._followed.get(WorkloadKey(kind, namespace, name))
        return followed.state() if followed else None

    @property
    def is_synced(self) -> bool:
        """Whether every followed workload has been listed, or is known not to exist."""
        return all(followed.is_synced for followed in self._followed.values())

    async def wait_synced(self) -> None:
        """Return as soon as `is_synced`."""
        while not self.is_synced:
            await self.wait_changed(self.version)

    async def wait_changed(self, version: int) -> int:
        """Return the current version as soon as it is another one than `version`."""
        while self.version == version:
            await self._event.wait()
        return self.version

    def _changed(self) -> None:
        self.version += 1
        self._event.set()
        self._event = asyncio.Event()

    def _spawn(self, mirror: Mirror[Any]) -> asyncio.Task[None]:
        """Run a mirror until it is cancelled, or the cache ends."""
        task = asyncio.create_task(mirror.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class _Followed:
    """One workload: a mirror of itself and, as soon as its selector is known, of ReplicaSets and pods.

    One that owns its pods itself has no ReplicaSets.
    """

    def __init__(
        self, source: Source, key: WorkloadKey, *, spawn: Spawn, on_change: Callable[[], None]
    ) -> None:
        self._source = source
        self._key = key
        self._spawn = spawn
        self._on_change = on_change
        self._latest: WorkloadState | None = None
        self._selector: str | None = None
        self._replica_sets: Mirror[ReplicaSet] | None = None
        self._pods: Mirror[Pod] | None = None
        self._workloads = Mirror(
            source,
            workloads_path(key.kind, key.namespace),
            field_selector=f"metadata.name={key.name}",
            parse=self._parse,
            on_change=self._workload_changed,
            clock=time.time,
        )
        self._tasks = [spawn(self._workloads)]

    @property
    def is_synced(self) -> bool:
        if not self._workloads.is_synced:
            return False
        return self._key.name not in self._workloads.items or all(m.is_synced for m in self._dependants)

    def state(self) -> WorkloadState | None:
        if self._latest is None:
            self._latest = self._gathered()
        return self._latest and replace(self._latest, as_of=self._as_of())

    def _gathered(self) -> WorkloadState | None:
        workload = self._workloads.items.get(self._key.name)
        if workload is None or self._pods is None or not self.is_synced:
            return None
        sets = tuple(self._replica_sets.items.values()) if self._replica_sets else ()
        return state_of(workload, sets, tuple(self._pods.items.values()), as_of=0.0)

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    @property
    def _dependants(self) -> tuple[Mirror[Any], ...]:
        return tuple(mirror for mirror in (self._replica_sets, self._pods) if mirror is not None)

    def _as_of(self) -> float:
        """Now, or when the first of the watches was cut."""
        cuts = (mirror.cut_at for mirror in (self._workloads, *self._dependants))
        return min((cut for cut in cuts if cut is not None), default=time.time())

    def _parse(self, document: Document) -> Workload:
        return workload_from(document, kind=self._key.kind)

    def _workload_changed(self) -> None:
        workload = self._workloads.items.get(self._key.name)
        if workload is not None and workload.selector != self._selector:
            # A selector never changes; a workload that was deleted and made again may bring another one.
            self._follow_selector(workload.selector)
        self._changed()

    def _changed(self) -> None:
        # A round reads the state many times; sorting a thousand pods for each would show.
        self._latest = None
        self._on_change()

    def _follow_selector(self, selector: str) -> None:
        while len(self._tasks) > 1:
            self._tasks.pop().cancel()
        self._selector = selector
        namespace = self._key.namespace
        if self._key.kind not in OWN_THEIR_PODS:
            self._replica_sets = self._mirror(replica_sets_path(namespace), replica_set_from, selector)
        self._pods = self._mirror(pods_path(namespace), pod_from, selector)
        self._tasks += [self._spawn(mirror) for mirror in self._dependants]

    def _mirror(self, path: str, parse: Callable[[Document], T], selector: str) -> Mirror[T]:
        return Mirror(
            self._source,
            path,
            label_selector=selector,
            parse=parse,
            on_change=self._changed,
            clock=time.time,
        )
