"""What `kubectl apply -k deploy/base` installs."""

import json

import pytest

from tests.deploy.manifests import BASE, Document, identity, installed, kustomization, the_only
from tests.deploy.rendering import needs_kubectl, rendered_with

pytestmark = needs_kubectl


@pytest.fixture(scope="module")
def rendered() -> list[Document]:
    return rendered_with()


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


def test_the_component_for_updates_adds_its_webhook() -> None:
    """To the configuration of the base, in an overlay that names both."""
    documents = rendered_with("deployment-updates")
    configuration = the_only("ValidatingWebhookConfiguration", "celery-hpa-drain", documents)
    names = [webhook["name"] for webhook in configuration["webhooks"]]
    assert names == ["scale.drain.celery-hpa.io", "update.drain.celery-hpa.io"]


def test_components_of_other_kinds_ask_about_their_scales_and_let_them_be_read() -> None:
    """Whatever other components are named beside them, and in whatever order."""
    kinds = {"statefulset": ("apps", "statefulsets"), "cloneset": ("apps.kruise.io", "clonesets")}
    documents = rendered_with("deployment-updates", *kinds)
    scale, _ = the_only("ValidatingWebhookConfiguration", "celery-hpa-drain", documents)["webhooks"]
    assert scale["name"] == "scale.drain.celery-hpa.io"
    asked = {(rule["apiGroups"][0], rule["resources"][0]) for rule in scale["rules"]}
    assert asked == {
        (group, f"{plural}/scale") for group, plural in [("apps", "deployments"), *kinds.values()]
    }
    for service, verbs in (("drain-hook", {"get", "list", "watch"}), ("metrics-adapter", {"list", "watch"})):
        rules = the_only("ClusterRole", f"celery-hpa:{service}", documents)["rules"]
        for group, plural in kinds.values():
            (rule,) = [rule for rule in rules if rule["resources"] == [plural]]
            assert (rule["apiGroups"], set(rule["verbs"])) == ([group], verbs)


def test_the_component_for_prometheus_adds_what_it_looks_at_and_changes_nothing() -> None:
    documents, before = (
        {identity(one): one for one in rendered_with(*names)} for names in (["prometheus"], [])
    )
    assert before.items() <= documents.items()
    assert {identity(documents[key])[::2] for key in documents.keys() - before.keys()} == {
        ("ConfigMap", "celery-hpa-dashboard"),
        ("PrometheusRule", "celery-hpa"),
        ("Service", "drain-hook-telemetry"),
        ("Service", "metrics-adapter-telemetry"),
        ("ServiceMonitor", "celery-hpa"),
    }
    dashboard = documents["ConfigMap", "celery-hpa", "celery-hpa-dashboard"]
    assert dashboard["metadata"]["labels"] == {"grafana_dashboard": "1"}
    assert json.loads(dashboard["data"]["celery-hpa.json"])["title"] == "celery-hpa"


@pytest.mark.parametrize(
    "others", [[], ["deployment-updates"], ["statefulset", "deployment-updates", "cloneset"]]
)
def test_the_component_for_ignoring_failures_is_about_every_webhook(others: list[str]) -> None:
    """Named last, and nothing else of a webhook changes."""
    without, ignoring = (
        the_only(
            "ValidatingWebhookConfiguration",
            "celery-hpa-drain",
            rendered_with(*others, *more),
        )["webhooks"]
        for more in ([], ["failure-policy-ignore"])
    )
    assert {webhook["failurePolicy"] for webhook in without} == {"Fail"}
    assert ignoring == [webhook | {"failurePolicy": "Ignore"} for webhook in without]
