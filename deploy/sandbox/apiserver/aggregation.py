"""The aggregator: keeps an eye on the servers behind APIServices, and folds their discovery into ours."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import aiohttp
from multidict import CIMultiDict

from deploy.sandbox.apiserver.authentication import User
from deploy.sandbox.apiserver.backends import AGGREGATOR, Backends, identity
from deploy.sandbox.apiserver.discovery import ACCEPT_AGGREGATED
from deploy.sandbox.apiserver.store import Change, Key, ObjectStore
from deploy.sandbox.objects import timestamp
from deploy.sandbox.resources import API_SERVICES, Document

CHECK_INTERVAL_S = 30.0
DISCOVERY_INTERVAL_S = 60.0
CHECK_TIMEOUT_S = 5.0
PARALLEL_CHECKS = 5
FIRST_BACKOFF_S = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """What a round of checks found."""

    available: bool
    reason: str
    message: str


LOCAL = Availability(available=True, reason="Local", message="Local APIServices are always available")


@dataclass(slots=True)
class _Watched:
    """One APIService with a backend: the task that looks after it and what is known."""

    task: asyncio.Task[None] | None = None
    etag: str = ""
    discovered: Document | None = None
    discovered_at: float = float("-inf")


class Aggregator:
    """Decides which APIServices are available. `start` it, and `close` it."""

    def __init__(self, store: ObjectStore, backends: Backends, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._backends = backends
        self._clock = clock
        self._watched: dict[str, _Watched] = {}
        self._supervisor: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look after every APIService, present and future."""
        self._supervisor = asyncio.create_task(self._supervise())

    async def close(self) -> None:
        """Stop looking."""
        tasks = [self._supervisor, *(watched.task for watched in self._watched.values())]
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
        specs = [
            service["spec"] for service in self._store.select(API_SERVICES) if service["spec"].get("service")
        ]
        return [(spec["group"], spec["version"]) for spec in specs]

    def discovered(self) -> list[Document]:
        """The other servers' groups as APIGroupDiscovery documents; one that is away is stale and empty."""
        return [self._discovered(group, version) for group, version in self.group_versions()]

    def _discovered(self, group: str, version: str) -> Document:
        name = f"{version}.{group}"
        service, watched = self._store.get(_key(name)), self._watched.get(name)
        if service and is_available(service) and watched and watched.discovered:
            return watched.discovered
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
        self._watched[name] = watched = _Watched()
        watched.task = asyncio.create_task(self._keep_checking(name, watched))

    def _leave(self, name: str) -> None:
        watched = self._watched.pop(name, None)
        if watched and watched.task:
            watched.task.cancel()

    async def _keep_checking(self, name: str, watched: _Watched) -> None:
        backoff_s = FIRST_BACKOFF_S
        while (service := self._store.get(_key(name))) is not None:
            if not service["spec"].get("service"):
                self._publish(service, LOCAL)
                return
            found = await self._check(service)
            if found.available:
                await self._discover(service, watched)
            self._publish(self._store.get(_key(name)) or service, found)
            await asyncio.sleep(CHECK_INTERVAL_S if found.available else backoff_s)
            backoff_s = FIRST_BACKOFF_S if found.available else min(backoff_s * 2, CHECK_INTERVAL_S)

    async def _check(self, service: Document) -> Availability:
        try:
            self._backends.endpoint(service)
        except LookupError as error:
            return Availability(available=False, reason="ServiceNotFound", message=str(error))
        checks = [asyncio.ensure_future(self._check_once(service)) for _ in range(PARALLEL_CHECKS)]
        problem = ""
        try:
            for check in asyncio.as_completed(checks):
                problem = await check
                if not problem:
                    return Availability(available=True, reason="Passed", message="all checks passed")
        finally:
            for check in checks:
                check.cancel()
        message = f"failing or missing response from {problem}"
        return Availability(available=False, reason="FailedDiscoveryCheck", message=message)

    async def _check_once(self, service: Document) -> str:
        path = _group_version_path(service)
        url = f"https://{self._backends.endpoint(service).authority}{path}"
        headers = CIMultiDict({"User-Agent": "Go-http-client/1.1", "Accept-Encoding": "gzip"})
        headers.extend(identity(AGGREGATOR))
        try:
            answer = await self._backends.request(service, path, headers, timeout_s=CHECK_TIMEOUT_S)
        except (aiohttp.ClientError, OSError, LookupError) as error:
            return f'{url}: Get "{url}": {error or "context deadline exceeded"}'
        return "" if 200 <= answer.status < 300 else f"{url}: bad status from {url}: {answer.status}"

    async def _discover(self, service: Document, watched: _Watched) -> None:
        now = asyncio.get_running_loop().time()
        if watched.discovered and now - watched.discovered_at < DISCOVERY_INTERVAL_S:
            return
        try:
            watched.discovered = await self._ask_for_groups(service, watched) or watched.discovered
        except (aiohttp.ClientError, OSError, LookupError, ValueError):
            return  # the next round of checks says what is wrong
        watched.discovered_at = now

    async def _ask_for_groups(self, service: Document, watched: _Watched) -> Document | None:
        spec = service["spec"]
        headers = CIMultiDict({"Accept": ACCEPT_AGGREGATED})
        if watched.etag:
            headers["If-None-Match"] = watched.etag
        headers.extend(identity(AGGREGATOR))
        answer = await self._backends.request(service, "/apis", headers)
        if answer.status == 304:
            return watched.discovered
        if answer.status == 200 and "as=APIGroupDiscoveryList" in answer.headers.get("Content-Type", ""):
            watched.etag = answer.headers.get("ETag", "")
            groups = json.loads(answer.body)["items"]
            return next((group for group in groups if group["metadata"]["name"] == spec["group"]), None)
        return await self._ask_for_resources(service)

    async def _ask_for_resources(self, service: Document) -> Document | None:
        # This question comes without any group, as the real aggregator asks it.
        headers = CIMultiDict({"Accept": "application/json"})
        headers.extend(identity(User(name=AGGREGATOR.name)))
        answer = await self._backends.request(service, _group_version_path(service), headers)
        return _as_discovery(service["spec"], json.loads(answer.body)) if answer.status == 200 else None

    def _publish(self, service: Document, found: Availability) -> None:
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
            self._store.put(
                _key(service["metadata"]["name"]), service | {"status": {"conditions": [condition]}}
            )


def available_condition(service: Document) -> Document:
    """An APIService's condition Available; empty while nobody has looked yet."""
    conditions = (service.get("status") or {}).get("conditions") or ()
    return next((condition for condition in conditions if condition["type"] == "Available"), {})


def is_available(service: Document) -> bool:
    """Whether requests are passed on to it."""
    return available_condition(service).get("status") == "True"


def _key(name: str) -> Key:
    return Key(API_SERVICES, "", name)


def _spec(service: Document | None) -> Document | None:
    return service and service["spec"]


def _group_version_path(service: Document) -> str:
    return f"/apis/{service['spec']['group']}/{service['spec']['version']}"


def _as_discovery(spec: Document, resource_list: Document) -> Document:
    resources = [
        {
            "resource": entry["name"],
            "responseKind": {"group": spec["group"], "version": spec["version"], "kind": entry["kind"]},
            "scope": "Namespaced" if entry["namespaced"] else "Cluster",
            "singularResource": entry.get("singularName", ""),
            "verbs": entry["verbs"],
        }
        for entry in resource_list["resources"]
    ]
    version = {"version": spec["version"], "resources": resources, "freshness": "Current"}
    return {"metadata": {"name": spec["group"]}, "versions": [version]}
