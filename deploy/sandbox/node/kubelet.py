"""The kubelet of a node that is this machine: pods are bound, and their commands run as local processes."""

import asyncio
import logging
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.sandbox.client import ApiClient
from deploy.sandbox.errors import ApiError
from deploy.sandbox.event_recorder import EventRecorder
from deploy.sandbox.informers import Informer, cancel
from deploy.sandbox.node.pod_worker import Node, PodGone, PodWorker, Termination
from deploy.sandbox.node.process_guard import ProcessGuard
from deploy.sandbox.resources import NODES, PODS, Document

log = logging.getLogger(__name__)

NODE_NAME = "sandbox-node"
FIRST_ADDRESS = 10  # pods get 127.10.x.y, which every process on the machine may bind


class Kubelet:
    """`async with Kubelet(client, directory=…)` runs pods until the block ends, and no process any longer.

    `directory` gets a log file `NAMESPACE_POD.log` per pod. `terminations` lists every container of a deleted
    pod, with whether it had to be killed.
    """

    def __init__(
        self,
        client: ApiClient,
        *,
        directory: Path,
        node_name: str = NODE_NAME,
        restart_backoff_s: float = 1.0,
        stop_grace_s: float = 3.0,
    ) -> None:
        self.terminations: list[Termination] = []
        self._client = client
        self._directory = directory
        self._node_name = node_name
        self._restart_backoff_s = restart_backoff_s
        self._stop_grace_s = stop_grace_s
        self._workers: dict[str, tuple[PodWorker, asyncio.Task[None]]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._addresses = iter(range(FIRST_ADDRESS, 65_000))
        self._node: Node | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def kills(self) -> list[Termination]:
        """Those containers that did not end within their grace period."""
        return [one for one in self.terminations if one.was_killed]

    async def _start(self, stack: AsyncExitStack) -> None:
        guard = await stack.enter_async_context(ProcessGuard())
        events = await stack.enter_async_context(EventRecorder(self._client, component="kubelet"))
        self._node = Node(
            name=self._node_name,
            client=self._client,
            events=events,
            guard=guard,
            directory=self._directory,
            restart_backoff_s=self._restart_backoff_s,
            on_termination=self._terminated,
        )
        await self._register_node()
        stack.push_async_callback(self._shut_down)
        pods = Informer(self._client, PODS)
        pods.on_change(self._pod_changed)
        watching = asyncio.create_task(pods.run(), name="pods of the node")
        stack.push_async_callback(cancel, [watching])
        await pods.synced.wait()

    async def _register_node(self) -> None:
        try:
            await self._client.create(NODES, _node(self._node_name))
        except ApiError as error:
            if error.code != 409:
                raise
        change = {"status": _node_status()}
        await self._client.patch(NODES, "", self._node_name, change, subresource="status")

    def _pod_changed(self, kind: str, pod: Document) -> None:
        uid = pod["metadata"]["uid"]
        if uid in self._workers:
            worker, task = self._workers[uid]
            if kind == "DELETED":
                self._end(worker, task)
            else:
                worker.update(pod)
        elif kind != "DELETED" and self._is_ours(pod):
            self._begin(pod)

    def _is_ours(self, pod: Document) -> bool:
        has_ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        return pod["spec"].get("nodeName") in (None, "", self._node_name) and not has_ended

    def _begin(self, pod: Document) -> None:
        assert self._node is not None
        number = next(self._addresses)
        worker = PodWorker(pod, self._node, ip=f"127.10.{number // 250}.{number % 250 + 1}")
        task = asyncio.create_task(self._run(worker), name=f"pod {pod['metadata']['name']}")
        self._workers[worker.uid] = worker, task

    async def _run(self, worker: PodWorker) -> None:
        try:
            await worker.run()
        except PodGone as error:
            log.debug("%s before its work was done.", error)
        except Exception:
            log.exception("Looking after a pod failed; its processes are ended.")
            await worker.kill()

    def _end(self, worker: PodWorker, task: asyncio.Task[None]) -> None:
        """The object is gone. Usually we have deleted it ourselves just now; else processes may be left."""
        del self._workers[worker.uid]
        ending = asyncio.create_task(self._finish(worker, task))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _finish(self, worker: PodWorker, task: asyncio.Task[None]) -> None:
        await worker.kill()
        await cancel([task])

    def _terminated(self, termination: Termination) -> None:
        self.terminations.append(termination)
        how = "was killed after its grace period" if termination.was_killed else "ended by itself"
        log.info(
            "The container %s of %s %s (%.1f s, exit code %d).",
            termination.container,
            termination.pod,
            how,
            termination.seconds,
            termination.exit_code,
        )

    async def _shut_down(self) -> None:
        workers = list(self._workers.values())
        await asyncio.gather(*(worker.shut_down(self._stop_grace_s) for worker, _ in workers))
        await cancel(task for _, task in workers)
        await asyncio.gather(*self._ending)


def _node(name: str) -> Document:
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


def _node_status() -> Document:
    room = {"cpu": "1000", "memory": "4Ti", "pods": "20000"}
    return {
        "capacity": room,
        "allocatable": room,
        "conditions": [
            {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "pods run as processes"}
        ],
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "nodeInfo": {"kubeletVersion": "v1.36.2", "operatingSystem": "linux", "osImage": "this machine"},
    }
