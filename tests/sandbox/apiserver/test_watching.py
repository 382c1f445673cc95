"""Watches over the wire, and the histories they are resumed from."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from aiohttp import StreamReader

from deploy.sandbox.apiserver.selection import parse_selection
from deploy.sandbox.apiserver.server import ApiServer
from deploy.sandbox.apiserver.store import Key, ObjectStore
from deploy.sandbox.apiserver.watching import events, parse_watch
from deploy.sandbox.resources import PODS as PODS_RESOURCE
from tests.sandbox.apiserver.documents import PODS, pod
from tests.sandbox.conftest import Cluster
from tests.sandbox.http_client import Client, connected

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


@asynccontextmanager
async def watching(client: Client, query: str = "", **headers: str) -> AsyncIterator[StreamReader]:
    """An open watch on the pods of namespace default."""
    url = f"{client.url}{PODS}?watch=true{query}"
    async with client.session.get(url, headers=headers) as response:
        yield response.content


async def event(stream: StreamReader) -> tuple[str, Any]:
    """The next event's type and object."""
    line = json.loads(await stream.readline())
    return line["type"], line["object"]


async def named(stream: StreamReader) -> tuple[str, str]:
    """The next event's type and its object's name."""
    kind, document = await event(stream)
    return kind, document["metadata"]["name"]


async def test_a_watch_begins_with_what_is_there_and_goes_on_from_it(client: Client) -> None:
    """Without a resourceVersion: every object as ADDED, then changes as they happen."""
    await client.post(PODS, pod("a"))
    async with watching(client) as stream:
        assert await named(stream) == ("ADDED", "a")
        await client.patch(f"{PODS}/a", {"metadata": {"labels": {"x": "y"}}})
        assert await named(stream) == ("MODIFIED", "a")
        await client.delete(f"{PODS}/a")
        assert await named(stream) == ("DELETED", "a")


async def test_a_watch_is_resumed_where_a_list_ended(client: Client) -> None:
    """Nothing between the two is lost, and nothing is told twice."""
    await client.post(PODS, pod("a"))
    version = (await client.get(PODS)).body["metadata"]["resourceVersion"]
    await client.post(PODS, pod("b"))
    async with watching(client, f"&resourceVersion={version}") as stream:
        assert await named(stream) == ("ADDED", "b")


async def test_who_enters_a_selection_is_added_and_who_leaves_it_is_deleted(client: Client) -> None:
    """A label change is all it takes."""
    await client.post(PODS, pod("a"))
    async with watching(client, "&labelSelector=x%3Dy") as stream:
        await client.patch(f"{PODS}/a", {"metadata": {"labels": {"x": "y"}}})
        assert await named(stream) == ("ADDED", "a")
        await client.patch(f"{PODS}/a", {"metadata": {"labels": {"x": "z"}}})
        assert await named(stream) == ("DELETED", "a")


async def test_a_watch_of_a_name_sees_nobody_else(client: Client) -> None:
    """fieldSelector metadata.name, as kubectl waits for a deletion."""
    async with watching(client, "&fieldSelector=metadata.name%3Db") as stream:
        await client.post(PODS, pod("a"))
        await client.post(PODS, pod("b"))
        assert await named(stream) == ("ADDED", "b")


async def test_a_version_that_is_forgotten_is_gone(cluster: Cluster) -> None:
    """An ERROR event with a 410 Status: the client has to list again."""
    async with (
        ApiServer(cluster.certificates, history_limit=2) as server,
        connected(server.url, cluster.authority.file, cluster.admin) as client,
    ):
        version = (await client.get(PODS)).body["metadata"]["resourceVersion"]
        for name in ("a", "b", "c"):
            await client.post(PODS, pod(name))
        async with watching(client, f"&resourceVersion={version}") as stream:
            kind, status = await event(stream)
    assert (kind, status["code"], status["reason"]) == ("ERROR", 410, "Expired")


async def test_a_watch_ends_when_its_time_is_over_with_a_bookmark(client: Client) -> None:
    """timeoutSeconds, and the version to go on from for who allows bookmarks."""
    async with watching(client, "&timeoutSeconds=1&allowWatchBookmarks=true") as stream:
        kind, document = await event(stream)
        assert kind == "BOOKMARK"
        assert document["kind"] == "Pod"
        assert document["metadata"]["resourceVersion"].isdigit()
        assert await stream.read() == b""


async def test_the_end_of_the_initial_events_is_marked(client: Client) -> None:
    """sendInitialEvents: a list by way of a watch."""
    await client.post(PODS, pod("a"))
    query = "&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
    async with watching(client, query) as stream:
        assert await named(stream) == ("ADDED", "a")
        kind, document = await event(stream)
        assert kind == "BOOKMARK"
        assert document["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_a_watch_of_tables_sends_tables(client: Client) -> None:
    """`kubectl get -w` gets a row with every event."""
    async with watching(client, Accept=TABLE) as stream:
        await client.post(PODS, pod("a"))
        kind, document = await event(stream)
    assert (kind, document["kind"], document["rows"][0]["cells"][0]) == ("ADDED", "Table", "a")


async def test_many_watchers_see_the_same(client: Client) -> None:
    """One write, one event each."""
    async with watching(client) as first, watching(client) as second:
        await client.post(PODS, pod("a"))
        assert [await named(first), await named(second)] == [("ADDED", "a")] * 2


async def test_a_watcher_who_left_is_forgotten() -> None:
    """Its queue would grow for ever."""
    store = ObjectStore()
    watch = parse_watch(PODS_RESOURCE, "", "", parse_selection(PODS_RESOURCE, {}), {})
    following = events(store, watch)
    await anext(following)
    assert len(store.history(PODS_RESOURCE).watchers) == 1
    await following.aclose()
    assert not store.history(PODS_RESOURCE).watchers


async def test_changes_of_others_put_off_no_bookmark() -> None:
    """A watch of one quiet object among busy ones: its client would take it for dead."""
    store, everything = ObjectStore(), parse_selection(PODS_RESOURCE, {})
    watch = parse_watch(PODS_RESOURCE, "default", "quiet", everything, {"allowWatchBookmarks": "true"})
    following = events(store, replace(watch, bookmark_every_s=0.05))
    await anext(following)
    busy = pod("busy")
    lines = ""
    while not lines:
        busy = store.put(Key(PODS_RESOURCE, "default", "busy"), busy)
        lines = await anext(following)
    await following.aclose()
    bookmark = json.loads(lines)
    assert bookmark["type"] == "BOOKMARK"
    assert bookmark["object"]["metadata"]["resourceVersion"] == str(store.resource_version)
