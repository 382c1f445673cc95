"""deploy/example: the overlay to copy installs what is in the base, with one's own in its place."""

import shutil
import subprocess

import pytest
import yaml

from shared.configuration_values import broker_url_mistake
from shared.pools import parse_configuration
from tests.deploy.manifests import ROOT, Document, container, identity, installed, the

EXAMPLE = ROOT / "deploy" / "example"
POOLS = parse_configuration((EXAMPLE / "config.yaml").read_text()).pools
SERVICES = ["metrics-adapter", "drain-hook"]

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed here")


@pytest.fixture(scope="module")
def rendered() -> list[Document]:
    command = ["kubectl", "kustomize", str(EXAMPLE)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return list(yaml.safe_load_all(output))


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
def test_nothing_of_the_base_is_missing(rendered: list[Document]) -> None:
    """Bindings move to where the pools are."""
    names = {identity(one)[::2] for one in rendered}
    assert {identity(one)[::2] for one in installed()} <= names


@needs_kubectl
def test_the_configuration_takes_the_place_of_the_bases(rendered: list[Document]) -> None:
    (found,) = [one["data"] for one in rendered if identity(one) == ("ConfigMap", "celery-hpa", "celery-hpa")]
    assert found == {"config.yaml": (EXAMPLE / "config.yaml").read_text()}


@needs_kubectl
def test_both_services_may_work_where_the_pools_are_and_nowhere_else(rendered: list[Document]) -> None:
    bindings = [one for one in rendered if one["kind"] == "RoleBinding"]
    bound = {
        (one["metadata"]["namespace"], one["subjects"][0]["name"])
        for one in bindings
        if one["roleRef"]["kind"] == "ClusterRole"
    }
    assert bound == {(pool.namespace, name) for pool in POOLS for name in SERVICES}


@needs_kubectl
def test_the_image_is_the_users_own(rendered: list[Document]) -> None:
    (wanted,) = yaml.safe_load((EXAMPLE / "kustomization.yaml").read_text())["images"]
    images = {
        container["image"]
        for one in rendered
        if one["kind"] == "Deployment"
        for container in one["spec"]["template"]["spec"]["containers"]
    }
    assert images == {f"{wanted['newName']}:{wanted['newTag']}"}
