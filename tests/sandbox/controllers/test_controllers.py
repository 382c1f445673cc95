"""Deployments and ReplicaSets on the emulated API server, with pods that run no process."""

from collections.abc import Callable

import pytest

from deploy.sandbox.apiserver.server import ApiServer
from deploy.sandbox.client import ApiClient
from deploy.sandbox.resources import DEPLOYMENTS, EVENTS, PODS, REPLICA_SETS, Document
from tests.sandbox import recordings
from tests.sandbox.waiting import is_ready, named, until

COST = "controller.kubernetes.io/pod-deletion-cost"
pytestmark = pytest.mark.usefixtures("controllers")


def deployment(replicas: int, *, strategy: Document | None = None, **annotations: str) -> Document:
    template = {
        "metadata": {"labels": {"app": "w"}, "annotations": annotations},
        "spec": {"containers": [{"name": "worker", "image": "worker:1"}]},
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "w"}}, "template": template}
    if strategy:
        spec["strategy"] = strategy
    return {"metadata": {"name": "w", "namespace": "default"}, "spec": spec}


async def scale(api: ApiClient, replicas: int) -> None:
    change = {"spec": {"replicas": replicas}}
    await api.patch(DEPLOYMENTS, "default", "w", change, subresource="scale")


async def roll(api: ApiClient, **annotations: str) -> None:
    change = {"spec": {"template": {"metadata": {"annotations": annotations}}}}
    await api.patch(DEPLOYMENTS, "default", "w", change)


def all_ready(count: int) -> Callable[[list[Document]], list[Document]]:
    """Exactly so many pods, every one of them ready."""

    def check(pods: list[Document]) -> list[Document]:
        return pods if len(pods) == count and all(map(is_ready, pods)) else []

    return check


def sizes(*wanted: tuple[int, int]) -> Callable[[list[Document]], bool]:
    """Wanted and actual replicas of the ReplicaSets, in the order of their revisions."""

    def check(replica_sets: list[Document]) -> bool:
        revision = "deployment.kubernetes.io/revision"
        ordered = sorted(replica_sets, key=lambda one: int(one["metadata"]["annotations"][revision]))
        found = [(one["spec"]["replicas"], one.get("status", {}).get("replicas", 0)) for one in ordered]
        return found == list(wanted)

    return check


async def test_a_deployment_gets_its_pods_and_says_so(api: ApiClient, server: ApiServer) -> None:
    """One ReplicaSet, as many ready pods as wanted, status and events like the real ones."""
    await api.create(DEPLOYMENTS, deployment(3))
    done = named("w", lambda one: one["status"].get("availableReplicas") == 3)
    status = (await until(server, DEPLOYMENTS, done))["status"]
    assert (status["replicas"], status["updatedReplicas"], status["readyReplicas"]) == (3, 3, 3)
    (replica_set,) = server.store.select(REPLICA_SETS)
    pods = server.store.select(PODS)
    assert {pod["metadata"]["ownerReferences"][0]["name"] for pod in pods} == {
        replica_set["metadata"]["name"]
    }
    message = f"Scaled up replica set {replica_set['metadata']['name']} from 0 to 3"
    await until(server, EVENTS, lambda events: any(one["message"] == message for one in events))


async def test_scaling_down_deletes_the_cheapest_pods(api: ApiClient, server: ApiServer) -> None:
    """A negative cost on the victims alone is enough; every other pod stays."""
    await api.create(DEPLOYMENTS, deployment(8))
    pods = await until(server, PODS, all_ready(8))
    names = [pod["metadata"]["name"] for pod in pods]
    victims, others = set(names[::3]), set(names) - set(names[::3])
    for name in victims:
        await api.patch(PODS, "default", name, {"metadata": {"annotations": {COST: "-1"}}})
    await scale(api, len(others))
    left = await until(server, PODS, all_ready(len(others)))
    assert {pod["metadata"]["name"] for pod in left} == others


async def test_scaling_to_zero_and_back(api: ApiClient, server: ApiServer) -> None:
    """The one ReplicaSet sleeps and wakes; no second one is made."""
    await api.create(DEPLOYMENTS, deployment(2))
    await until(server, PODS, all_ready(2))
    await scale(api, 0)
    await until(server, PODS, lambda pods: not pods)
    await scale(api, 3)
    await until(server, PODS, all_ready(3))
    assert len(server.store.select(REPLICA_SETS)) == 1


