"""One list of the Kubernetes API kept current in memory: list, watch, resume, list again when told to."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Generic, Protocol, TypeVar

from shared.errors import Gone, KubernetesError
from shared.kube_documents import Listing, WatchEvent
from shared.pods import Document

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0
SOUND_WATCH_S = 1.0

T = TypeVar("T")


class Source(Protocol):
    """What a mirror asks of the Kubernetes door."""

    async def list_objects(
        self, path: str, *, label_selector: str = "", field_selector: str = ""
    ) -> Listing: ...

    def watch(
        self, path: str, *, resource_version: str, label_selector: str = "", field_selector: str = ""
    ) -> AsyncGenerator[WatchEvent, None]: ...


class Mirror(Generic[T]):
    """The objects of one path, by name, as `parse` reads them; current as long as `run` runs."""

    def __init__(
        self,
        source: Source,
        path: str,
        *,
        parse: Callable[[Document], T],
        on_change: Callable[[], None],
        clock: Callable[[], float],
        label_selector: str = "",
        field_selector: str = "",
    ) -> None:
        self._source = source
        self._path = path
        self._selectors = {"label_selector": label_selector, "field_selector": field_selector}
        self._parse = parse
        self._on_change = on_change
        self._clock = clock
        self._resource_version = ""
        self._failures = 0
        self._asked_to_wait_s = 0.0
        """By the API server, with the last failure."""
        self._opened_at = 0.0
        self._was_cut_at: float | None = None
        self.items: dict[str, T] = {}
        self.is_synced = False
        """Whether it has been listed once."""
        self.cut_at: float | None = clock()
        """Since when nothing is heard, by `clock`; None while the watch is open."""

    async def run(self) -> None:
        """Follow the list for ever: whatever fails is tried again, more and more slowly."""
        while True:
            self._asked_to_wait_s = 0.0
            try:
                if not self._resource_version:
                    await self._list()
                await self._follow()
                self._ended()
            except Gone:
                self._start_over()
            except KubernetesError as error:
                self._log_failure(error)
            except Exception:
                # An object nobody expected must not end the watch for good.
                log.exception("What %s sent could not be read; it is listed again.", self._path)
                self._start_over()
            self._cut()
            await asyncio.sleep(self._pause_s())

    async def _list(self) -> None:
        asked_at = self._clock()
        listing = await self._source.list_objects(self._path, **self._selectors)
        self.items = {document["metadata"]["name"]: self._parse(document) for document in listing.items}
        self._resource_version = listing.resource_version
        self.is_synced = True
        self.cut_at = asked_at
        self._on_change()

    async def _follow(self) -> None:
        self._opened_at, self._was_cut_at = self._clock(), self.cut_at
        events = self._source.watch(self._path, resource_version=self._resource_version, **self._selectors)
        async with aclosing(events):
            async for event in events:
                self._reconnected()
                self._apply(event)

    def _apply(self, event: WatchEvent) -> None:
        metadata = event.object["metadata"]
        if event.type == "DELETED":
            self.items.pop(metadata["name"], None)
        elif event.type in ("ADDED", "MODIFIED"):
            self.items[metadata["name"]] = self._parse(event.object)
        self._resource_version = metadata["resourceVersion"]
        if event.type != "BOOKMARK":
            self._failures = 0
            self._on_change()

    def _ended(self) -> None:
        """The server ends watches after some minutes; one that never lasts is a failure too."""
        lasted_s = self._clock() - self._opened_at
        self._failures = 0 if lasted_s >= SOUND_WATCH_S else self._failures + 1

    def _reconnected(self) -> None:
        if self.cut_at is not None:
            self.cut_at = None
            self._on_change()

    def _cut(self) -> None:
        if self.cut_at is None:
            now = self._clock()
            # One that breaks at once may not have brought what happened before it; else a watch that can
            # never be read would look as if it were always heard.
            self.cut_at = now if now - self._opened_at >= SOUND_WATCH_S else self._was_cut_at
            self._on_change()

    def _start_over(self) -> None:
        self._resource_version = ""
        self._failures += 1

    def _log_failure(self, error: KubernetesError) -> None:
        self._failures += 1
        self._asked_to_wait_s = error.retry_after_s
        # Once when it begins, then with every doubling: a control plane that restarts needs no hundred lines.
        if self._failures & (self._failures - 1) == 0:
            log.warning("%s cannot be followed, trying again: %s", self._path, error)

    def _pause_s(self) -> float:
        """Doubles with every failure, by a random share so that replicas do not come back together.

        As long as the API server asks for if that is longer, but never so long that it looks dead.
        """
        longest: float = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._failures, 10))
        return max(random.uniform(0.5, 1.0) * longest, min(LONGEST_PAUSE_S, self._asked_to_wait_s))
