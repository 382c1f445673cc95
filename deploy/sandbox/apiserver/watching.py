"""Watches: what was asked for since a resourceVersion, and then as it happens."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass

from deploy.sandbox.apiserver.selection import Selection
from deploy.sandbox.apiserver.store import Change, ObjectStore
from deploy.sandbox.errors import ApiError, bad_request
from deploy.sandbox.resources import Document, Resource

DEFAULT_TIMEOUT_S = 1800.0
BOOKMARK_INTERVAL_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What one client watches. `render`, if any, makes the representation the client asked for."""

    resource: Resource
    namespace: str
    name: str
    selection: Selection
    since: int | None
    timeout_s: float
    bookmarks: bool
    initial_events: bool
    render: Callable[[Document], Document] | None = None
    bookmark_every_s: float = BOOKMARK_INTERVAL_S

    def covers(self, document: Document) -> bool:
        """Whether an object is within what is watched."""
        metadata = document["metadata"]
        if self.namespace and metadata.get("namespace") != self.namespace:
            return False
        return self.name in ("", metadata["name"]) and self.selection.matches(document)


def parse_watch(
    resource: Resource, namespace: str, name: str, selection: Selection, query: Mapping[str, str]
) -> Watch:
    """The watch a query asks for. Raises ApiError 400 for a resourceVersion that is no number."""
    version = query.get("resourceVersion") or "0"
    if not version.isdigit():
        raise bad_request(f"invalid resource version {version!r}")
    return Watch(
        resource=resource,
        namespace=namespace,
        name=name,
        selection=selection,
        since=int(version) or None,
        timeout_s=float(query.get("timeoutSeconds") or DEFAULT_TIMEOUT_S),
        bookmarks=query.get("allowWatchBookmarks") in ("true", "1"),
        initial_events=query.get("sendInitialEvents") in ("true", "1"),
    )


async def events(store: ObjectStore, watch: Watch) -> AsyncGenerator[str, None]:
    """The lines of a watch's answer, one or more JSON events in each piece, until its time is over."""
    history = store.history(watch.resource)
    queue: asyncio.Queue[Change] = asyncio.Queue()
    history.watchers.add(queue)
    try:
        yield _beginning(store, watch)
        async for piece in _following(store, watch, queue):
            yield piece
    except ApiError as error:
        # Past this point the real server no longer answers with an HTTP code either.
        yield _line("ERROR", json.dumps(error.status()))
    finally:
        history.watchers.discard(queue)


def _beginning(store: ObjectStore, watch: Watch) -> str:
    if watch.since is not None and not watch.initial_events:
        return _lines(watch, store.history(watch.resource).since(watch.since))
    found = filter(watch.covers, store.select(watch.resource, watch.namespace))
    lines = "".join(_event(watch, "ADDED", document) for document in found)
    if watch.initial_events and watch.bookmarks:
        lines += _bookmark(store, watch, {"k8s.io/initial-events-end": "true"})
    return lines


async def _following(store: ObjectStore, watch: Watch, queue: asyncio.Queue[Change]) -> AsyncIterator[str]:
    now = time.monotonic
    deadline, bookmark_at = now() + watch.timeout_s, now() + watch.bookmark_every_s
    while now() < deadline:
        changes = await _changes(queue, within_s=min(deadline, bookmark_at) - now())
        lines = _lines(watch, changes)
        # Changes of others do not put it off: a client that hears nothing takes the watch for dead.
        if not changes or now() >= bookmark_at:
            bookmark_at = now() + watch.bookmark_every_s
            lines += _bookmark(store, watch) if watch.bookmarks else ""
        yield lines


async def _changes(queue: asyncio.Queue[Change], *, within_s: float) -> list[Change]:
    """Those that are there, or else the first ones that come in time."""
    try:
        async with asyncio.timeout(within_s):
            changes = [await queue.get()]
    except TimeoutError:
        return []
    while not queue.empty():
        changes.append(queue.get_nowait())
    return changes


def _lines(watch: Watch, changes: list[Change]) -> str:
    return "".join(_change(watch, change) for change in changes)


def _change(watch: Watch, change: Change) -> str:
    is_in = watch.covers(change.document)
    was_in = change.previous is not None and watch.covers(change.previous)
    if not (is_in or was_in):
        return ""
    gone = change.type == "DELETED" or not is_in
    kind = "DELETED" if gone else "MODIFIED" if was_in else "ADDED"
    return _line(kind, change.encoded) if watch.render is None else _event(watch, kind, change.document)


def _event(watch: Watch, kind: str, document: Document) -> str:
    rendered = document if watch.render is None else watch.render(document)
    return _line(kind, json.dumps(rendered, separators=(",", ":")))


def _bookmark(store: ObjectStore, watch: Watch, annotations: Mapping[str, str] | None = None) -> str:
    metadata: Document = {"resourceVersion": str(store.resource_version), "creationTimestamp": None}
    if annotations:
        metadata["annotations"] = dict(annotations)
    kind = {"kind": watch.resource.kind, "apiVersion": watch.resource.api_version}
    return _line("BOOKMARK", json.dumps(kind | {"metadata": metadata}))


def _line(kind: str, encoded: str) -> str:
    return f'{{"type":"{kind}","object":{encoded}}}\n'
