"""One pod's life on the node: bound, started, reported, and taken down again."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from deploy.sandbox.client import ApiClient
from deploy.sandbox.errors import ApiError
from deploy.sandbox.event_recorder import EventRecorder
from deploy.sandbox.informers import UNREACHABLE, cancel
from deploy.sandbox.node.containers import Container, search_path
from deploy.sandbox.node.pod_environment import MissingKey, environment, pod_fields, references
from deploy.sandbox.node.pod_status import pod_status
from deploy.sandbox.node.process_guard import ProcessGuard
from deploy.sandbox.objects import timestamp
from deploy.sandbox.resources import CONFIGMAPS, PODS, SECRETS, Document

log = logging.getLogger(__name__)

HOLD = "lab/hold"
"""Annotation that holds a pod back: unscheduled, pending or unready. Without it the pod goes on."""
RETRY_DELAY_S = 1.0


class PodGone(Exception):
    """The pod's object is no more, or is another one of the same name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Termination:
    """The end of a container of a deleted pod; `was_killed` if it did not end within its grace period."""

    namespace: str
    pod: str
    uid: str
    container: str
    was_killed: bool
    exit_code: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What all pods of a node share."""

    name: str
    client: ApiClient
    events: EventRecorder
    guard: ProcessGuard
    directory: Path
    restart_backoff_s: float
    on_termination: Callable[[Termination], None]


class PodWorker:
    """Brings one pod to where its object says it should be; `update` hands it newer states of that."""

    def __init__(self, pod: Document, node: Node, *, ip: str) -> None:
        self._pod = pod
        self._node = node
        self._ip = ip
        self._started_at = timestamp(datetime.now(UTC))
        self._changed = asyncio.Event()
        self._object_changed = asyncio.Event()
        self._deletion_began: float | None = None
        metadata = pod["metadata"]
        self._directory = node.directory / metadata["uid"]
        log_file = node.directory / f"{metadata['namespace']}_{metadata['name']}.log"
        self._containers = [
            Container(
                spec,
                directory=self._directory,
                log_file=log_file,
                guard=node.guard,
                changed=self._changed.set,
                restart_backoff_s=node.restart_backoff_s,
                restart_policy=pod["spec"].get("restartPolicy", "Always"),
            )
            for spec in pod["spec"].get("containers") or []
        ]

    @property
    def uid(self) -> str:
        return str(self._pod["metadata"]["uid"])

    def update(self, pod: Document) -> None:
        """A newer state of the pod's object."""
        self._pod = pod
        if self._is_deleted and self._deletion_began is None:
            self._deletion_began = time.monotonic()
        self._object_changed.set()
        self._changed.set()

    async def run(self) -> None:
        """From binding to the last DELETE; cancelled when the object is gone before that."""
        self.update(self._pod)
        await self._until(lambda: self._hold != "unscheduled")
        await self._insist(self._bind)
        await self._until(lambda: self._hold != "pending")
        if not self._is_deleted:
            await self._live()
        await self._insist(self._remove)

    async def kill(self) -> None:
        """The object is gone: nothing is left to wait for."""
        for container in self._containers:
            if await container.kill():
                self._say_terminated(container.report.name, was_killed=True, exit_code=-9, seconds=0.0)

    async def shut_down(self, grace_s: float) -> None:
        """Stop the processes because the node goes down; the pod's object stays as it is."""
        deadline = time.monotonic() + grace_s
        await asyncio.gather(*(one.stop(lambda: deadline - time.monotonic()) for one in self._containers))

    @property
    def _hold(self) -> str:
        return str((self._pod["metadata"].get("annotations") or {}).get(HOLD, ""))

    @property
    def _is_deleted(self) -> bool:
        return "deletionTimestamp" in self._pod["metadata"]

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait until the object fulfils a condition, or is being deleted."""
        while not condition() and not self._is_deleted:
            self._object_changed.clear()
            await self._object_changed.wait()

    async def _bind(self) -> None:
        metadata = self._pod["metadata"]
        if not self._pod["spec"].get("nodeName"):
            change = {"metadata": {"uid": self.uid}, "spec": {"nodeName": self._node.name}}
            await self._node.client.patch(PODS, metadata["namespace"], metadata["name"], change)
            text = f"Successfully assigned {metadata['namespace']}/{metadata['name']} to {self._node.name}"
            self._node.events.record(self._pod, "Scheduled", text)

    async def _live(self) -> None:
        has_processes = any(one.has_command for one in self._containers)
        if has_processes:
            self._directory.mkdir(parents=True, exist_ok=True)
        tasks = [asyncio.create_task(self._report(), name=f"status of {self.uid}")]
        for spec, container in zip(self._pod["spec"]["containers"], self._containers, strict=True):
            tasks.append(asyncio.create_task(container.run(partial(self._environment, spec))))
            tasks.append(asyncio.create_task(container.probe()))
        try:
            await self._until(lambda: False)
            await self._terminate()
        finally:
            await cancel(tasks)

    async def _environment(self, spec: Document) -> Mapping[str, str]:
        """The container's environment, once all that it refers to is there."""
        metadata = self._pod["metadata"]
        base = {
            "PATH": search_path(),
            "HOME": str(self._directory),
            "HOSTNAME": metadata["name"],
            "LANG": "C.UTF-8",
        }
        while True:
            try:
                sources = {one: await self._source(*one) for one in set(references(spec))}
                fields = pod_fields(self._pod, ip=self._ip)
                return environment(spec, fields=fields, sources=sources, base=base)
            except (*UNREACHABLE, MissingKey) as error:
                self._node.events.record(self._pod, "Failed", f"Error: {error}", severity="Warning")
                await asyncio.sleep(RETRY_DELAY_S)

    async def _source(self, kind: str, name: str) -> Document:
        resource = SECRETS if kind == "Secret" else CONFIGMAPS
        try:
            return await self._node.client.get(resource, self._pod["metadata"]["namespace"], name)
        except ApiError as error:
            if error.code != 404:
                raise
            return {}  # an optional key may be taken from nothing

    async def _report(self) -> None:
        """Write the status whenever it differs from what was written last."""
        written: Document = {}
        while True:
            self._changed.clear()
            reports = [one.report for one in self._containers]
            if self._hold == "unready":
                reports = [replace(one, is_ready=False) for one in reports]
            now = timestamp(datetime.now(UTC))
            before = written or self._pod.get("status") or {}
            status = pod_status(reports, before=before, ip=self._ip, started_at=self._started_at, now=now)
            if status == written or not any(one.started_at for one in reports):
                await self._changed.wait()
            elif await self._write_status(status):
                written = status
            else:
                await asyncio.sleep(RETRY_DELAY_S)

    async def _write_status(self, status: Document) -> bool:
        metadata = self._pod["metadata"]
        change = {"metadata": {"uid": self.uid}, "status": status}
        try:
            await self._node.client.patch(
                PODS, metadata["namespace"], metadata["name"], change, subresource="status"
            )
        except UNREACHABLE as error:
            log.debug("The status of %s was not written: %s", metadata["name"], error)
            return False
        return True

    async def _terminate(self) -> None:
        """Stop all containers side by side; readiness goes on being reported while they take their time."""
        running = [one for one in self._containers if one.has_command]
        for container in running:
            text = f"Stopping container {container.report.name}"
            self._node.events.record(self._pod, "Killing", text)
        for stopped in await asyncio.gather(*(one.stop(self._remaining_s) for one in running)):
            if stopped is not None:
                self._say_terminated(
                    stopped.container,
                    was_killed=stopped.was_killed,
                    exit_code=stopped.exit_code,
                    seconds=stopped.seconds,
                )

    def _remaining_s(self) -> float:
        """What is left of the grace period, which a second deletion may have shortened."""
        grace_s = float(self._pod["metadata"].get("deletionGracePeriodSeconds", 30))
        return (self._deletion_began or 0.0) + grace_s - time.monotonic()

    def _say_terminated(self, container: str, *, was_killed: bool, exit_code: int, seconds: float) -> None:
        metadata = self._pod["metadata"]
        self._node.on_termination(
            Termination(
                namespace=metadata["namespace"],
                pod=metadata["name"],
                uid=self.uid,
                container=container,
                was_killed=was_killed,
                exit_code=exit_code,
                seconds=seconds,
            )
        )

    async def _remove(self) -> None:
        metadata = self._pod["metadata"]
        with contextlib.suppress(OSError):
            self._directory.rmdir()  # kept if the pod left something in it
        await self._node.client.delete(PODS, metadata["namespace"], metadata["name"], grace_s=0, uid=self.uid)

    async def _insist(self, act: Callable[[], Awaitable[None]]) -> None:
        """Do something to the object, again and again while the API server is away. Raises PodGone."""
        while True:
            try:
                return await act()
            except UNREACHABLE as error:
                if getattr(error, "code", None) in (404, 409):
                    raise PodGone(f"the pod {self._pod['metadata']['name']} is gone") from error
                await asyncio.sleep(RETRY_DELAY_S)
