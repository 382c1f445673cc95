"""StatefulSets and CloneSets on the emulated API server, with pods that run no process."""

from collections.abc import Callable
from typing import Any

import pytest

from deploy.sandbox.apiserver.server import ApiServer
from deploy.sandbox.client import ApiClient
from deploy.sandbox.resources import CLONE_SETS, PODS, STATEFUL_SETS, Document, Resource
from tests.sandbox.waiting import is_ready, named, until

COST = "controller.kubernetes.io/pod-deletion-cost"
HOLD = "lab/hold"
pytestmark = pytest.mark.usefixtures("controllers")


def workload(replicas: int, **spec: Any) -> Document:
    template = {
        "metadata": {"labels": {"app": "w"}},
        "spec": {"containers": [{"name": "worker", "image": "worker:1"}]},
    }
    common = {"replicas": replicas, "selector": {"matchLabels": {"app": "w"}}, "template": template}
    return {"metadata": {"name": "w", "namespace": "default"}, "spec": common | spec}


async def scale(api: ApiClient, resource: Resource, replicas: int) -> None:
    await api.patch(resource, "default", "w", {"spec": {"replicas": replicas}}, subresource="scale")


async def change_template(api: ApiClient, resource: Resource) -> None:
    change = {"spec": {"template": {"metadata": {"annotations": {"version": "2"}}}}}
    await api.patch(resource, "default", "w", change)


async def annotate(api: ApiClient, pod: str, **annotations: str | None) -> None:
    keys = {"cost": COST, "hold": HOLD}
    change = {"metadata": {"annotations": {keys[key]: value for key, value in annotations.items()}}}
    await api.patch(PODS, "default", pod, change)


def names(pods: list[Document]) -> set[str]:
    return {pod["metadata"]["name"] for pod in pods}


def all_ready(*wanted: str) -> Callable[[list[Document]], bool]:
    """Exactly these pods, every one of them ready."""
    return lambda pods: names(pods) == set(wanted) and all(map(is_ready, pods))


def ready(count: int) -> Callable[[list[Document]], list[Document]]:
    """So many pods, every one of them ready."""
    return lambda pods: pods if len(pods) == count and all(map(is_ready, pods)) else []


async def test_a_stateful_set_loses_its_highest_ordinals_whatever_they_cost(
    api: ApiClient, server: ApiServer
) -> None:
    """A cost on a low ordinal changes nothing; a scale-up brings the same names back."""
    await api.create(STATEFUL_SETS, workload(4, ordinals={"start": 3}))
    await until(server, PODS, all_ready("w-3", "w-4", "w-5", "w-6"))
    await annotate(api, "w-3", cost="-100")
    await scale(api, STATEFUL_SETS, 2)
    await until(server, PODS, all_ready("w-3", "w-4"))
    await scale(api, STATEFUL_SETS, 3)
    await until(server, PODS, all_ready("w-3", "w-4", "w-5"))


async def test_a_stateful_set_goes_pod_by_pod_and_waits_for_lower_ordinals(
    api: ApiClient, server: ApiServer
) -> None:
    """OrderedReady: nobody is deleted while a pod that stays is not ready."""
    await api.create(STATEFUL_SETS, workload(3))
    await until(server, PODS, all_ready("w-0", "w-1", "w-2"))
    await annotate(api, "w-0", hold="unready")
    await until(server, PODS, lambda pods: sum(map(is_ready, pods)) == 2)
    await scale(api, STATEFUL_SETS, 1)
    observed = named("w", lambda one: one["status"]["observedGeneration"] == one["metadata"]["generation"])
    await until(server, STATEFUL_SETS, observed)
    assert names(server.store.select(PODS)) == {"w-0", "w-1", "w-2"}
    await annotate(api, "w-0", hold=None)
    await until(server, PODS, all_ready("w-0"))


