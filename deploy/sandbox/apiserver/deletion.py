"""Taking objects away: pods in their grace period, everything else at once, and what they own after them."""

from collections.abc import Callable
from datetime import datetime, timedelta

from deploy.sandbox.apiserver.store import Key, ObjectStore, owner_uids
from deploy.sandbox.objects import timestamp
from deploy.sandbox.resources import NAMESPACES, PODS, RESOURCES, Document


class Remover:
    """Deletes with grace and cascade; the garbage collector's work is done in the same breath."""

    def __init__(self, store: ObjectStore, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock

    def remove(
        self, key: Key, *, grace_s: int | None = None, propagation: str = "Background"
    ) -> Document | None:
        """Start or finish the deletion of an object. Returns its state after that, None if there is none."""
        current = self._store.get(key)
        if current is None:
            return None
        if key.resource is PODS:
            grace = _grace_of_pod(current, grace_s)
            if grace > 0:
                return self._terminate(key, current, grace)
        last = self._store.remove(key)
        self._cascade(current, orphan=propagation == "Orphan")
        if key.resource is NAMESPACES:
            self._empty(key.name)
        return last

    def _terminate(self, key: Key, pod: Document, grace_s: int) -> Document:
        metadata = pod["metadata"]
        if metadata.get("deletionGracePeriodSeconds", grace_s + 1) <= grace_s:
            return pod
        deadline = timestamp(self._clock() + timedelta(seconds=grace_s))
        terminating = {"deletionTimestamp": deadline, "deletionGracePeriodSeconds": grace_s}
        return self._store.put(key, pod | {"metadata": metadata | terminating})

    def _cascade(self, owner: Document, *, orphan: bool) -> None:
        uid = owner["metadata"]["uid"]
        for key in self._store.dependents(uid):
            dependent = self._store.get(key)
            if dependent is None:
                continue
            if orphan or len(owner_uids(dependent)) > 1:
                self._store.put(key, _without_owner(dependent, uid))
            else:
                self.remove(key)

    def _empty(self, namespace: str) -> None:
        for resource in RESOURCES:
            for document in self._store.select(resource, namespace) if resource.namespaced else ():
                self.remove(Key(resource, namespace, document["metadata"]["name"]))


def _grace_of_pod(pod: Document, asked_s: int | None) -> int:
    # A pod that no kubelet looks after, or that has ended, has nobody who would finish its deletion.
    if "nodeName" not in pod["spec"] or pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    return int(pod["spec"].get("terminationGracePeriodSeconds", 30)) if asked_s is None else asked_s


def _without_owner(document: Document, uid: str) -> Document:
    metadata = document["metadata"]
    others = [owner for owner in metadata["ownerReferences"] if owner["uid"] != uid]
    return document | {"metadata": metadata | {"ownerReferences": others}}
