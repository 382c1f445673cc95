"""The ReplicaSet controller: as many pods as each ReplicaSet wants, and its status."""

from collections.abc import Sequence
from datetime import UTC, datetime

from deploy.sandbox.client import ApiClient
from deploy.sandbox.controllers.deployments import replicas_of
from deploy.sandbox.controllers.pod_control import PodControl, all_of, pod_of
from deploy.sandbox.controllers.replicasets import candidate, choose_victims, is_active, status_of
from deploy.sandbox.event_recorder import EventRecorder
from deploy.sandbox.informers import Informer, Key, WorkQueue, controller_key, controller_of, key_of
from deploy.sandbox.resources import REPLICA_SETS, Document

BURST_REPLICAS = 500  # the most pods that one pass creates or deletes


class ReplicaSetController:
    """Creates and deletes pods, all of one pass at the same time and in no order."""

    def __init__(
        self,
        client: ApiClient,
        *,
        replica_sets: Informer,
        pods: Informer,
        events: EventRecorder,
        honours_costs: bool = True,
    ) -> None:
        self._honours_costs = honours_costs
        self._client = client
        self._replica_sets = replica_sets
        self._pods = pods
        self._control = PodControl(client, pods=pods, events=events)
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
        active = [pod for pod in pods if is_active(pod)]
        missing = replicas_of(replica_set) - len(active)
        if missing > 0:
            await all_of(
                [
                    self._control.create(replica_set, pod_of(replica_set))
                    for _ in range(min(missing, BURST_REPLICAS))
                ]
            )
        elif missing < 0:
            victims = self._victims(replica_set, active)[:BURST_REPLICAS]
            await all_of([self._control.delete(replica_set, pod) for pod in victims])

    def _victims(self, replica_set: Document, active: Sequence[Document]) -> list[Document]:
        by_uid = {pod["metadata"]["uid"]: pod for pod in active}
        chosen = choose_victims(
            [candidate(pod) for pod in active],
            desired=replicas_of(replica_set),
            related=[candidate(pod) for pod in self._related_pods(replica_set)],
            honours_costs=self._honours_costs,
            now=datetime.now(UTC),
        )
        return [by_uid[victim.uid] for victim in chosen]

    def _related_pods(self, replica_set: Document) -> list[Document]:
        """The pods of every ReplicaSet of the same Deployment."""
        siblings = self._replica_sets.controlled_by(controller_of(replica_set)) or [replica_set]
        return [pod for one in siblings for pod in self._pods.controlled_by(one["metadata"]["uid"])]

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
