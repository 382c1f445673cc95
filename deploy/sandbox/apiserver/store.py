"""The objects and their history, as etcd and the watch cache keep them for the real API server.

Stored documents are never changed in place: whoever writes, stores a new one. So a reader may keep what it
got, and a writer knows by identity whether somebody else wrote in between.
"""

import asyncio
import json
from collections import deque
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from deploy.sandbox.errors import expired
from deploy.sandbox.resources import Document, Resource

ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]


@dataclass(frozen=True, slots=True)
class Key:
    """Where an object lives; `namespace` is empty for cluster-scoped kinds."""

    resource: Resource
    namespace: str
    name: str


class Change:
    """One write, with the object before it so that a watch can tell who enters and leaves its selection."""

    def __init__(
        self, type_: ChangeType, document: Document, previous: Document | None, resource_version: int
    ) -> None:
        self.type: ChangeType = type_
        self.document = document
        self.previous = previous
        self.resource_version = resource_version

    @cached_property
    def encoded(self) -> str:
        """The document as JSON, made once for all watchers."""
        return json.dumps(self.document, separators=(",", ":"))


class History:
    """The latest changes of one resource, oldest first, and who is watching them."""

    def __init__(self, limit: int) -> None:
        self._changes: deque[Change] = deque(maxlen=limit)
        self._forgotten_up_to = 0
        self.watchers: set[asyncio.Queue[Change]] = set()

    def append(self, change: Change) -> None:
        """Remember a change and hand it to every watcher."""
        if len(self._changes) == self._changes.maxlen:
            self._forgotten_up_to = self._changes[0].resource_version
        self._changes.append(change)
        for queue in self.watchers:
            queue.put_nowait(change)

    def since(self, resource_version: int) -> list[Change]:
        """Changes after a version. Raises ApiError 410 when some of them are no longer known."""
        if resource_version < self._forgotten_up_to:
            raise expired(resource_version, self._forgotten_up_to)
        return [change for change in self._changes if change.resource_version > resource_version]


class ObjectStore:
    """Every object of the cluster under one increasing resourceVersion."""

    def __init__(self, *, history_limit: int = 10_000) -> None:
        self.resource_version = 1
        self._objects: dict[Resource, dict[tuple[str, str], Document]] = {}
        self._histories: dict[Resource, History] = {}
        self._dependents: dict[str, set[Key]] = {}
        self._history_limit = history_limit

    def get(self, key: Key) -> Document | None:
        """The stored document; not to be changed by the caller."""
        return self._objects.get(key.resource, {}).get((key.namespace, key.name))

    def select(self, resource: Resource, namespace: str = "") -> list[Document]:
        """All objects of a resource, or those of one namespace, in name order as etcd gives them."""
        stored = self._objects.get(resource, {})
        return [stored[at] for at in sorted(stored) if not namespace or at[0] == namespace]

    def put(self, key: Key, document: Document) -> Document:
        """Store a document under the next resourceVersion and tell the watchers. Returns what was stored."""
        previous = self.get(key)
        self.resource_version += 1
        stored = document | {
            "metadata": document["metadata"] | {"resourceVersion": str(self.resource_version)}
        }
        self._objects.setdefault(key.resource, {})[key.namespace, key.name] = stored
        self._reindex_owners(key, previous, stored)
        self._record("MODIFIED" if previous else "ADDED", key.resource, stored, previous)
        return stored

    def remove(self, key: Key) -> Document | None:
        """Take an object out. Returns its last state under the resourceVersion of the removal."""
        previous = self._objects.get(key.resource, {}).pop((key.namespace, key.name), None)
        if previous is None:
            return None
        self.resource_version += 1
        last = previous | {"metadata": previous["metadata"] | {"resourceVersion": str(self.resource_version)}}
        self._reindex_owners(key, previous, None)
        self._record("DELETED", key.resource, last, previous)
        return last

    def dependents(self, owner_uid: str) -> list[Key]:
        """Which objects name this owner in their ownerReferences."""
        return sorted(self._dependents.get(owner_uid, ()), key=lambda key: (key.namespace, key.name))

    def history(self, resource: Resource) -> History:
        """The changes of one resource."""
        return self._histories.setdefault(resource, History(self._history_limit))

    def _record(
        self, kind: ChangeType, resource: Resource, document: Document, previous: Document | None
    ) -> None:
        self.history(resource).append(Change(kind, document, previous, self.resource_version))

    def _reindex_owners(self, key: Key, before: Document | None, after: Document | None) -> None:
        old, new = owner_uids(before), owner_uids(after)
        for uid in old - new:
            self._dependents[uid].discard(key)
            if not self._dependents[uid]:
                del self._dependents[uid]
        for uid in new - old:
            self._dependents.setdefault(uid, set()).add(key)


def owner_uids(document: Document | None) -> frozenset[str]:
    """The uids of an object's owners."""
    if document is None:
        return frozenset()
    return frozenset(owner["uid"] for owner in document["metadata"].get("ownerReferences", ()))
