"""Creating and deleting the pods of a workload, as every controller of pods does it."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from deploy.sandbox.client import ApiClient
from deploy.sandbox.controllers.deployments import owner_reference
from deploy.sandbox.errors import ApiError
from deploy.sandbox.event_recorder import EventRecorder
from deploy.sandbox.informers import Informer
from deploy.sandbox.resources import PODS, Document


class PodControl:
    """Takes in what it has done, so that the next decision is not taken on a state from before."""

    def __init__(self, client: ApiClient, *, pods: Informer, events: EventRecorder) -> None:
        self._client = client
        self._pods = pods
        self._events = events

    async def create(self, owner: Document, pod: Document) -> None:
        """Raises ApiError, after an Event on the owner."""
        try:
            created = await self._client.create(PODS, pod)
        except ApiError as error:
            self._events.record(owner, "FailedCreate", f"Error creating: {error}", severity="Warning")
            raise
        self._pods.observe(created)
        self._events.record(owner, "SuccessfulCreate", f"Created pod: {created['metadata']['name']}")

    async def delete(self, owner: Document, pod: Document) -> None:
        """Raises ApiError; a pod that is gone already is fine."""
        metadata = pod["metadata"]
        try:
            last = await self._client.delete(PODS, metadata["namespace"], metadata["name"])
        except ApiError as error:
            if error.code != 404:
                raise
            last = {}
        self._events.record(owner, "SuccessfulDelete", f"Deleted pod: {metadata['name']}")
        if "deletionTimestamp" in last.get("metadata", {}):
            self._pods.observe(last)
        else:  # nothing was running yet, so there is no grace period to wait for
            self._pods.forget(pod)


def pod_of(owner: Document, **names: str) -> Document:
    """A new pod from a workload's template; the API server completes its name unless `names` has it."""
    template = owner["spec"]["template"]
    labelled = template.get("metadata") or {}
    metadata: Document = {
        **(names or {"generateName": f"{owner['metadata']['name']}-"}),
        "namespace": owner["metadata"]["namespace"],
        "ownerReferences": [owner_reference(owner, owner["apiVersion"], owner["kind"])],
        **{field: dict(labelled[field]) for field in ("labels", "annotations") if labelled.get(field)},
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


async def all_of(calls: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Wait for every call, then raise the first failure if there is one."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
