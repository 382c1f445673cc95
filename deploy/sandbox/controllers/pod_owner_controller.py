"""StatefulSets and CloneSets: workloads that own their pods themselves, each by its own rules."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from deploy.sandbox.client import ApiClient
from deploy.sandbox.controllers import clonesets, statefulsets
from deploy.sandbox.controllers.pod_control import PodControl, all_of, pod_of
from deploy.sandbox.event_recorder import EventRecorder
from deploy.sandbox.informers import Informer, Key, WorkQueue, controller_key, key_of
from deploy.sandbox.resources import CLONE_SETS, STATEFUL_SETS, Document, Resource

Pods = Sequence[Document]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What one kind of workload does, given its pods and the time."""

    resource: Resource
    step: Callable[[Document, Pods, datetime], tuple[Sequence[Document], Sequence[Document]]]
    """Pods to create, and pods to delete."""
    status: Callable[[Document, Pods, datetime], Document]


class PodOwnerController:
    """Carries out one step at a time; what becomes of the pods brings the next one."""

    def __init__(
        self, client: ApiClient, rules: Rules, *, workloads: Informer, pods: Informer, events: EventRecorder
    ) -> None:
        self._client = client
        self._rules = rules
        self._workloads = workloads
        self._pods = pods
        self._control = PodControl(client, pods=pods, events=events)
        self.queue = WorkQueue(self._sync)
        workloads.on_change(lambda kind, workload: self.queue.add(key_of(workload)))
        pods.on_change(self._pod_changed)

    def _pod_changed(self, kind: str, pod: Document) -> None:
        owner = controller_key(pod)
        if owner is not None:
            self.queue.add(owner)

    async def _sync(self, key: Key) -> None:
        workload = self._workloads.get(key)
        if workload is None or "deletionTimestamp" in workload["metadata"]:
            return
        try:
            created, deleted = self._rules.step(workload, self._pods_of(workload), datetime.now(UTC))
            await all_of(
                [
                    *(self._control.create(workload, pod) for pod in created),
                    *(self._control.delete(workload, pod) for pod in deleted),
                ]
            )
        finally:
            await self._write_status(key)

    def _pods_of(self, workload: Document) -> list[Document]:
        return self._pods.controlled_by(workload["metadata"]["uid"])

    async def _write_status(self, key: Key) -> None:
        workload = self._workloads.get(key)
        if workload is None:
            return
        status = self._rules.status(workload, self._pods_of(workload), datetime.now(UTC))
        if status.get("readyReplicas") != status.get("availableReplicas"):
            self.queue.add_after(key, 1.0)
        if status != workload.get("status"):
            changed = {**workload, "status": status}
            written = await self._client.update(self._rules.resource, changed, subresource="status")
            self._workloads.observe(written)


def _stateful_step(stateful_set: Document, pods: Pods, now: datetime) -> tuple[Pods, Pods]:
    step = statefulsets.next_step(stateful_set, pods)
    name = stateful_set["metadata"]["name"]
    created = [
        statefulsets.new_pod(stateful_set, pod_of(stateful_set, name=f"{name}-{ordinal}"), ordinal)
        for ordinal in step.create
    ]
    return created, step.delete


def _clone_step(clone_set: Document, pods: Pods, now: datetime) -> tuple[Pods, Pods]:
    step = clonesets.next_step(clone_set, pods, now=now)
    return [clonesets.new_pod(clone_set, pod_of(clone_set)) for _ in range(step.create)], step.delete


STATEFUL_SET_RULES = Rules(
    resource=STATEFUL_SETS,
    step=_stateful_step,
    status=lambda stateful_set, pods, now: statefulsets.status_of(stateful_set, pods),
)
CLONE_SET_RULES = Rules(
    resource=CLONE_SETS,
    step=_clone_step,
    status=lambda clone_set, pods, now: clonesets.status_of(clone_set, pods, now=now),
)
