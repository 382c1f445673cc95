"""Who may connect to our pods, and what the documented policy lets them connect to."""

import pytest

from tests.deploy.manifests import ROOT, Document, container, installed, the
from tests.deploy.test_documents import snippets

EACH_SERVICE = pytest.mark.parametrize("name", ["metrics-adapter", "drain-hook"])


def policy(name: str) -> Document:
    spec = the("NetworkPolicy", name)["spec"]
    assert isinstance(spec, dict)
    return spec


@EACH_SERVICE
def test_only_the_ports_that_are_served_are_open(name: str) -> None:
    (rule,) = policy(name)["ingress"]
    assert {port["port"] for port in rule["ports"]} == {
        port["containerPort"] for port in container(name)["ports"]
    }


@EACH_SERVICE
def test_they_are_open_to_everybody(name: str) -> None:
    """The API server and the kubelet are no pods; a guess at their addresses would lock them out."""
    (rule,) = policy(name)["ingress"]
    assert "from" not in rule


@EACH_SERVICE
def test_what_we_connect_to_is_not_restricted(name: str) -> None:
    """Nobody but the user knows where brokers and API server are."""
    assert policy(name)["policyTypes"] == ["Ingress"]


@EACH_SERVICE
def test_a_policy_is_about_the_pods_of_its_service(name: str) -> None:
    deployment = the("Deployment", name)
    assert policy(name)["podSelector"] == deployment["spec"]["selector"]
    assert the("NetworkPolicy", name)["metadata"]["namespace"] == deployment["metadata"]["namespace"]


def test_no_other_pod_is_meant() -> None:
    policies = [one for one in installed() if one["kind"] == "NetworkPolicy"]
    assert len(policies) == 2


def test_the_documented_policy_names_all_that_we_connect_to() -> None:
    """DNS by both protocols, the API server, a broker."""
    text = (ROOT / "docs" / "security.md").read_text()
    found = [document for document in snippets(text) if document["kind"] == "NetworkPolicy"]
    (egress,) = (document["spec"] for document in found)
    assert egress["policyTypes"] == ["Egress"]
    ports = [
        (port.get("protocol", "TCP"), port["port"]) for rule in egress["egress"] for port in rule["ports"]
    ]
    assert ports == [("UDP", 53), ("TCP", 53), ("TCP", 6443), ("TCP", 6379)]
