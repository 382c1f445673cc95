"""How the API server ranks our requests when it has too many."""

from typing import Any

import pytest

from tests.deploy.manifests import installed, the

LAST_OF_THE_CLUSTERS_OWN, SERVICE_ACCOUNTS = 900, 9000
"""Precedence of `kube-system-service-accounts`, and of the one that would match ours without this."""
EVERY_CLUSTER_HAS = {
    "system",
    "node-high",
    "leader-election",
    "workload-high",
    "workload-low",
    "global-default",
}


def spec() -> dict[str, Any]:
    found = the("FlowSchema", "celery-hpa")["spec"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("name", ["metrics-adapter", "drain-hook"])
def test_requests_of_both_services_are_meant(name: str) -> None:
    account = the("ServiceAccount", name)["metadata"]
    subjects = [subject for rule in spec()["rules"] for subject in rule["subjects"]]
    assert {"kind": "ServiceAccount", "serviceAccount": account} in subjects


def test_nobody_else_is_meant() -> None:
    """A rule for a whole namespace or group would lift strangers, too."""
    accounts = [one["metadata"] for one in installed() if one["kind"] == "ServiceAccount"]
    subjects = [subject for rule in spec()["rules"] for subject in rule["subjects"]]
    assert len(subjects) == len(accounts)


def test_all_that_they_ask_is_meant() -> None:
    """In every namespace, and of objects that have none."""
    (rule,) = spec()["rules"]
    (resources,) = rule["resourceRules"]
    assert resources == {
        "verbs": ["*"],
        "apiGroups": ["*"],
        "resources": ["*"],
        "namespaces": ["*"],
        "clusterScope": True,
    }


def test_it_is_asked_before_the_one_for_all_service_accounts() -> None:
    """And after those of the cluster itself: of those that match the lowest precedence decides."""
    assert LAST_OF_THE_CLUSTERS_OWN < spec()["matchingPrecedence"] < SERVICE_ACCOUNTS


def test_its_level_is_one_that_every_cluster_has() -> None:
    """Else the API server would ignore it; an exempt one would let us flood the API server."""
    assert spec()["priorityLevelConfiguration"]["name"] in EVERY_CLUSTER_HAS


def test_neither_service_waits_behind_the_other() -> None:
    assert spec()["distinguisherMethod"] == {"type": "ByUser"}
