"""The feature gate PodDeletionCost: what the API server looks at with it, and no more without."""

import pytest

from deploy.sandbox.apiserver.server import ApiServer
from deploy.sandbox.apiserver.validation import DELETION_COST, validate
from deploy.sandbox.errors import ApiError
from deploy.sandbox.resources import PODS as POD_RESOURCE
from deploy.sandbox.resources import Document
from tests.sandbox.apiserver.documents import DEPLOYMENTS, PODS, deployment, pod
from tests.sandbox.conftest import Cluster
from tests.sandbox.http_client import connected


def costing(cost: str) -> Document:
    return {"metadata": {"name": "w-1", "annotations": {DELETION_COST: cost}}}


async def test_without_the_gate_nobody_looks_at_costs(cluster: Cluster) -> None:
    """Of pods and of their templates, as in Kubernetes' validation with AllowInvalidPodDeletionCost."""
    async with (
        ApiServer(cluster.certificates, honours_costs=False) as server,
        connected(server.url, cluster.authority.file, cluster.admin) as client,
    ):
        await client.post(PODS, pod("w-1"))
        patched = await client.patch(f"{PODS}/w-1", costing("wrong"))
        assert (patched.status, patched.body["metadata"]["annotations"][DELETION_COST]) == (200, "wrong")
        document = deployment()
        document["spec"]["template"]["metadata"]["annotations"] = {DELETION_COST: "wrong"}
        assert (await client.post(DEPLOYMENTS, document)).status == 201


def test_an_update_may_keep_or_change_a_cost_that_was_wrong_before() -> None:
    """It was written while the gate was off; a pod without such a one is held to the rule."""
    validate(POD_RESOURCE, costing("still wrong"), costing("wrong"))
    with pytest.raises(ApiError, match="must be a 32bit integer"):
        validate(POD_RESOURCE, costing("wrong"), costing("7"))
    with pytest.raises(ApiError, match="must be a 32bit integer"):
        validate(POD_RESOURCE, costing("wrong"))
