"""What is installed fits together, whatever components are named: every reference leads to what it means."""

from collections.abc import Iterator
from typing import Any

import pytest

from shared.self_managed import own_namespace
from tests.deploy.manifests import Document, identity
from tests.deploy.rendering import VARIANTS, needs_kubectl, rendered_with
from tests.deploy.test_access import ACCOUNTS

pytestmark = needs_kubectl

OUR_NAMESPACE = "celery-hpa"
OF_THE_CLUSTER = {
    ("ClusterRole", "", "system:auth-delegator"),
    ("Role", "kube-system", "extension-apiserver-authentication-reader"),
}
MADE_BY_PEOPLE = {("Secret", OUR_NAMESPACE, name) for name in ("celery-hpa-broker", "celery-hpa-airflow")}


@pytest.fixture(params=VARIANTS)
def installed(request: pytest.FixtureRequest) -> list[Document]:
    """Each component alone, none of them, and all together."""
    return rendered_with(*VARIANTS[request.param])


def of_kind(documents: list[Document], *kinds: str) -> list[Document]:
    return [document for document in documents if document["kind"] in kinds]


def named(documents: list[Document]) -> set[tuple[str, str, str]]:
    return {identity(document) for document in documents}


def pods(documents: list[Document]) -> Iterator[tuple[str, Document]]:
    """Namespace and template of the pods of each Deployment."""
    for deployment in of_kind(documents, "Deployment"):
        yield deployment["metadata"]["namespace"], deployment["spec"]["template"]


def selected(documents: list[Document], namespace: str, labels: Document) -> list[Document]:
    """Templates of the pods with all these labels."""
    return [
        template
        for where, template in pods(documents)
        if where == namespace and labels.items() <= template["metadata"]["labels"].items()
    ]


def container(template: Document) -> Document:
    (only,) = template["spec"]["containers"]
    assert isinstance(only, dict)
    return only


def port_names(template: Document) -> set[str]:
    return {port["name"] for port in container(template)["ports"]}


def test_nothing_is_installed_twice(installed: list[Document]) -> None:
    assert len(named(installed)) == len(installed)


def test_every_namespace_of_ours_is_made(installed: list[Document]) -> None:
    used = {document["metadata"].get("namespace", "") for document in installed}
    assert used - {"", "default", "kube-system"} == {OUR_NAMESPACE}
    assert ("Namespace", "", OUR_NAMESPACE) in named(installed)


def test_a_service_selects_the_pods_of_one_deployment_at_a_port_they_have(installed: list[Document]) -> None:
    services = of_kind(installed, "Service")
    assert services
    for service in services:
        (template,) = selected(installed, service["metadata"]["namespace"], service["spec"]["selector"])
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in port_names(template)


def test_a_deployment_selects_its_own_pods(installed: list[Document]) -> None:
    for deployment in of_kind(installed, "Deployment"):
        labels = deployment["spec"]["selector"]["matchLabels"]
        assert selected(installed, deployment["metadata"]["namespace"], labels) == [
            deployment["spec"]["template"]
        ]


def test_probes_ask_at_ports_that_pods_have(installed: list[Document]) -> None:
    for _, template in pods(installed):
        probes = [value for key, value in container(template).items() if key.endswith("Probe")]
        assert probes
        assert {probe["httpGet"]["port"] for probe in probes} <= port_names(template)


def test_what_chooses_pods_chooses_some(installed: list[Document]) -> None:
    """Budgets, network policies and spread: a selector that is wrong would do nothing, and say nothing."""
    for document in of_kind(installed, "PodDisruptionBudget"):
        labels = document["spec"]["selector"]["matchLabels"]
        assert len(selected(installed, document["metadata"]["namespace"], labels)) == 1
    for document in of_kind(installed, "NetworkPolicy"):
        chosen = selected(
            installed,
            document["metadata"]["namespace"],
            document["spec"]["podSelector"].get("matchLabels", {}),
        )
        ports = [
            port["port"] for rule in document["spec"].get("ingress", ()) for port in rule.get("ports", ())
        ]
        open_at = [set(map(str, port_names(one))) | numbers(one) for one in chosen]
        assert chosen
        assert all(any(str(port) in known for known in open_at) for port in ports)
    for namespace, template in pods(installed):
        for labels in spread_over(template["spec"]):
            assert selected(installed, namespace, labels) == [template]


def numbers(template: Document) -> set[str]:
    return {str(port["containerPort"]) for port in container(template)["ports"]}


def spread_over(spec: Document) -> Iterator[Document]:
    """Labels of the pods that a pod keeps away from, or is spread among."""
    for constraint in spec.get("topologySpreadConstraints", ()):
        yield constraint["labelSelector"]["matchLabels"]
    apart = spec.get("affinity", {}).get("podAntiAffinity", {})
    for term in apart.get("requiredDuringSchedulingIgnoredDuringExecution", ()):
        yield term["labelSelector"]["matchLabels"]
    for weighted in apart.get("preferredDuringSchedulingIgnoredDuringExecution", ()):
        yield weighted["podAffinityTerm"]["labelSelector"]["matchLabels"]


def called(documents: list[Document]) -> list[Document]:
    """References to Services that the API server calls."""
    services = [one["spec"]["service"] for one in of_kind(documents, "APIService")]
    for configuration in of_kind(documents, "ValidatingWebhookConfiguration"):
        services += [webhook["clientConfig"]["service"] for webhook in configuration["webhooks"]]
    return services


