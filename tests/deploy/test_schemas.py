"""Everything that is installed is valid in Kubernetes 1.28 and in the newest version, by their schemas."""

import copy
from typing import Any

import pytest
import yaml

from tests.deploy.manifests import BASE, Document, installed, the
from tests.deploy.rendering import EXAMPLE, OLD, VARIANTS, needs_kubectl, rendered, rendered_with
from tests.deploy.schemas import NEWEST, OLDEST, schemas_of

OF_OTHERS = ("cert-manager.io/", "monitoring.coreos.com/")
"""API groups of those who bring the resources that a component is about."""
TEMPLATES = sorted((BASE.parent / "hpa").glob("*.yaml"))


def problems(documents: list[Document], version: str) -> list[str]:
    ours = [one for one in documents if not one["apiVersion"].startswith(OF_OTHERS)]
    return [problem for document in ours for problem in schemas_of(version).problems(document)]


def test_the_base_is_valid_as_it_is_written() -> None:
    """Where there is no kubectl to render it, too."""
    assert problems(installed(), NEWEST) == []


@needs_kubectl
@pytest.mark.parametrize("variant", [name for name, of in VARIANTS.items() if OLD not in of])
def test_what_is_installed_is_valid_in_the_newest_version(variant: str) -> None:
    assert problems(rendered_with(*VARIANTS[variant]), NEWEST) == []


@needs_kubectl
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_installed_is_valid_in_the_oldest_version(variant: str) -> None:
    """With the component for it, in which a FlowSchema has an older version."""
    components = dict.fromkeys((*VARIANTS[variant], OLD))
    assert problems(rendered_with(*components), OLDEST) == []


@needs_kubectl
def test_only_that_component_is_needed_in_the_oldest_version() -> None:
    """And only because of the FlowSchema."""
    assert problems(rendered_with(), OLDEST) == ["flowcontrol.apiserver.k8s.io/v1 FlowSchema is not known"]
    assert problems(rendered_with(OLD), NEWEST) == [
        "flowcontrol.apiserver.k8s.io/v1beta3 FlowSchema is not known"
    ]


@needs_kubectl
def test_the_example_is_valid() -> None:
    assert problems(rendered(EXAMPLE), NEWEST) == []


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_templates_are_valid_in_the_newest_version(template: Any) -> None:
    assert problems(list(yaml.safe_load_all(template.read_text())), NEWEST) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda spec: spec.update(replica=2), "Deployment.spec.replica is not known"),
        (lambda spec: spec.update(replicas="2"), "Deployment.spec.replicas: '2' is no integer"),
        (
            lambda spec: spec.update(replicas=2**31),
            "Deployment.spec.replicas: 2147483648 has more than 32 bits",
        ),
        (lambda spec: spec.update(paused=1), "Deployment.spec.paused: 1 is no boolean"),
        (lambda spec: spec.pop("selector"), "Deployment.spec.selector is required"),
        (
            lambda spec: spec["template"]["spec"]["containers"][0].pop("name"),
            "Deployment.spec.template.spec.containers[0].name is required",
        ),
        (
            lambda spec: spec["template"]["spec"]["containers"][0]["readinessProbe"]["httpGet"].update(
                port=[]
            ),
            "Deployment.spec.template.spec.containers[0].readinessProbe.httpGet.port: "
            "[] is of none of the types it may have",
        ),
        (
            lambda spec: spec["template"]["metadata"]["labels"].update(tier=1),
            "Deployment.spec.template.metadata.labels.tier: 1 is no string",
        ),
    ],
)
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_what_is_wrong_is_found(change: Any, problem: str, version: str) -> None:
    """So that finding nothing means something."""
    deployment = copy.deepcopy(the("Deployment", "drain-hook"))
    assert problems([deployment], version) == []
    change(deployment["spec"])
    assert problems([deployment], version) == [problem]


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_bytes_are_base64(version: str) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"url": "a b"}}
    assert problems([secret], version) == ["Secret.data.url is no base64"]


def test_a_kind_that_is_not_kept_is_no_kind_that_is_valid() -> None:
    """Whoever adds one to what is installed adds its schema."""
    assert problems([{"apiVersion": "apps/v1", "kind": "DaemonSet"}], NEWEST) == [
        "apps/v1 DaemonSet is not known"
    ]
