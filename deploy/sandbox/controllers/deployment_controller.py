"""The Deployment controller: one ReplicaSet per pod template, their sizes, and the Deployment's status."""

from collections.abc import Sequence
from datetime import UTC, datetime

from deploy.sandbox.client import ApiClient
from deploy.sandbox.controllers.deployments import (
    REVISION,
    copied_annotations,
    deployed,
    new_replica_set,
    replicas_of,
    revision_of,
    size_annotations,
    split_by_template,
    status_of,
)
from deploy.sandbox.controllers.replicasets import candidate
from deploy.sandbox.controllers.rollouts import Step, next_step
from deploy.sandbox.errors import ApiError
from deploy.sandbox.event_recorder import EventRecorder
from deploy.sandbox.informers import Informer, Key, WorkQueue, controller_key, key_of
from deploy.sandbox.resources import DEPLOYMENTS, REPLICA_SETS, Document


class DeploymentController:
    """Carries out one step of a rollout or scaling at a time; the ReplicaSets' answers bring the next one."""

    def __init__(
        self,
        client: ApiClient,
        *,
        deployments: Informer,
        replica_sets: Informer,
        pods: Informer,
        events: EventRecorder,
    ) -> None:
        self._client = client
        self._deployments = deployments
        self._replica_sets = replica_sets
        self._pods = pods
        self._events = events
        self.queue = WorkQueue(self._sync)
        deployments.on_change(lambda kind, deployment: self.queue.add(key_of(deployment)))
        replica_sets.on_change(self._replica_set_changed)

    def _replica_set_changed(self, kind: str, replica_set: Document) -> None:
        owner = controller_key(replica_set)
        if owner is not None:
            self.queue.add(owner)

    async def _sync(self, key: Key) -> None:
        deployment = self._deployments.get(key)
        if deployment is None or "deletionTimestamp" in deployment["metadata"]:
            return
        new, old = self._replica_sets_of(deployment)
        if new is not None:
            await self._keep_annotations(deployment, new, old)
            new, old = self._replica_sets_of(deployment)
        state = deployed(deployment, new, old, old_pods_exist=self._any_pods(old))
        await self._carry_out(deployment, next_step(state), [*old, *([new] if new else [])])
        await self._write_status(key)
        await self._clean_up(deployment, old)

    def _replica_sets_of(self, deployment: Document) -> tuple[Document | None, list[Document]]:
        return split_by_template(deployment, self._replica_sets.controlled_by(deployment["metadata"]["uid"]))

    def _any_pods(self, replica_sets: Sequence[Document]) -> bool:
        """Whether pods are left, terminating ones too: Recreate waits for the last."""
        pods = (pod for one in replica_sets for pod in self._pods.controlled_by(one["metadata"]["uid"]))
        return any(candidate(pod).phase not in ("Succeeded", "Failed") for pod in pods)

    async def _keep_annotations(self, deployment: Document, new: Document, old: Sequence[Document]) -> None:
        """The newest revision belongs to the present template, also after a rollback."""
        revision = max([revision_of(new), *(revision_of(one) + 1 for one in old)])
        wanted = {**copied_annotations(deployment), REVISION: str(revision)}
        present = new["metadata"].get("annotations") or {}
        if not wanted.items() <= present.items():
            metadata = {**new["metadata"], "annotations": {**present, **wanted}}
            self._replica_sets.observe(await self._client.update(REPLICA_SETS, {**new, "metadata": metadata}))
        await self._keep_revision(deployment, revision)

    async def _keep_revision(self, deployment: Document, revision: int) -> None:
        metadata = deployment["metadata"]
        if (metadata.get("annotations") or {}).get(REVISION) != str(revision):
            annotations = {**(metadata.get("annotations") or {}), REVISION: str(revision)}
            changed = {**deployment, "metadata": {**metadata, "annotations": annotations}}
            self._deployments.observe(await self._client.update(DEPLOYMENTS, changed))

    async def _carry_out(self, deployment: Document, step: Step, replica_sets: Sequence[Document]) -> None:
        if step.create is not None:
            await self._create(deployment, step.create, replica_sets)
        for one in replica_sets:
            name = one["metadata"]["name"]
            if name in step.sizes:
                await self._scale(deployment, one, step.sizes[name])

    async def _create(self, deployment: Document, replicas: int, old: Sequence[Document]) -> None:
        revision = max((revision_of(one) for one in old), default=0) + 1
        document = new_replica_set(deployment, replicas=replicas, revision=revision)
        try:
            created = await self._client.create(REPLICA_SETS, document)
        except ApiError as error:
            message = f'Failed to create new replica set "{document["metadata"]["name"]}": {error}'
            self._events.record(deployment, "ReplicaSetCreateError", message, severity="Warning")
            raise
        self._replica_sets.observe(created)
        if replicas > 0:
            self._say_scaled(deployment, created, 0, replicas)
        await self._keep_revision(deployment, revision)

    async def _scale(self, deployment: Document, replica_set: Document, size: int) -> None:
        before = replicas_of(replica_set)
        annotations = replica_set["metadata"].get("annotations") or {}
        wanted = {**annotations, **size_annotations(deployment)}
        if (size, annotations) == (before, wanted):
            return
        changed = {
            **replica_set,
            "metadata": {**replica_set["metadata"], "annotations": wanted},
            "spec": {**replica_set["spec"], "replicas": size},
        }
        self._replica_sets.observe(await self._client.update(REPLICA_SETS, changed))
        if size != before:
            self._say_scaled(deployment, replica_set, before, size)

    def _say_scaled(self, deployment: Document, replica_set: Document, before: int, size: int) -> None:
        direction, name = "up" if size > before else "down", replica_set["metadata"]["name"]
        message = f"Scaled {direction} replica set {name} from {before} to {size}"
        self._events.record(deployment, "ScalingReplicaSet", message)

    async def _write_status(self, key: Key) -> None:
        deployment = self._deployments.get(key)
        if deployment is None:
            return
        new, old = self._replica_sets_of(deployment)
        status = status_of(deployment, new, old, now=datetime.now(UTC))
        if status != deployment.get("status"):
            changed = {**deployment, "status": status}
            self._deployments.observe(await self._client.update(DEPLOYMENTS, changed, subresource="status"))

    async def _clean_up(self, deployment: Document, old: Sequence[Document]) -> None:
        """Forget all but the latest empty ReplicaSets of former templates."""
        keep = deployment["spec"].get("revisionHistoryLimit", 10)
        for one in sorted(old, key=revision_of)[: max(0, len(old) - keep)]:
            if replicas_of(one) == 0 and not (one.get("status") or {}).get("replicas"):
                metadata = one["metadata"]
                await self._client.delete(REPLICA_SETS, metadata["namespace"], metadata["name"])
                self._replica_sets.forget(one)
