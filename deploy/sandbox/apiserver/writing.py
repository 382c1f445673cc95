"""Writes: admission inside an optimistic-lock loop, as the real API server does it.

A write that finds the object changed after its admission starts over on the new state and is reviewed again,
until it fits or the request's time is over; a body that names its resourceVersion is a conflict instead.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from deploy.sandbox.apiserver.authentication import User
from deploy.sandbox.apiserver.deletion import Remover
from deploy.sandbox.apiserver.scale import scale_of, with_scale
from deploy.sandbox.apiserver.store import Key, ObjectStore
from deploy.sandbox.apiserver.strategy import new_object, uid_mismatch, updated_object
from deploy.sandbox.errors import ApiError, already_exists, conflict, not_found
from deploy.sandbox.resources import NAMESPACES, Document, Resource

Operation = Literal["CREATE", "UPDATE", "DELETE"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One write request. `warnings` go to the user, `annotations` to the audit; `deadline` is monotonic."""

    user: User
    resource: Resource
    namespace: str
    name: str
    subresource: str = ""
    dry_run: bool = False
    deadline: float
    options: Document = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """Where the object lives."""
        return Key(self.resource, self.namespace, self.name)


class Admission(Protocol):
    """What may refuse a write: asked at every attempt."""

    async def review(
        self, write: Write, operation: Operation, document: Document | None, old: Document | None
    ) -> None:
        """Raises ApiError to refuse."""
        ...


class Writer:
    """Carries writes out on the store."""

    def __init__(
        self,
        store: ObjectStore,
        admission: Admission,
        clock: Callable[[], datetime],
        *,
        honours_costs: bool = True,
    ) -> None:
        self._honours_costs = honours_costs
        self._store = store
        self._admission = admission
        self._clock = clock
        self._remover = Remover(store, clock)

    async def create(self, write: Write, document: Document) -> Document:
        """Store a new object. Raises ApiError: 404 without its namespace, 409 when the name is taken."""
        resource, namespace = write.resource, write.namespace
        if resource.namespaced and self._store.get(Key(NAMESPACES, "", namespace)) is None:
            raise not_found(NAMESPACES, namespace)
        created = new_object(
            resource,
            document,
            namespace=namespace,
            now=self._clock(),
            honours_costs=self._honours_costs,
        )
        key = Key(resource, namespace, created["metadata"]["name"])
        await self._admission.review(write, "CREATE", created, None)
        if self._store.get(key) is not None:
            raise already_exists(resource, key.name)
        return created if write.dry_run else self._store.put(key, created)

    async def update(self, write: Write, change: Callable[[Document], Document]) -> Document:
        """Apply a change to an object or its Scale, again until it is stored on the state it was made for.

        Raises ApiError: 404 when there is no object, 409 for a stale body, and what admission refuses with.
        """
        first = True
        while True:
            current = self._current(write.key)
            updated = self._updated(write, current, change)
            try:
                await self._admission.review(write, "UPDATE", _view(write, updated), _view(write, current))
            except ApiError:
                # The first attempt works on a cached state: a refusal of an old one is asked for again.
                if not first or self._store.get(write.key) is current:
                    raise
            else:
                if self._store.get(write.key) is current:
                    return _view(write, self._stored(write, current, updated))
            first = False

    async def delete(self, write: Write, options: Document) -> Document:
        """Delete an object, or begin to. Returns its last state. Raises ApiError 404 or 409."""
        while True:
            current = self._current(write.key)
            _check_preconditions(write.resource, current, options.get("preconditions") or {})
            await self._admission.review(write, "DELETE", None, current)
            if self._store.get(write.key) is current:
                break
        if write.dry_run:
            return current
        propagation = options.get("propagationPolicy") or "Background"
        last = self._remover.remove(
            write.key, grace_s=options.get("gracePeriodSeconds"), propagation=propagation
        )
        assert last is not None
        return last

    def _current(self, key: Key) -> Document:
        current = self._store.get(key)
        if current is None:
            raise not_found(key.resource, key.name)
        return current

    def _updated(self, write: Write, current: Document, change: Callable[[Document], Document]) -> Document:
        changed = change(_view(write, current))
        if write.subresource == "scale":
            changed = with_scale(write.resource, current, changed)
        return updated_object(
            write.resource,
            current,
            changed,
            subresource=write.subresource,
            honours_costs=self._honours_costs,
        )

    def _stored(self, write: Write, current: Document, updated: Document) -> Document:
        # A write that changes nothing is not stored: no new resourceVersion, no event.
        return updated if write.dry_run or updated == current else self._store.put(write.key, updated)


def _view(write: Write, document: Document) -> Document:
    return scale_of(document) if write.subresource == "scale" else document


def _check_preconditions(resource: Resource, current: Document, preconditions: Document) -> None:
    metadata = current["metadata"]
    name = metadata["name"]
    if preconditions.get("uid", metadata["uid"]) != metadata["uid"]:
        raise conflict(resource, name, uid_mismatch(preconditions["uid"], metadata["uid"]))
    if preconditions.get("resourceVersion", metadata["resourceVersion"]) != metadata["resourceVersion"]:
        raise conflict(resource, name)