async def test_a_new_template_replaces_every_pod(api: ApiClient, server: ApiServer) -> None:
    """The old ReplicaSet is emptied and kept, the new one carries the next revision."""
    await api.create(DEPLOYMENTS, deployment(4))
    old = await until(server, PODS, all_ready(4))
    await roll(api, version="2")
    await until(server, REPLICA_SETS, sizes((0, 0), (4, 4)))
    new = await until(server, PODS, all_ready(4))
    assert not {pod["metadata"]["uid"] for pod in old} & {pod["metadata"]["uid"] for pod in new}
    revision = "deployment.kubernetes.io/revision"
    done = named("w", lambda one: one["metadata"]["annotations"].get(revision) == "2")
    await until(server, DEPLOYMENTS, done)


@pytest.mark.parametrize("name", ["stuck_surge25_unavail25", "stuck_surge1_unavail0", "stuck_scale_up"])
async def test_scaling_amid_a_stuck_rollout_ends_as_recorded(
    api: ApiClient, server: ApiServer, name: str
) -> None:
    """The controllers together reach the recorded sizes, before the scaling and after it."""
    case = recordings.read("e1_scale_down_during_rolling_update")["cases"][name]
    await api.create(DEPLOYMENTS, deployment(case["replicas"], strategy=case["strategy"]))
    await until(server, PODS, all_ready(case["replicas"]))
    await roll(api, **{"lab/hold": "unready"})
    before, after = (
        [(one["spec"], one["status"]) for one in sorted(case[when], key=lambda one: str(one["rev"]))]
        for when in ("before", "after")
    )
    await until(server, REPLICA_SETS, sizes(*before))
    await scale(api, case["to"])
    await until(server, REPLICA_SETS, sizes(*after))


async def test_recreate_starts_new_pods_after_the_last_old_one(api: ApiClient, server: ApiServer) -> None:
    """At no moment are there pods of both templates."""
    await api.create(DEPLOYMENTS, deployment(2, strategy={"type": "Recreate"}))
    old = {pod["metadata"]["uid"] for pod in await until(server, PODS, all_ready(2))}
    await roll(api, version="2")

    def new_ones(pods: list[Document]) -> list[Document]:
        fresh = [pod for pod in pods if pod["metadata"]["uid"] not in old]
        assert not fresh or len(fresh) == len(pods)
        return fresh if len(fresh) == 2 else []

    await until(server, PODS, new_ones)


async def test_a_replicaset_scaled_by_hand_is_put_back(api: ApiClient, server: ApiServer) -> None:
    """The Deployment owns the size of its ReplicaSets."""
    await api.create(DEPLOYMENTS, deployment(3))
    await until(server, PODS, all_ready(3))
    (replica_set,) = server.store.select(REPLICA_SETS)
    change = {"spec": {"replicas": 1}}
    await api.patch(REPLICA_SETS, "default", replica_set["metadata"]["name"], change)
    generation = replica_set["metadata"]["generation"] + 2
    await until(
        server,
        REPLICA_SETS,
        lambda sets: sets[0]["metadata"]["generation"] >= generation and sets[0]["spec"]["replicas"] == 3,
    )


async def test_a_deleted_pod_is_replaced(api: ApiClient, server: ApiServer) -> None:
    """A pod in its grace period is not counted any more."""
    await api.create(DEPLOYMENTS, deployment(2))
    pods = await until(server, PODS, all_ready(2))
    gone = pods[0]["metadata"]["name"]
    await api.delete(PODS, "default", gone)

    def replaced(found: list[Document]) -> list[str]:
        names = [pod["metadata"]["name"] for pod in all_ready(2)(found)]
        return [] if gone in names else names

    assert pods[1]["metadata"]["name"] in await until(server, PODS, replaced)


async def test_a_deleted_deployment_takes_all_with_it(api: ApiClient, server: ApiServer) -> None:
    """ReplicaSets and pods go, and nobody makes them anew."""
    await api.create(DEPLOYMENTS, deployment(3))
    await until(server, PODS, all_ready(3))
    await api.delete(DEPLOYMENTS, "default", "w")
    await until(server, PODS, lambda pods: not pods)
    assert server.store.select(REPLICA_SETS) == []
