"""Controllers that begin in a cluster which is already there."""

from deploy.sandbox.apiserver.server import ApiServer
from deploy.sandbox.client import ApiClient
from deploy.sandbox.controllers.manager import Controllers
from deploy.sandbox.node.kubelet import Kubelet
from deploy.sandbox.resources import DEPLOYMENTS, PODS
from tests.sandbox.controllers.test_controllers import all_ready, deployment, scale
from tests.sandbox.waiting import named, until


async def test_controllers_that_start_late_find_everything_in_place(
    api: ApiClient, server: ApiServer, node: Kubelet
) -> None:
    """Nothing is made a second time, and a scaling from meanwhile is carried out."""
    async with Controllers(api):
        await api.create(DEPLOYMENTS, deployment(3))
        done = named("w", lambda one: one["status"].get("availableReplicas") == 3)
        await until(server, DEPLOYMENTS, done)
    before = {pod["metadata"]["uid"] for pod in server.store.select(PODS)}
    await scale(api, 2)
    async with Controllers(api):
        left = await until(server, PODS, all_ready(2))
    assert {pod["metadata"]["uid"] for pod in left} < before
