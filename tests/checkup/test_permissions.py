"""What is asked for is what we ship: else a sound installation would be blamed, or a broken one praised."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from drain_hook.app import SERVICE as HOOK_SERVICE
from drain_hook.app import WEBHOOK_CONFIGURATION as OF_THE_HOOK
from metrics_adapter.app import API_SERVICE as OF_THE_ADAPTER
from metrics_adapter.app import SERVICE as ADAPTER_SERVICE
from shared.checkup.permissions import (
    ADAPTER,
    API_SERVICE,
    HOOK,
    WEBHOOK_CONFIGURATION,
    Permission,
    needed,
)
from tests.checkup.builders import pool
from tests.deploy.manifests import ROOT

Right = tuple[str, str, str]
"""Verb, API group, resource."""


def roles(*files: str) -> dict[str, list[dict[str, Any]]]:
    documents = [d for file in files for d in yaml.safe_load_all((ROOT / "deploy/base" / file).read_text())]
    return {d["metadata"]["name"]: d["rules"] for d in documents if d["kind"] in ("ClusterRole", "Role")}


def rights(rules: list[dict[str, Any]]) -> Iterator[Right]:
    for rule in rules:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                yield from ((verb, group, resource) for verb in rule["verbs"])


def covers(rule: dict[str, Any], permission: Permission) -> bool:
    names = rule.get("resourceNames")
    return right(permission) in rights([rule]) and (names is None or permission.name in names)


def right(permission: Permission) -> Right:
    return (permission.verb, permission.group, permission.resource)


def asked(account: str, *, namespace: str) -> set[Right]:
    permissions = needed([pool()], services_in="celery-hpa")
    return {right(p) for p in permissions if (p.account, p.namespace) == (account, namespace)}


def test_the_names_are_those_of_the_services() -> None:
    assert (ADAPTER, HOOK) == (ADAPTER_SERVICE, HOOK_SERVICE)
    assert (API_SERVICE, WEBHOOK_CONFIGURATION) == (OF_THE_ADAPTER, OF_THE_HOOK)


@pytest.mark.parametrize("account", [ADAPTER, HOOK])
def test_a_pools_namespace_is_asked_for_what_its_role_grants(account: str) -> None:
    granted = roles("cluster-roles.yaml")[f"celery-hpa:{account}"]
    assert asked(account, namespace="default") == set(rights(granted))


@pytest.mark.parametrize(("kind", "component"), [("StatefulSet", "statefulset"), ("CloneSet", "cloneset")])
@pytest.mark.parametrize("account", [ADAPTER, HOOK])
def test_another_kind_is_asked_for_what_its_component_grants(account: str, kind: str, component: str) -> None:
    patch = yaml.safe_load((ROOT / f"deploy/components/{component}/{account}.yaml").read_text())
    granted = set(rights([operation["value"] for operation in patch]))
    other = pool(workload={"kind": kind, "name": "worker"})
    permissions = needed([other], services_in="celery-hpa")
    of_kind = {right(p) for p in permissions if p.account == account and component in p.granted_by}
    assert of_kind == granted


def test_the_rest_is_granted_by_roles_that_are_there() -> None:
    """Without what the built-in roles grant."""
    own = roles("system-roles.yaml", "cluster-roles.yaml")
    rules = [rule for of_role in own.values() for rule in of_role]
    built_in = {"tokenreviews", "subjectaccessreviews", "configmaps"}
    permissions = [p for p in needed([pool()], services_in="celery-hpa") if p.resource not in built_in]
    assert [str(p) for p in permissions if not any(covers(rule, p) for rule in rules)] == []


def test_a_review_asks_as_the_service_account() -> None:
    permission = next(p for p in needed([pool()], services_in="elsewhere") if p.resource == "configmaps")
    spec = permission.review(services_in="elsewhere")
    assert spec["user"] == "system:serviceaccount:elsewhere:metrics-adapter"
    assert "system:authenticated" in spec["groups"]
    assert spec["resourceAttributes"] == {
        "verb": "get",
        "resource": "configmaps",
        "name": "extension-apiserver-authentication",
        "namespace": "kube-system",
    }