async def test_a_stateful_set_counts_and_tells_its_revisions(api: ApiClient, server: ApiServer) -> None:
    """They differ while an update goes on, from the highest ordinal down, and agree after it."""
    await api.create(STATEFUL_SETS, workload(2))
    done = named("w", lambda one: one["status"].get("readyReplicas") == 2)
    before = (await until(server, STATEFUL_SETS, done))["status"]
    assert (before["replicas"], before["currentRevision"]) == (2, before["updateRevision"])
    uids = {pod["metadata"]["uid"] for pod in server.store.select(PODS)}
    await change_template(api, STATEFUL_SETS)
    await until(
        server, STATEFUL_SETS, named("w", lambda one: one["status"]["currentRevision"] != _update(one))
    )
    await until(
        server, STATEFUL_SETS, named("w", lambda one: one["status"]["currentRevision"] == _update(one))
    )
    assert not uids & {pod["metadata"]["uid"] for pod in server.store.select(PODS)}


async def test_a_clone_set_deletes_the_cheapest_pods(api: ApiClient, server: ApiServer) -> None:
    """By pod-deletion-cost, as a ReplicaSet."""
    await api.create(CLONE_SETS, workload(4))
    pods = sorted(names(await until(server, PODS, ready(4))))
    for pod in pods[1:3]:
        await annotate(api, pod, cost="-1")
    await scale(api, CLONE_SETS, 2)
    assert names(await until(server, PODS, ready(2))) == {pods[0], pods[3]}


async def test_a_clone_set_deletes_pods_that_are_not_available_first(
    api: ApiClient, server: ApiServer
) -> None:
    """A pod that has not been ready for minReadySeconds goes whatever its cost."""
    await api.create(CLONE_SETS, workload(2))
    old = sorted(names(await until(server, PODS, ready(2))))
    await api.patch(CLONE_SETS, "default", "w", {"spec": {"minReadySeconds": 3600}})
    # Only to tell who is available: time goes on for both alike.
    document = server.store.select(PODS)[0]
    unavailable = document["metadata"]["name"]
    conditions = [
        one | {"lastTransitionTime": "2020-01-01T00:00:00Z"}
        for one in _other(server, document)["status"]["conditions"]
    ]
    available = next(name for name in old if name != unavailable)
    await api.patch(PODS, "default", available, {"status": {"conditions": conditions}}, subresource="status")
    await annotate(api, available, cost="-1")
    await scale(api, CLONE_SETS, 1)
    assert names(await until(server, PODS, ready(1))) == {available}


async def test_a_clone_set_is_scaled_as_a_custom_resource(api: ApiClient, server: ApiServer) -> None:
    """Its Scale's selector is what the controller wrote in its status."""
    await api.create(CLONE_SETS, workload(1))
    await until(server, CLONE_SETS, named("w", lambda one: one["status"].get("labelSelector") == "app=w"))
    scale_ = await api.get(CLONE_SETS, "default", "w", subresource="scale")
    assert (scale_["kind"], scale_["spec"]["replicas"], scale_["status"]["selector"]) == ("Scale", 1, "app=w")


async def test_a_clone_set_replaces_its_pods_when_its_template_changes(
    api: ApiClient, server: ApiServer
) -> None:
    """Two revisions meanwhile, one before and after."""
    await api.create(CLONE_SETS, workload(2))
    old = names(await until(server, PODS, ready(2)))
    await change_template(api, CLONE_SETS)
    await until(server, CLONE_SETS, named("w", lambda one: one["status"]["currentRevision"] != _update(one)))
    await until(server, CLONE_SETS, named("w", lambda one: one["status"]["currentRevision"] == _update(one)))
    assert not old & names(await until(server, PODS, ready(2)))


def _update(one: Document) -> Any:
    return one["status"]["updateRevision"]


def _other(server: ApiServer, pod: Document) -> Document:
    return next(one for one in server.store.select(PODS) if one["metadata"]["uid"] != pod["metadata"]["uid"])
