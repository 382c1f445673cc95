"""What `kubectl apply -k deploy/base` installs."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.manifests import BASE, Document, identity, installed, kustomization

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed here")


@pytest.fixture(scope="module")
def rendered() -> list[Document]:
    command = ["kubectl", "kustomize", str(BASE)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return list(yaml.safe_load_all(output))


def test_everything_is_installed_as_it_is_written(rendered: list[Document]) -> None:
    """But for images, which get their registry."""
    written = {identity(document): document for document in installed()}
    for document in rendered:
        if document["kind"] not in {"Deployment", "ConfigMap"}:
            assert document == written[identity(document)]
    made = {("ConfigMap", "celery-hpa", "celery-hpa")}
    assert {identity(document) for document in rendered} == written.keys() | made


def test_the_configuration_is_installed_under_the_name_that_pods_mount(rendered: list[Document]) -> None:
    (config_map,) = [document for document in rendered if document["kind"] == "ConfigMap"]
    assert config_map["data"] == {"config.yaml": (BASE / "config.yaml").read_text()}
    for deployment in (document for document in rendered if document["kind"] == "Deployment"):
        volumes = deployment["spec"]["template"]["spec"]["volumes"]
        assert config_map["metadata"]["name"] in [v["configMap"]["name"] for v in volumes if "configMap" in v]


def test_every_pod_runs_the_image_that_the_kustomization_names(rendered: list[Document]) -> None:
    (image,) = kustomization()["images"]
    images = {
        container["image"]
        for document in rendered
        if document["kind"] == "Deployment"
        for container in document["spec"]["template"]["spec"]["containers"]
    }
    assert images == {f"{image['newName']}:{image['newTag']}"}


def test_the_component_for_updates_adds_its_webhook(tmp_path: Path) -> None:
    """To the configuration of the base, in an overlay that names both."""
    overlay = tmp_path / "overlay"
    shutil.copytree(BASE, tmp_path / "base")
    shutil.copytree(BASE.parent / "components", tmp_path / "components")
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(
        "resources: [../base]\ncomponents: [../components/deployment-updates]\n"
    )
    command = ["kubectl", "kustomize", str(overlay)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (configuration,) = [
        document
        for document in yaml.safe_load_all(output)
        if document["kind"] == "ValidatingWebhookConfiguration"
    ]
    names = [webhook["name"] for webhook in configuration["webhooks"]]
    assert names == ["scale.drain.celery-hpa.io", "update.drain.celery-hpa.io"]
