"""The ReplicaSet controller: as many pods as each ReplicaSet wants, and its status."""

import asyncio
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any

from deploy.sandbox.client import ApiClient
from deploy.sandbox.controllers.deployments import owner_reference, replicas_of
from deploy.sandbox.controllers.replicasets import candidate, choose_victims, status_of
from deploy.sandbox.errors import ApiError
from deploy.sandbox.event_recorder import EventRecorder
from deploy.sandbox.informers import Informer, Key, WorkQueue, controller_key, controller_of, key_of
from deploy.sandbox.resources import PODS, REPLICA_SETS, Document

BURST_REPLICAS = 500  # the most pods that one pass creates or deletes


class ReplicaSetController:
    """Creates and deletes pods, all of one pass at the same time and in no order."""

    def __init__(
        self, client: ApiClient, *, replica_sets: Informer, pods: Informer, events: EventRecorder
    ) -> None:
        self._client = client
        self._replica_sets = replica_sets
        self._pods = pods
        self._events = events
        self.queue = WorkQueue(self._sync)
        replica_sets.on_change(lambda kind, replica_set: self.queue.add(key_of(replica_set)))
        pods.on_change(self._pod_changed)

    def _pod_changed(self, kind: str, pod: Document) -> None:
        owner = controller_key(pod)
        if owner is not None:
            self.queue.add(owner)

    async def _sync(self, key: Key) -> None:
        replica_set = self._replica_sets.get(key)
        if replica_set is None or "deletionTimestamp" in replica_set["metadata"]:
            return
        try:
            await self._manage(replica_set)
        finally:
            await self._write_status(key)

    async def _manage(self, replica_set: Document) -> None:
        pods = self._pods.controlled_by(replica_set["metadata"]["uid"])
        active = [pod for pod in pods if candidate(pod).is_active]
        missing = replicas_of(replica_set) - len(active)
        if missing > 0:
            await all_of([self._create_pod(replica_set) for _ in range(min(missing, BURST_REPLICAS))])
        elif missing < 0:
            victims = self._victims(replica_set, active)[:BURST_REPLICAS]
            await all_of([self._delete_pod(replica_set, pod) for pod in victims])

    def _victims(self, replica_set: Document, active: Sequence[Document]) -> list[Document]:
        by_uid = {pod["metadata"]["uid"]: pod for pod in active}
        chosen = choose_victims(
            [candidate(pod) for pod in active],
            desired=replicas_of(replica_set),
            related=[candidate(pod) for pod in self._related_pods(replica_set)],
            now=datetime.now(UTC),
        )
        return [by_uid[victim.uid] for victim in chosen]

    def _related_pods(self, replica_set: Document) -> list[Document]:
        """The pods of every ReplicaSet of the same Deployment."""
        siblings = self._replica_sets.controlled_by(controller_of(replica_set)) or [replica_set]
        return [pod for one in siblings for pod in self._pods.controlled_by(one["metadata"]["uid"])]

    async def _create_pod(self, replica_set: Document) -> None:
        try:
            pod = await self._client.create(PODS, pod_of(replica_set))
        except ApiError as error:
            self._events.record(replica_set, "FailedCreate", f"Error creating: {error}", severity="Warning")
            raise
        self._pods.observe(pod)
        self._events.record(replica_set, "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}")

    async def _delete_pod(self, replica_set: Document, pod: Document) -> None:
        metadata = pod["metadata"]
        try:
            last = await self._client.delete(PODS, metadata["namespace"], metadata["name"])
        except ApiError as error:
            if error.code != 404:
                raise
            last = {}
        self._events.record(replica_set, "SuccessfulDelete", f"Deleted pod: {metadata['name']}")
        if "deletionTimestamp" in last.get("metadata", {}):
            self._pods.observe(last)
        else:  # nothing was running yet, so there is no grace period to wait for
            self._pods.forget(pod)

    async def _write_status(self, key: Key) -> None:
        replica_set = self._replica_sets.get(key)
        if replica_set is None:
            return
        pods = self._pods.controlled_by(replica_set["metadata"]["uid"])
        status = status_of(replica_set, pods, now=datetime.now(UTC))
        if status.get("readyReplicas", 0) != status.get("availableReplicas", 0):
            self.queue.add_after(key, float(replica_set["spec"].get("minReadySeconds") or 1))
        if status != replica_set.get("status"):
            changed = {**replica_set, "status": status}
            self._replica_sets.observe(await self._client.update(REPLICA_SETS, changed, subresource="status"))


def pod_of(replica_set: Document) -> Document:
    """A new pod of a ReplicaSet; the API server completes its name."""
    template = replica_set["spec"]["template"]
    labelled = template.get("metadata") or {}
    metadata: Document = {
        "generateName": f"{replica_set['metadata']['name']}-",
        "namespace": replica_set["metadata"]["namespace"],
        "ownerReferences": [owner_reference(replica_set, "apps/v1", "ReplicaSet")],
        **{field: dict(labelled[field]) for field in ("labels", "annotations") if labelled.get(field)},
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


async def all_of(calls: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Wait for every call, then raise the first failure if there is one."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