def test_the_api_server_calls_services_at_ports_they_have(installed: list[Document]) -> None:
    ports = {
        identity(service): {port["port"] for port in service["spec"]["ports"]}
        for service in of_kind(installed, "Service")
    }
    assert len(called(installed)) >= 2
    for reference in called(installed):
        assert reference["port"] in ports["Service", reference["namespace"], reference["name"]]


def test_certificates_are_for_the_names_that_are_called(installed: list[Document]) -> None:
    """By the service itself, or by cert-manager into the Secret that is mounted where it looks."""
    for reference in called(installed):
        host = f"{reference['name']}.{reference['namespace']}.svc"
        (service,) = [one for one in of_kind(installed, "Service") if named([one]) == {service_of(reference)}]
        (template,) = selected(installed, reference["namespace"], service["spec"]["selector"])
        assert host in certified(installed, template, reference["namespace"])


def service_of(reference: Document) -> tuple[str, str, str]:
    return "Service", reference["namespace"], reference["name"]


def certified(documents: list[Document], template: Document, namespace: str) -> list[str]:
    """The host names that a pod has a certificate for."""
    arguments: list[str] = container(template)["args"]
    if "--tls-self-managed" in arguments:  # named after the module, and where the pod is
        where = own_namespace({"POD_NAMESPACE": namespace})
        return [f"{arguments[arguments.index('-m') + 1].replace('_', '-')}.{where}.svc"]
    (file,) = [word.partition("=")[2] for word in arguments if word.startswith("--tls-cert-file=")]
    mounts = {mount["mountPath"]: mount["name"] for mount in container(template)["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
    secret = volumes[mounts[file.rpartition("/")[0]]]["secret"]["secretName"]
    (certificate,) = [one for one in of_kind(documents, "Certificate") if one["spec"]["secretName"] == secret]
    assert certificate["metadata"]["namespace"] == namespace
    return list(certificate["spec"]["dnsNames"])


def test_pods_find_their_account_and_what_they_mount(installed: list[Document]) -> None:
    certificates = {
        ("Secret", one["metadata"]["namespace"], one["spec"]["secretName"])
        for one in of_kind(installed, "Certificate")
    }
    there = named(installed) | certificates | MADE_BY_PEOPLE
    for namespace, template in pods(installed):
        spec = template["spec"]
        assert ("ServiceAccount", namespace, spec["serviceAccountName"]) in there
        for kind, name in mounted(spec):
            assert (kind, namespace, name) in there
        assert {mount["name"] for mount in container(template)["volumeMounts"]} == {
            volume["name"] for volume in spec["volumes"]
        }


def mounted(spec: Document) -> Iterator[tuple[str, Any]]:
    """Kind and name of what a pod has files or variables from."""
    for volume in spec["volumes"]:
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"]
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"]
    for variable in spec["containers"][0]["env"]:
        if secret := variable.get("valueFrom", {}).get("secretKeyRef"):
            yield "Secret", secret["name"]


def test_roles_are_bound_and_bindings_lead_to_roles_and_accounts(installed: list[Document]) -> None:
    """Only roles that every cluster has are bound without being installed."""
    there, bound = named(installed), set()
    for binding in of_kind(installed, "RoleBinding", "ClusterRoleBinding"):
        reference = binding["roleRef"]
        namespace = binding["metadata"].get("namespace", "") if reference["kind"] == "Role" else ""
        bound.add((reference["kind"], namespace, reference["name"]))
        for subject in binding["subjects"]:
            assert (subject["kind"], subject["namespace"], subject["name"]) in there
    roles = named(of_kind(installed, "Role", "ClusterRole"))
    assert roles <= bound
    assert bound - roles == OF_THE_CLUSTER


def test_roles_name_what_is_there(installed: list[Document]) -> None:
    """Objects by their names: both registrations; the Secrets and the Lease are made by the services."""
    kinds = {"apiservices": "APIService", "validatingwebhookconfigurations": "ValidatingWebhookConfiguration"}
    rules = [rule for role in of_kind(installed, "Role", "ClusterRole") for rule in role["rules"]]
    pairs = [
        (one, name) for rule in rules for one in rule["resources"] for name in rule.get("resourceNames", ())
    ]
    for resource, name in pairs:
        if resource in kinds:
            assert (kinds[resource], "", name) in named(installed)
        elif resource == "secrets":
            assert name in {f"{account}-tls" for account in ACCOUNTS}
        else:
            assert (resource, name) == ("leases", "celery-hpa-drain-reconciler")


def test_requests_of_our_accounts_are_ranked(installed: list[Document]) -> None:
    (schema,) = of_kind(installed, "FlowSchema")
    subjects = [subject["serviceAccount"] for rule in schema["spec"]["rules"] for subject in rule["subjects"]]
    assert {("ServiceAccount", one["namespace"], one["name"]) for one in subjects} <= named(installed)


def test_what_is_scraped_is_a_service_with_that_port(installed: list[Document]) -> None:
    for monitor in of_kind(installed, "ServiceMonitor"):
        labels = monitor["spec"]["selector"]["matchLabels"]
        services = [
            one
            for one in of_kind(installed, "Service")
            if labels.items() <= one["metadata"].get("labels", {}).items()
        ]
        ports = [{port["name"] for port in service["spec"]["ports"]} for service in services]
        assert len(services) == len(ACCOUNTS)
        assert all(endpoint["port"] in known for known in ports for endpoint in monitor["spec"]["endpoints"])
