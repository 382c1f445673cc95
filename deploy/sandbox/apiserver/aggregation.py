"""The aggregator: keeps an eye on the servers behind APIServices, and folds their discovery into ours."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import aiohttp

from deploy.sandbox.apiserver.availability import Availability, available_condition, check, is_available
from deploy.sandbox.apiserver.backends import Backends
from deploy.sandbox.apiserver.foreign_discovery import Discovered, discover, specified
from deploy.sandbox.apiserver.store import Change, Key, ObjectStore
from deploy.sandbox.objects import timestamp
from deploy.sandbox.resources import API_SERVICES, Document

CHECK_INTERVAL_S = 30.0
DISCOVERY_INTERVAL_S = 60.0
FIRST_BACKOFF_S = 0.005

LOCAL = Availability(available=True, reason="Local", message="Local APIServices are always available")


@dataclass(slots=True)
class _Backend:
    """What is known about one APIService, and the task that finds it out."""

    task: asyncio.Task[None] | None = None
    discovered: Discovered | None = None
    openapi: Document | None = None
    discovered_at: float = float("-inf")


class Aggregator:
    """Decides which APIServices are available. `start` it, and `close` it."""

    def __init__(self, store: ObjectStore, backends: Backends, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._backends = backends
        self._clock = clock
        self._known: dict[str, _Backend] = {}
        self._supervisor: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look after every APIService, present and future."""
        self._supervisor = asyncio.create_task(self._supervise())

    async def close(self) -> None:
        """Stop looking."""
        tasks = [self._supervisor, *(backend.task for backend in self._known.values())]
        running = [task for task in tasks if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def service(self, group: str, version: str) -> Document | None:
        """The APIService by which another server serves a group version, available or not."""
        service = self._store.get(_key(f"{version}.{group}"))
        return service if service and service["spec"].get("service") else None

    def group_versions(self) -> list[tuple[str, str]]:
        """The groups and versions of the other servers."""
        specs = [service["spec"] for service in self._store.select(API_SERVICES)]
        return [(spec["group"], spec["version"]) for spec in specs if spec.get("service")]

    def discovered(self) -> list[Document]:
        """The other servers' groups as APIGroupDiscovery documents; one that is away is stale and empty."""
        return [self._discovered(group, version) for group, version in self.group_versions()]

    def openapi(self) -> Mapping[str, Document]:
        """The other servers' OpenAPI v3 documents, by path; the last ones of those that are away."""
        known = {
            (group, version): self._known.get(f"{version}.{group}")
            for group, version in self.group_versions()
        }
        return {
            f"apis/{group}/{version}": backend.openapi
            for (group, version), backend in known.items()
            if backend and backend.openapi
        }

    def _discovered(self, group: str, version: str) -> Document:
        service, backend = self.service(group, version), self._known.get(f"{version}.{group}")
        if service and is_available(service) and backend and backend.discovered and backend.discovered.group:
            return backend.discovered.group
        return {"metadata": {"name": group}, "versions": [{"version": version, "freshness": "Stale"}]}

    async def _supervise(self) -> None:
        history = self._store.history(API_SERVICES)
        changes: asyncio.Queue[Change] = asyncio.Queue()
        history.watchers.add(changes)
        try:
            for service in self._store.select(API_SERVICES):
                self._look_after(service["metadata"]["name"])
            while True:
                change = await changes.get()
                name = change.document["metadata"]["name"]
                if change.type == "DELETED" or _spec(change.document) != _spec(change.previous):
                    self._leave(name)
                    if change.type != "DELETED":
                        self._look_after(name)
        finally:
            history.watchers.discard(changes)

    def _look_after(self, name: str) -> None:
        self._known[name] = backend = _Backend()
        backend.task = asyncio.create_task(self._keep_checking(name, backend))

    def _leave(self, name: str) -> None:
        backend = self._known.pop(name, None)
        if backend and backend.task:
            backend.task.cancel()

    async def _keep_checking(self, name: str, backend: _Backend) -> None:
        backoff_s = FIRST_BACKOFF_S
        while (service := self._store.get(_key(name))) is not None:
            if not service["spec"].get("service"):
                self._publish(name, LOCAL)
                return
            found = await check(self._backends, service)
            if found.available:
                await self._discover(service, backend)
            self._publish(name, found)
            await asyncio.sleep(CHECK_INTERVAL_S if found.available else backoff_s)
            backoff_s = FIRST_BACKOFF_S if found.available else min(backoff_s * 2, CHECK_INTERVAL_S)

    async def _discover(self, service: Document, backend: _Backend) -> None:
        now = asyncio.get_running_loop().time()
        if now - backend.discovered_at < DISCOVERY_INTERVAL_S:
            return
        try:
            backend.discovered = await discover(self._backends, service, backend.discovered)
            backend.openapi = await specified(self._backends, service)
        except (aiohttp.ClientError, OSError, LookupError, ValueError, TypeError):
            return  # it is stale until it answers well
        backend.discovered_at = now

    def _publish(self, name: str, found: Availability) -> None:
        service = self._store.get(_key(name))
        if service is None:
            return
        old = available_condition(service)
        status = "True" if found.available else "False"
        since = old.get("lastTransitionTime") if old.get("status") == status else None
        condition = {
            "type": "Available",
            "status": status,
            "lastTransitionTime": since or timestamp(self._clock()),
            "reason": found.reason,
            "message": found.message,
        }
        if condition != old:
            self._store.put(_key(name), service | {"status": {"conditions": [condition]}})


def _key(name: str) -> Key:
    return Key(API_SERVICES, "", name)


def _spec(service: Document | None) -> Document | None:
    return service and service["spec"]
