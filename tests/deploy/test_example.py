"""deploy/example: the overlay to copy installs what is in the base, with one's own in its place."""

import shutil
from pathlib import Path

import pytest
import yaml

from drain_hook.app import WEBHOOK_CONFIGURATION
from shared.configuration_values import broker_url_mistake
from shared.pools import parse_configuration
from tests.deploy.manifests import (
    BASE,
    ROOT,
    Document,
    asked_in,
    container,
    identity,
    installed,
    the,
    the_only,
)
from tests.deploy.rendering import EVERY_COMPONENT, EXAMPLE, needs_kubectl, rendered

POOLS = parse_configuration((EXAMPLE / "config.yaml").read_text()).pools
SERVICES = ["metrics-adapter", "drain-hook"]


@pytest.fixture(scope="module")
def example() -> list[Document]:
    return rendered(EXAMPLE)


@pytest.mark.parametrize("name", SERVICES)
def test_the_secret_is_the_one_that_pods_read(name: str) -> None:
    (secret,) = yaml.safe_load_all((EXAMPLE / "broker-secret.yaml").read_text())
    (variable,) = [one for one in container(name)["env"] if one["name"] == "BROKER_URL"]
    reference = variable["valueFrom"]["secretKeyRef"]
    assert secret["metadata"] == {
        "name": reference["name"],
        "namespace": the("Deployment", name)["metadata"]["namespace"],
    }
    assert not broker_url_mistake(secret["stringData"][reference["key"]])
    assert [pool.broker.url_from.env for pool in POOLS if pool.broker.url_from] == [variable["name"]]


@needs_kubectl
def test_nothing_of_the_base_is_missing(example: list[Document]) -> None:
    """Bindings move to where the pools are."""
    names = {identity(one)[::2] for one in example}
    assert {identity(one)[::2] for one in installed()} <= names


@needs_kubectl
def test_the_configuration_takes_the_place_of_the_bases(example: list[Document]) -> None:
    (found,) = [one["data"] for one in example if identity(one) == ("ConfigMap", "celery-hpa", "celery-hpa")]
    assert found == {"config.yaml": (EXAMPLE / "config.yaml").read_text()}


@needs_kubectl
def test_both_services_may_work_where_the_pools_are_and_nowhere_else(example: list[Document]) -> None:
    bindings = [one for one in example if one["kind"] == "RoleBinding"]
    bound = {
        (one["metadata"]["namespace"], one["subjects"][0]["name"])
        for one in bindings
        if one["roleRef"]["kind"] == "ClusterRole"
    }
    assert bound == {(pool.namespace, name) for pool in POOLS for name in SERVICES}


@needs_kubectl
@pytest.mark.parametrize("components", [(), EVERY_COMPONENT], ids=["as it is", "with every component"])
def test_the_hook_is_asked_where_the_pools_are_and_nowhere_else(
    components: tuple[str, ...], tmp_path: Path
) -> None:
    """By each webhook, also one that a component adds: the namespaces are edited in one place."""
    documents = rendered_with_more(components, tmp_path)
    configuration = the_only("ValidatingWebhookConfiguration", WEBHOOK_CONFIGURATION, documents)
    assert len(configuration["webhooks"]) == (2 if components else 1)
    for webhook in configuration["webhooks"]:
        assert asked_in(webhook) == {pool.namespace for pool in POOLS}


def rendered_with_more(components: tuple[str, ...], directory: Path) -> list[Document]:
    """The example with these components beside its own."""
    deploy = directory / "deploy"
    for part in ("base", "components", "example"):
        shutil.copytree(EXAMPLE.parent / part, deploy / part)
    file = deploy / "example" / "kustomization.yaml"
    document = yaml.safe_load(file.read_text())
    document["components"] = sorted(
        {*document["components"], *(f"../components/{name}" for name in components)}
    )
    file.write_text(yaml.safe_dump(document))
    return rendered(file.parent)


@pytest.mark.parametrize("file", [BASE / "kustomization.yaml", EXAMPLE / "kustomization.yaml"])
def test_the_namespace_is_fixed_and_that_is_said_where_people_begin(file: Path) -> None:
    """Kustomize's `namespace:` would move each RoleBinding, and leave what names our accounts as it is."""
    assert "namespace" not in yaml.safe_load(file.read_text())
    assert "`namespace:`" in file.read_text()
    assert "`namespace:`" in (ROOT / "docs" / "install.md").read_text()


@needs_kubectl
def test_the_image_is_the_users_own(example: list[Document]) -> None:
    (wanted,) = yaml.safe_load((EXAMPLE / "kustomization.yaml").read_text())["images"]
    images = {
        container["image"]
        for one in example
        if one["kind"] == "Deployment"
        for container in one["spec"]["template"]["spec"]["containers"]
    }
    assert images == {f"{wanted['newName']}:{wanted['newTag']}"}
