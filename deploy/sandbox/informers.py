"""Informers, caches of a resource that follow the API server, and queues of keys to look at again."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

import aiohttp

from deploy.sandbox.client import ApiClient
from deploy.sandbox.errors import ApiError
from deploy.sandbox.resources import Document, Resource

log = logging.getLogger(__name__)

Key = tuple[str, str]
Handler = Callable[[str, Document], None]
UNREACHABLE = (aiohttp.ClientError, TimeoutError, ApiError)
RECONNECT_DELAY_S = 0.5


def key_of(document: Document) -> Key:
    """Namespace and name."""
    return document["metadata"].get("namespace", ""), document["metadata"]["name"]


def controller_key(document: Document) -> Key | None:
    """Namespace and name of the object that controls this one."""
    for owner in document["metadata"].get("ownerReferences") or []:
        if owner.get("controller"):
            return document["metadata"]["namespace"], owner["name"]
    return None


def controller_of(document: Document) -> str:
    """The uid of the object that controls this one; empty if none does."""
    for owner in document["metadata"].get("ownerReferences") or []:
        if owner.get("controller"):
            return str(owner["uid"])
    return ""


class Informer:
    """All objects of a resource as last seen, by list and watch, indexed by what controls them.

    What its owner has just written is taken in with `observe`, so that no decision is taken on a state from
    before one's own write; older watch events are ignored then. Handlers get ADDED, MODIFIED or DELETED.
    """

    def __init__(self, client: ApiClient, resource: Resource) -> None:
        self._client = client
        self._resource = resource
        self._objects: dict[Key, Document] = {}
        self._by_controller: dict[str, dict[Key, Document]] = {}
        self._gone: set[str] = set()
        self._handlers: list[Handler] = []
        self.synced = asyncio.Event()

    def on_change(self, handler: Handler) -> None:
        self._handlers.append(handler)

    def get(self, key: Key) -> Document | None:
        return self._objects.get(key)

    def all(self) -> Iterable[Document]:
        return list(self._objects.values())

    def controlled_by(self, uid: str) -> list[Document]:
        """The objects whose controller has this uid."""
        return list(self._by_controller.get(uid, {}).values())

    def observe(self, document: Document) -> None:
        """Take in a state that the API server has just answered with."""
        if document["metadata"]["uid"] not in self._gone:
            self._take("MODIFIED", document)

    def forget(self, document: Document) -> None:
        """Take in that an object is gone, before the watch says so."""
        self._gone.add(document["metadata"]["uid"])
        self._take("DELETED", document)

    async def run(self) -> None:
        """Follow the API server until cancelled; an unreachable one is asked again and again."""
        while True:
            try:
                await self._follow(await self._list())
            except UNREACHABLE as error:
                if getattr(error, "code", None) != 410:
                    log.warning("Watching %s failed, listing again: %s", self._resource.plural, error)
                    await asyncio.sleep(RECONNECT_DELAY_S)

    async def _list(self) -> str:
        listed = await self._client.list(self._resource)
        present = {item["metadata"]["uid"] for item in listed["items"]}
        for document in self.all():
            if document["metadata"]["uid"] not in present:
                self._take("DELETED", document)
        kind = {"apiVersion": self._resource.api_version, "kind": self._resource.kind}
        for item in listed["items"]:
            self.observe(kind | item)  # items of a list do not say what they are
        self._gone &= present
        self.synced.set()
        return str(listed["metadata"]["resourceVersion"])

    async def _follow(self, since: str) -> None:
        while True:
            async for kind, document in self._client.watch(self._resource, since=since):
                since = document["metadata"]["resourceVersion"]
                if kind == "DELETED":
                    self._gone.discard(document["metadata"]["uid"])
                    self._take(kind, document)
                elif kind != "BOOKMARK":
                    self.observe(document)

    def _take(self, kind: str, document: Document) -> None:
        key = key_of(document)
        known = self._objects.get(key)
        if known is not None and _is_news(known, kind, document) is False:
            return
        if known is None and kind == "DELETED":
            return
        if known is not None:
            self._by_controller.get(controller_of(known), {}).pop(key, None)
            del self._objects[key]
        if kind != "DELETED":
            self._objects[key] = document
            self._by_controller.setdefault(controller_of(document), {})[key] = document
            kind = "ADDED" if known is None else "MODIFIED"
        for handler in self._handlers:
            handler(kind, document)


def _is_news(known: Document, kind: str, document: Document) -> bool:
    """A deletion counts only for the very object; any other state if it is newer than the one known."""
    if kind == "DELETED":
        return bool(known["metadata"]["uid"] == document["metadata"]["uid"])
    return int(document["metadata"]["resourceVersion"]) > int(known["metadata"]["resourceVersion"])


class WorkQueue:
    """Calls `sync` for every key that was added: one call at a time for a key, several keys at once.

    A key added while it is being worked on is worked on again. A failed call is repeated after a back-off.
    """

    def __init__(
        self, sync: Callable[[Key], Awaitable[None]], *, workers: int = 5, first_backoff_s: float = 0.005
    ) -> None:
        self._sync = sync
        self._slots = asyncio.Semaphore(workers)
        self._first_backoff_s = first_backoff_s
        self._waiting: set[Key] = set()
        self._delayed: list[asyncio.TimerHandle] = []
        self._tasks: dict[Key, asyncio.Task[None]] = {}

    def add(self, key: Key) -> None:
        self._waiting.add(key)
        if key not in self._tasks:
            self._tasks[key] = asyncio.create_task(self._work(key), name=f"sync {'/'.join(key)}")

    def add_after(self, key: Key, delay_s: float) -> None:
        """Add a key later, unless the queue is stopped by then."""
        handle = asyncio.get_running_loop().call_later(delay_s, self.add, key)
        self._delayed = [other for other in self._delayed if other.when() > handle.when() - delay_s]
        self._delayed.append(handle)

    async def stop(self) -> None:
        """Cancel what is under way and what is to come, and wait for it."""
        for handle in self._delayed:
            handle.cancel()
        await cancel(self._tasks.values())

    async def _work(self, key: Key) -> None:
        failures = 0
        try:
            while key in self._waiting:
                async with self._slots:
                    self._waiting.discard(key)
                    failures = 0 if await self._attempt(key) else failures + 1
                if failures:
                    await asyncio.sleep(min(30.0, self._first_backoff_s * 2**failures))
        finally:
            del self._tasks[key]

    async def _attempt(self, key: Key) -> bool:
        try:
            await self._sync(key)
        except UNREACHABLE as error:
            log.debug("Working on %s failed and will be repeated: %s", "/".join(key), error)
            self._waiting.add(key)
            return False
        except Exception:
            log.exception("Working on %s failed; it is looked at again when it changes.", "/".join(key))
        return True


async def cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until each has ended."""
    pending = list(tasks)
    for task in pending:
        task.cancel()
    for task in pending:
        with suppress(asyncio.CancelledError):
            await task
