"""Events of a component about objects, one after the other and never in its way; repeats raise a count."""

import asyncio
import logging
import secrets
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal, Self

from deploy.sandbox.client import ApiClient
from deploy.sandbox.informers import UNREACHABLE, cancel
from deploy.sandbox.objects import timestamp
from deploy.sandbox.resources import EVENTS, Document

log = logging.getLogger(__name__)

Severity = Literal["Normal", "Warning"]
LAST_WORDS_S = 2.0
LONGEST_MESSAGE = 1024  # the limit of the Event API


class EventRecorder:
    """Writes Events in the background while entered; what was recorded before leaving is still written."""

    def __init__(self, client: ApiClient, *, component: str) -> None:
        self._client = client
        self._component = component
        self._queue: asyncio.Queue[Document] = asyncio.Queue()
        self._written: dict[tuple[str, ...], Document] = {}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=f"events of {self._component}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        with suppress(TimeoutError):
            await asyncio.wait_for(self._queue.join(), LAST_WORDS_S)
        await cancel([self._task])

    def record(self, about: Document, reason: str, message: str, *, severity: Severity = "Normal") -> None:
        """Say something about an object; returns at once."""
        stamp = timestamp(datetime.now(UTC))
        metadata = about["metadata"]
        reference = {
            "kind": about["kind"],
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "apiVersion": about["apiVersion"],
            "resourceVersion": metadata.get("resourceVersion", ""),
        }
        self._queue.put_nowait(
            {
                "metadata": {
                    "name": f"{metadata['name']}.{secrets.token_hex(8)}",
                    "namespace": metadata["namespace"],
                },
                "involvedObject": reference,
                "reason": reason,
                "message": message[:LONGEST_MESSAGE],
                "source": {"component": self._component},
                "reportingComponent": self._component,
                "type": severity,
                "count": 1,
                "firstTimestamp": stamp,
                "lastTimestamp": stamp,
            }
        )

    async def _run(self) -> None:
        while True:
            event = await self._queue.get()
            try:
                await self._write(event)
            except UNREACHABLE as error:
                log.warning("The event %s was not written: %s", event["reason"], error)
            finally:
                self._queue.task_done()

    async def _write(self, event: Document) -> None:
        key = (event["involvedObject"]["uid"], event["type"], event["reason"], event["message"])
        earlier = self._written.get(key)
        if earlier is None:
            self._written[key] = await self._client.create(EVENTS, event)
            return
        metadata = earlier["metadata"]
        change = {"count": earlier["count"] + 1, "lastTimestamp": event["lastTimestamp"]}
        self._written[key] = await self._client.patch(EVENTS, metadata["namespace"], metadata["name"], change)
