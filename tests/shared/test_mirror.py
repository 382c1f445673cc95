"""A list kept current: it resumes where it was cut, and lists again when it has to."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from shared.errors import Gone, KubernetesUnavailable
from shared.kube_documents import Listing, WatchEvent
from shared.mirror import Mirror
from shared.pods import Document
from tests.model.virtual_time import VirtualLoop


class ScriptedSource:
    """Lists and watches as the test wrote them down; a watch that ends the script never ends."""

    def __init__(self, *, lists: Sequence[Listing | Exception], watches: Sequence[Sequence[Any]]) -> None:
        self.lists = list(lists)
        self.watches = [list(watch) for watch in watches]
        self.asked: list[str] = []
        self.is_exhausted = asyncio.Event()

    async def list_objects(self, path: str, *, label_selector: str = "", field_selector: str = "") -> Listing:
        self.asked.append("list")
        answer = self.lists.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def watch(
        self, path: str, *, resource_version: str, label_selector: str = "", field_selector: str = ""
    ) -> AsyncGenerator[WatchEvent, None]:
        self.asked.append(f"watch from {resource_version}")
        yield event("BOOKMARK", resource_version)
        for item in self.watches.pop(0):
            if isinstance(item, Exception):
                raise item
            yield item
        if not self.watches:
            self.is_exhausted.set()
            await asyncio.Event().wait()


def thing(name: str, version: str, value: str = "") -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": version}, "value": value}


def event(kind: str, version: str, name: str = "", value: str = "") -> WatchEvent:
    return WatchEvent(type=kind, object=thing(name, version, value))


def listing(version: str, *names: str) -> Listing:
    return Listing(items=tuple(thing(name, version) for name in names), resource_version=version)


def read(document: Document) -> str:
    return str(document["value"])


async def mirrored(source: ScriptedSource) -> "Mirror[str]":
    """The mirror when the script has been played."""
    mirror = Mirror(source, "/things", parse=read, on_change=lambda: None, clock=lambda: 42.0)
    task = asyncio.create_task(mirror.run())
    await asyncio.wait_for(source.is_exhausted.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return mirror


async def test_it_lists_then_applies_what_changes() -> None:
    script = [event("ADDED", "2", "b", "1"), event("MODIFIED", "3", "b", "2"), event("DELETED", "4", "a")]
    source = ScriptedSource(lists=[listing("1", "a")], watches=[script])
    mirror = await mirrored(source)
    assert mirror.items == {"b": "2"}
    assert source.asked == ["list", "watch from 1"]


async def test_a_watch_that_ends_is_resumed_where_it_ended() -> None:
    """Bookmarks count: without them a quiet watch would go back to a version that is too old."""
    source = ScriptedSource(
        lists=[listing("1")],
        watches=[[event("ADDED", "5", "a"), event("BOOKMARK", "9")], []],
    )
    mirror = await mirrored(source)
    assert source.asked == ["list", "watch from 1", "watch from 9"]
    assert list(mirror.items) == ["a"]


async def test_a_connection_that_breaks_is_resumed_too() -> None:
    source = ScriptedSource(
        lists=[listing("1")],
        watches=[[event("ADDED", "5", "a"), KubernetesUnavailable("reset")], [event("ADDED", "6", "b")]],
    )
    mirror = await mirrored(source)
    assert source.asked == ["list", "watch from 1", "watch from 5"]
    assert list(mirror.items) == ["a", "b"]


async def test_a_version_that_is_too_old_means_listing_again() -> None:
    """What was deleted meanwhile must not live on."""
    source = ScriptedSource(
        lists=[listing("1", "old"), listing("7", "new")], watches=[[Gone("too old", status=410)], []]
    )
    mirror = await mirrored(source)
    assert source.asked == ["list", "watch from 1", "list", "watch from 7"]
    assert list(mirror.items) == ["new"]


async def test_a_list_that_fails_is_tried_again() -> None:
    source = ScriptedSource(lists=[KubernetesUnavailable("starting"), listing("1", "a")], watches=[[]])
    mirror = await mirrored(source)
    assert source.asked == ["list", "list", "watch from 1"]
    assert mirror.is_synced


async def test_an_object_that_cannot_be_read_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    unreadable = WatchEvent(type="ADDED", object={"metadata": {"name": "a", "resourceVersion": "2"}})
    source = ScriptedSource(lists=[listing("1"), listing("3", "b")], watches=[[unreadable], []])
    mirror = await mirrored(source)
    assert list(mirror.items) == ["b"]
    assert "could not be read" in caplog.text


async def test_it_says_since_when_it_hears_nothing() -> None:
    """None while the watch is open; the clock's time once it is cut."""
    source = ScriptedSource(lists=[listing("1")], watches=[[]])
    mirror = Mirror(source, "/things", parse=read, on_change=lambda: None, clock=lambda: 42.0)
    assert mirror.cut_at == 42.0
    task = asyncio.create_task(mirror.run())
    await asyncio.wait_for(source.is_exhausted.wait(), 10)
    assert mirror.cut_at is None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_watch_that_breaks_at_once_again_and_again_is_not_heard() -> None:
    """What it should bring never arrives, so what is known stays as old as the list."""
    broken = KubernetesUnavailable("garbled")
    source = ScriptedSource(lists=[listing("1")], watches=[[broken], [broken], [broken], []])
    moments = itertools.count(start=100.0, step=0.01)
    cuts: list[float | None] = []
    mirror = Mirror(
        source,
        "/things",
        parse=read,
        on_change=lambda: cuts.append(mirror.cut_at),
        clock=lambda: next(moments),
    )
    task = asyncio.create_task(mirror.run())
    await asyncio.wait_for(source.is_exhausted.wait(), 10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    listed_at = cuts[0]
    assert cuts.count(None) == 4
    assert {cut for cut in cuts if cut is not None} == {listed_at}


@pytest.mark.parametrize(
    ("asked_s", "least_s", "most_s"), [(4.0, 4.0, 4.0), (0.0, 0.1, 0.2), (99.0, 10.0, 10.0)]
)
def test_an_api_server_that_asks_to_be_left_alone_is(asked_s: float, least_s: float, most_s: float) -> None:
    """Priority and fairness answers 429 with Retry-After; but nobody makes us look away for minutes."""
    busy = KubernetesUnavailable("too many requests", status=429, retry_after_s=asked_s)
    source = ScriptedSource(lists=[busy, listing("1")], watches=[[]])
    loop = VirtualLoop()
    try:
        mirror = Mirror(source, "/things", parse=read, on_change=lambda: None, clock=loop.time)
        task = loop.create_task(mirror.run())
        loop.run(source.is_exhausted.wait())
        task.cancel()
    finally:
        loop.end()
    assert least_s <= loop.time() <= most_s
