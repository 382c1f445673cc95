"""Somebody answers while nodes are drained, and no drain of a node waits for us for ever."""

import pytest

from tests.deploy.manifests import Document, the

EACH_SERVICE = pytest.mark.parametrize("name", ["metrics-adapter", "drain-hook"])


def budget(name: str) -> Document:
    spec = the("PodDisruptionBudget", name)["spec"]
    assert isinstance(spec, dict)
    return spec


@EACH_SERVICE
def test_one_replica_at_a_time_leaves_and_one_stays(name: str) -> None:
    assert budget(name)["maxUnavailable"] == 1
    assert the("Deployment", name)["spec"]["replicas"] - budget(name)["maxUnavailable"] >= 1


@EACH_SERVICE
def test_a_node_can_be_drained_whatever_the_number_of_replicas(name: str) -> None:
    """With minAvailable a single replica, or two that are not ready, would hold its node for ever."""
    assert "minAvailable" not in budget(name)
    assert budget(name)["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


@EACH_SERVICE
def test_a_budget_is_about_the_pods_of_its_service(name: str) -> None:
    deployment = the("Deployment", name)
    assert budget(name)["selector"] == deployment["spec"]["selector"]
    assert the("PodDisruptionBudget", name)["metadata"]["namespace"] == deployment["metadata"]["namespace"]


@EACH_SERVICE
def test_replicas_are_spread_where_that_can_be_had(name: str) -> None:
    """Over nodes and zones, each revision by itself; a cluster of one node runs both all the same."""
    template = the("Deployment", name)["spec"]["template"]
    constraints = template["spec"]["topologySpreadConstraints"]
    assert [constraint["topologyKey"] for constraint in constraints] == [
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    ]
    for constraint in constraints:
        assert constraint["maxSkew"] == 1
        assert constraint["whenUnsatisfiable"] == "ScheduleAnyway"
        assert constraint["labelSelector"]["matchLabels"] == template["metadata"]["labels"]
        assert constraint["matchLabelKeys"] == ["pod-template-hash"]
