"""The manifests of deploy/base: they fit the services they start, and what the sandbox registers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.sandbox import manifests
from drain_hook.app import SERVICE as HOOK
from drain_hook.app import WEBHOOK_CONFIGURATION
from metrics_adapter.app import API_SERVICE
from metrics_adapter.app import SERVICE as ADAPTER
from shared.pools import parse_configuration
from shared.settings import parse_arguments

BASE = Path(__file__).parents[2] / "deploy" / "base"

Document = dict[str, Any]


def documents(file: str) -> list[Document]:
    return list(yaml.safe_load_all((BASE / file).read_text()))


def pod_of(service: str) -> Document:
    spec: Document = documents(f"{service}.yaml")[0]["spec"]["template"]["spec"]
    return spec


def without_address(webhook: Document) -> Document:
    """A sandbox serves on a port of its own, under a CA of its own, and asks in all its namespaces."""
    return {key: value for key, value in webhook.items() if key not in ("clientConfig", "namespaceSelector")}


def test_the_sandbox_registers_the_webhook_that_we_ship() -> None:
    """Otherwise the scenarios would say nothing of the webhook that users get."""
    (shipped,) = documents("webhook.yaml")
    registered = manifests.webhook_configuration(port=1, ca_pem=b"")
    assert shipped["metadata"] == registered["metadata"] == {"name": WEBHOOK_CONFIGURATION}
    (ours,), (theirs,) = shipped["webhooks"], registered["webhooks"]
    assert without_address(ours) == without_address(theirs)
    assert ours["clientConfig"]["service"]["path"] == theirs["clientConfig"]["service"]["path"]


def test_the_sandbox_registers_the_webhook_for_updates_that_we_ship() -> None:
    """The component adds it to the configuration of the base, where our CA is written, too."""
    component = BASE.parent / "components" / "deployment-updates"
    (kustomization,) = yaml.safe_load_all((component / "kustomization.yaml").read_text())
    (patch,) = kustomization["patches"]
    assert patch["target"]["name"] == WEBHOOK_CONFIGURATION
    (addition,) = yaml.safe_load((component / patch["path"]).read_text())
    _, registered = manifests.webhook_configuration(port=1, ca_pem=b"", with_updates=True)["webhooks"]
    assert (addition["op"], addition["path"]) == ("add", "/webhooks/-")
    assert without_address(addition["value"]) == without_address(registered)
    (scale,) = documents("webhook.yaml")[0]["webhooks"]
    assert addition["value"]["namespaceSelector"] == scale["namespaceSelector"]
    ours, its = (one["clientConfig"]["service"] for one in (addition["value"], scale))
    assert ours == its | {"path": registered["clientConfig"]["service"]["path"]}


@pytest.mark.parametrize(("name", "kind"), [("statefulset", "StatefulSet"), ("cloneset", "CloneSet")])
def test_the_sandbox_registers_the_scales_of_other_kinds_that_we_ship(name: str, kind: str) -> None:
    """Each component adds a rule to the first webhook, which is the one for scales."""
    (addition,) = yaml.safe_load((BASE.parent / "components" / name / "webhook.yaml").read_text())
    (shipped,) = documents("webhook.yaml")
    (registered,) = manifests.webhook_configuration(port=1, ca_pem=b"", kinds=[kind])["webhooks"]
    assert (addition["op"], addition["path"]) == ("add", "/webhooks/0/rules/-")
    assert shipped["webhooks"][0]["name"] == registered["name"]
    assert [*shipped["webhooks"][0]["rules"], addition["value"]] == registered["rules"]


def test_the_sandbox_registers_the_api_service_that_we_ship() -> None:
    """All but the CA and the port."""
    (shipped,) = documents("api-service.yaml")
    registered = manifests.api_service(port=443, ca_pem=b"")
    del registered["spec"]["caBundle"]
    assert shipped == registered
    assert shipped["metadata"]["name"] == API_SERVICE


@pytest.mark.parametrize("service", [ADAPTER, HOOK])
def test_a_service_starts_with_the_arguments_it_is_given(service: str) -> None:
    """The command line is one that it takes."""
    (container,) = pod_of(service)["containers"]
    python, m, module, *arguments = container["args"]
    assert (python, m, module) == ("python", "-m", service.replace("-", "_"))
    settings = parse_arguments(arguments, prog=module, description="", port=0, telemetry_port=0)
    assert settings.tls_self_managed
    assert str(settings.config) == "/etc/celery-hpa/config.yaml"


@pytest.mark.parametrize("service", [ADAPTER, HOOK])
def test_a_service_can_write_the_certificate_it_serves_with(service: str) -> None:
    """--tls-self-managed keeps it in a temporary file, and the rest of its file system is read-only."""
    spec = pod_of(service)
    (container,) = spec["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert "emptyDir" in volumes[mounted["/tmp"]]


def test_the_configuration_to_start_from_is_one() -> None:
    """It has no mistake, and its pools are in namespaces where both services may work."""
    configuration = parse_configuration((BASE / "config.yaml").read_text())
    bindings = documents("pool-namespace.yaml")
    bound = {(b["metadata"]["namespace"], s["name"]) for b in bindings for s in b["subjects"]}
    assert bound == {(pool.namespace, name) for pool in configuration.pools for name in (ADAPTER, HOOK)}
