"""deploy/components/cert-manager: it makes what the services serve with, and they no longer do."""

from datetime import timedelta
from pathlib import Path

import pytest

import drain_hook.app
import metrics_adapter.app
from shared.settings import parse_arguments
from tests.deploy.manifests import Document, identity, the_only
from tests.deploy.rendering import needs_kubectl, rendered_with

pytestmark = needs_kubectl

SERVICES = ["metrics-adapter", "drain-hook"]
EACH_SERVICE = pytest.mark.parametrize("name", SERVICES)


@pytest.fixture(scope="module")
def rendered() -> list[Document]:
    """With another component, whose webhook is to be trusted, too."""
    return rendered_with("deployment-updates", "cert-manager")


def certificate(name: str, rendered: list[Document]) -> Document:
    spec = the_only("Certificate", name, rendered)["spec"]
    assert isinstance(spec, dict)
    return spec


def duration(text: str) -> timedelta:
    return timedelta(hours=int(text.removesuffix("h")))


@EACH_SERVICE
def test_a_service_serves_with_the_certificate_that_is_made_for_it(
    name: str, rendered: list[Document]
) -> None:
    """The pod waits for its Secret, and gets a renewed one: the whole directory is mounted."""
    pod = the_only("Deployment", name, rendered)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    settings = parse_arguments(container["args"][3:], prog=name, description="", port=0, telemetry_port=0)
    assert settings.tls_cert_file is not None
    assert settings.tls_private_key_file is not None
    assert (settings.tls_cert_file.name, settings.tls_private_key_file.name) == ("tls.crt", "tls.key")
    directory = settings.tls_cert_file.parent
    assert settings.tls_private_key_file.parent == directory
    (mount,) = [one for one in container["volumeMounts"] if Path(one["mountPath"]) == directory]
    assert "subPath" not in mount
    (volume,) = [one for one in pod["volumes"] if one["name"] == mount["name"]]
    assert volume["secret"] == {"secretName": certificate(name, rendered)["secretName"]}


@EACH_SERVICE
def test_a_certificate_is_for_the_name_that_is_called(name: str, rendered: list[Document]) -> None:
    service = the_only("Service", name, rendered)["metadata"]
    spec = certificate(name, rendered)
    assert spec["dnsNames"] == [f"{service['name']}.{service['namespace']}.svc"]
    assert "server auth" in spec["usages"]


@pytest.mark.parametrize(
    ("kind", "registration", "service"),
    [
        ("APIService", metrics_adapter.app.API_SERVICE, "metrics-adapter"),
        ("ValidatingWebhookConfiguration", drain_hook.app.WEBHOOK_CONFIGURATION, "drain-hook"),
    ],
)
def test_the_ca_is_injected_where_it_is_believed(
    kind: str, registration: str, service: str, rendered: list[Document]
) -> None:
    """From the Certificate of the service that is called; for all webhooks of a configuration at once."""
    where = the_only("Certificate", service, rendered)["metadata"]
    annotations = the_only(kind, registration, rendered)["metadata"]["annotations"]
    assert annotations == {"cert-manager.io/inject-ca-from": f"{where['namespace']}/{where['name']}"}


def test_whatever_is_trusted_is_trusted_long_enough(rendered: list[Document]) -> None:
    """A caBundle is that of the last issuance: a new CA is there before the last one under the old ends.

    And as its key stays the same, either vouches for what the other has signed.
    """
    ca = certificate("celery-hpa-ca", rendered)
    assert ca["isCA"] is True
    assert ca["privateKey"]["rotationPolicy"] == "Never"
    for name in SERVICES:
        spec = certificate(name, rendered)
        assert duration(spec["renewBefore"]) < duration(spec["duration"]) < duration(ca["renewBefore"])
        assert spec["privateKey"]["rotationPolicy"] == "Always"


def test_every_issuer_that_is_named_is_there(rendered: list[Document]) -> None:
    issuers = {identity(one)[1:]: one["spec"] for one in rendered if one["kind"] == "Issuer"}
    certificates = [one for one in rendered if one["kind"] == "Certificate"]
    named = {(one["metadata"]["namespace"], one["spec"]["issuerRef"]["name"]) for one in certificates}
    assert named == issuers.keys()
    (secret,) = [spec["ca"]["secretName"] for spec in issuers.values() if "ca" in spec]
    assert secret == certificate("celery-hpa-ca", rendered)["secretName"]


def test_neither_service_keeps_a_secret_or_writes_a_ca_any_more(rendered: list[Document]) -> None:
    """Nor may it; what else it may stays."""
    rules = [rule for one in rendered if one["kind"] in {"Role", "ClusterRole"} for rule in one["rules"]]
    assert not [rule for rule in rules if "secrets" in rule["resources"]]
    registrations = {"apiservices", "validatingwebhookconfigurations"}
    found = [rule for rule in rules if registrations & set(rule["resources"])]
    assert len(found) == len(registrations)
    assert all(rule["verbs"] == ["get"] for rule in found)
    assert [rule for rule in rules if rule["resources"] == ["leases"]]
