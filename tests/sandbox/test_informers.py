"""Informers and work queues: what controllers can rely on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from deploy.sandbox.apiserver.server import ApiServer
from deploy.sandbox.client import ApiClient
from deploy.sandbox.errors import ApiError
from deploy.sandbox.informers import Informer, Key, WorkQueue, cancel
from deploy.sandbox.resources import CONFIGMAPS, Document
from tests.sandbox.api_clients import administrator
from tests.sandbox.conftest import Cluster

NAME: Key = ("default", "a")


class Following:
    """An informer of ConfigMaps that follows, and the events that its handler got."""

    def __init__(self, api: ApiClient, server: ApiServer, informer: Informer) -> None:
        self.api = api
        self.server = server
        self.informer = informer
        self.events: asyncio.Queue[tuple[str, Document]] = asyncio.Queue()
        informer.on_change(lambda kind, document: self.events.put_nowait((kind, document)))

    async def write(self, value: str) -> Document:
        change = {"data": {"value": value}}
        return await self.api.patch(CONFIGMAPS, *NAME, change)

    async def next(self) -> tuple[str, str]:
        """The kind of the next event about our object, and its value."""
        while True:
            kind, document = await self.events.get()
            if document["metadata"]["name"] == NAME[1]:
                return kind, document["data"]["value"]


@asynccontextmanager
async def following(cluster: Cluster, server: ApiServer) -> AsyncIterator[Following]:
    async with administrator(cluster, server) as api:
        metadata = {"namespace": NAME[0], "name": NAME[1]}
        await api.create(CONFIGMAPS, {"metadata": metadata, "data": {"value": "1"}})
        informer = Informer(api, CONFIGMAPS)
        follower = Following(api, server, informer)
        task = asyncio.create_task(informer.run())
        await informer.synced.wait()
        try:
            yield follower
        finally:
            await cancel([task])


async def test_an_informer_tells_of_what_was_there_and_what_comes(
    cluster: Cluster, server: ApiServer
) -> None:
    """List first, then watch; each change once, kinds and all."""
    async with following(cluster, server) as it:
        assert await it.next() == ("ADDED", "1")
        await it.write("2")
        assert await it.next() == ("MODIFIED", "2")
        await it.api.delete(CONFIGMAPS, *NAME)
        assert await it.next() == ("DELETED", "2")
        assert it.informer.get(NAME) is None


async def test_ones_own_write_is_known_before_the_watch_tells(cluster: Cluster, server: ApiServer) -> None:
    """And the watch's event about it is no news any more."""
    async with following(cluster, server) as it:
        await it.next()
        it.informer.observe(await it.write("2"))
        found = it.informer.get(NAME)
        assert found is not None
        assert found["data"] == {"value": "2"}
        await it.write("3")
        assert [await it.next(), await it.next()] == [("MODIFIED", "2"), ("MODIFIED", "3")]


async def test_what_was_forgotten_is_not_brought_back_by_a_late_event(
    cluster: Cluster, server: ApiServer
) -> None:
    """A deletion of ours counts from its answer on, whatever is still on the way."""
    async with following(cluster, server) as it:
        await it.next()
        last = await it.write("2")
        await it.api.delete(CONFIGMAPS, *NAME)
        it.informer.forget(last)
        created = {"metadata": {"namespace": NAME[0], "name": NAME[1]}, "data": {"value": "new"}}
        await it.api.create(CONFIGMAPS, created)
        told = [await it.next()]
        while told[-1][0] != "ADDED":
            told.append(await it.next())
        assert [kind for kind, _ in told][-2:] == ["DELETED", "ADDED"]
        assert told[-1][1] == "new"


async def test_a_watch_that_is_too_old_is_refused(cluster: Cluster) -> None:
    """410: whoever watches has to list again, which is what an informer does."""
    async with (
        ApiServer(cluster.certificates, history_limit=3) as server,
        administrator(cluster, server) as api,
    ):
        first = await api.list(CONFIGMAPS)
        for number in range(6):
            await api.create(CONFIGMAPS, {"metadata": {"namespace": "default", "name": f"c-{number}"}})
        with pytest.raises(ApiError, match="too old resource version") as caught:
            await anext(api.watch(CONFIGMAPS, since=first["metadata"]["resourceVersion"]))
        assert caught.value.code == 410


async def test_a_key_added_while_it_is_worked_on_is_worked_on_again() -> None:
    """One call at a time for a key, and none is lost."""
    calls: list[str] = []
    entered, go_on, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def sync(key: Key) -> None:
        calls.append(key[1])
        if len(calls) == 1:
            entered.set()
            await go_on.wait()
        else:
            finished.set()

    queue = WorkQueue(sync)
    queue.add(NAME)
    await entered.wait()
    queue.add(NAME)
    queue.add(NAME)
    assert calls == ["a"]
    go_on.set()
    await finished.wait()
    assert calls == ["a", "a"]
    await queue.stop()


async def test_a_failed_call_is_repeated() -> None:
    """Until it succeeds, with growing pauses."""
    calls: list[Key] = []
    done = asyncio.Event()

    async def sync(key: Key) -> None:
        calls.append(key)
        if len(calls) < 3:
            raise ApiError(409, "Conflict", "stale")
        done.set()

    queue = WorkQueue(sync, first_backoff_s=0.0001)
    queue.add(NAME)
    await done.wait()
    assert len(calls) == 3
    await queue.stop()


async def test_a_stopped_queue_forgets_what_was_to_come() -> None:
    """No timer of it fires into a loop that has other things to do."""
    calls: list[Key] = []

    async def sync(key: Key) -> None:
        calls.append(key)

    queue = WorkQueue(sync)
    queue.add_after(NAME, 0.0)
    await queue.stop()
    for _ in range(3):
        await asyncio.sleep(0)
    assert calls == []
