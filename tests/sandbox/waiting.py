"""Waiting for the emulated cluster to be in a certain state, woken by its own changes."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from deploy.sandbox.apiserver.server import ApiServer
from deploy.sandbox.apiserver.store import Change
from deploy.sandbox.resources import Document, Resource

T = TypeVar("T")


async def until(
    server: ApiServer, resource: Resource, condition: Callable[[list[Document]], T], *, namespace: str = ""
) -> T:
    """What the condition makes of the objects of a resource, as soon as that is something."""
    queue: asyncio.Queue[Change] = asyncio.Queue()
    watchers = server.store.history(resource).watchers
    watchers.add(queue)
    try:
        while not (result := condition(server.store.select(resource, namespace))):
            await queue.get()
        return result
    finally:
        watchers.discard(queue)


def named(name: str, condition: Callable[[Any], Any] = lambda document: True) -> Callable[[list[Any]], Any]:
    """The object of this name, once it is there and fulfils a condition."""

    def find(documents: list[Any]) -> Any:
        found = (one for one in documents if one["metadata"]["name"] == name and condition(one))
        return next(found, None)

    return find


def is_ready(pod: Document) -> bool:
    """Whether a pod's condition Ready is True."""
    conditions = pod.get("status", {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
