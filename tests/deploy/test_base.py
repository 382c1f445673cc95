"""deploy/base: its names, ports and files fit together, and fit the code that they run."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

import drain_hook.app
import metrics_adapter.app
from drain_hook.admission import Review, Verdict
from drain_hook.webhook import webhook_app
from metrics_adapter.external_metrics import GROUP, VERSION
from shared.certificates import load_key_pair
from shared.pools import parse_configuration
from shared.self_managed import Registration, own_namespace, with_certificate
from shared.serving import FINISH_S, Health, telemetry_app
from shared.settings import Settings, parse_arguments
from tests.deploy.manifests import (
    BASE,
    ROOT,
    Document,
    asked_in,
    container,
    grants,
    identity,
    installed,
    kustomization,
    the,
)
from tests.fakes.kubernetes import FakeCluster

MODULES = {"metrics-adapter": "metrics_adapter", "drain-hook": "drain_hook"}
EACH_SERVICE = pytest.mark.parametrize("name", MODULES)
POOLS = parse_configuration((BASE / "config.yaml").read_text()).pools


def pod_spec(name: str) -> Document:
    spec = the("Deployment", name)["spec"]["template"]["spec"]
    assert isinstance(spec, dict)
    return spec


def arguments(name: str) -> Settings:
    """The command line of a service, read as the service reads it; 0 for a port it does not name."""
    python, flag, module, *rest = container(name)["args"]
    assert (python, flag, module) == ("python", "-m", MODULES[name])
    return parse_arguments(rest, prog=name, description="", port=0, telemetry_port=0)


def environment(name: str) -> dict[str, Any]:
    return {variable["name"]: variable["valueFrom"] for variable in container(name)["env"]}


def ports(name: str) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container(name)["ports"]}


def webhook() -> Document:
    (only,) = the("ValidatingWebhookConfiguration", drain_hook.app.WEBHOOK_CONFIGURATION)["webhooks"]
    assert isinstance(only, dict)
    return only


def test_every_file_is_part_of_the_kustomization() -> None:
    """And nothing is there twice."""
    others = {"kustomization.yaml", *kustomization()["configMapGenerator"][0]["files"]}
    assert {path.name for path in BASE.iterdir()} == {*kustomization()["resources"], *others}
    names = [identity(document) for document in installed()]
    assert len(names) == len(set(names))


def test_everything_of_ours_is_in_our_namespace() -> None:
    """Bindings are where their subjects work; all else that has a namespace is in ours."""
    namespaces = {identity(document)[1] for document in installed() if document["kind"] != "RoleBinding"}
    assert namespaces - {""} == {the("Namespace", "celery-hpa")["metadata"]["name"]}


@EACH_SERVICE
def test_a_deployment_selects_its_own_pods_and_so_does_its_service(name: str) -> None:
    deployment, service = the("Deployment", name), the("Service", name)
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels
    assert deployment["metadata"]["namespace"] == service["metadata"]["namespace"]


def test_no_service_selects_the_pods_of_the_other() -> None:
    assert len({str(the("Service", name)["spec"]["selector"]) for name in MODULES}) == len(MODULES)


@EACH_SERVICE
def test_the_ports_are_those_that_the_service_takes_by_itself(name: str) -> None:
    """As its --help says; the command line names none."""
    usage = subprocess.run(
        [sys.executable, "-m", MODULES[name], "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    described = re.findall(r"--([a-z-]+) \w+ HTTP.*?\((\d+)\)", " ".join(usage.split()))
    assert dict(described) == {
        "port": str(ports(name)["https"]),
        "telemetry-port": str(ports(name)["telemetry"]),
    }
    assert (arguments(name).port, arguments(name).telemetry_port) == (0, 0)


@EACH_SERVICE
def test_probes_ask_what_is_served_without_a_certificate(name: str) -> None:
    app = telemetry_app(CollectorRegistry(), Health)
    paths = {route.resource.canonical for route in app.router.routes() if route.resource}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        request = container(name)[probe]["httpGet"]
        assert request["path"] in paths
        assert request["port"] == "telemetry"


@EACH_SERVICE
def test_a_pod_that_starts_slowly_is_not_killed_for_it(name: str) -> None:
    """Until it serves it may wait for the API server, which is why it was restarted perhaps."""
    probe = container(name)["startupProbe"]
    patience_s = probe["periodSeconds"] * probe["failureThreshold"]
    assert patience_s > 4 * drain_hook.app.FIRST_SYNC_S
    assert container(name)["livenessProbe"]["httpGet"]["path"] == "/livez"


@EACH_SERVICE
def test_a_pod_reserves_what_it_needs_and_is_never_throttled(name: str) -> None:
    """A review that waits for the CPU is one that the API server gives up."""
    resources = container(name)["resources"]
    assert resources["requests"].keys() == {"cpu", "memory"}
    assert resources["limits"].keys() == {"memory"}


@EACH_SERVICE
def test_the_configuration_is_mounted_where_it_is_looked_for(name: str) -> None:
    """The whole directory: a single file mounted by subPath would never change."""
    (made,) = kustomization()["configMapGenerator"]
    (volume,) = [volume for volume in pod_spec(name)["volumes"] if "configMap" in volume]
    (mount,) = [mount for mount in container(name)["volumeMounts"] if mount["name"] == volume["name"]]
    assert volume["configMap"]["name"] == made["name"]
    assert made["namespace"] == the("Deployment", name)["metadata"]["namespace"]
    assert [Path(mount["mountPath"], file) for file in made["files"]] == [arguments(name).config]
    assert "subPath" not in mount


def test_a_changed_configuration_keeps_its_name() -> None:
    """Both services read a changed file; a new name would restart them instead, amid their rounds."""
    (made,) = kustomization()["configMapGenerator"]
    assert made["options"]["disableNameSuffixHash"] is True


@EACH_SERVICE
def test_what_the_configuration_takes_from_the_environment_is_there(name: str) -> None:
    """A pod whose Secret is not there yet starts all the same, and says what it misses."""
    sources = [pool.broker.url_from for pool in POOLS if pool.broker.url_from]
    assert [source.env for source in sources] == ["BROKER_URL"]
    assert environment(name)["BROKER_URL"]["secretKeyRef"]["optional"] is True


@EACH_SERVICE
def test_a_service_may_work_where_its_pools_are(name: str) -> None:
    """In their namespaces, in its own, and everywhere with the one object that holds its CA."""
    assert {grant.namespace for grant in grants(name)} == {"*", "celery-hpa", *(p.namespace for p in POOLS)}


@EACH_SERVICE
def test_a_service_runs_as_its_own_account(name: str) -> None:
    account = the("ServiceAccount", pod_spec(name)["serviceAccountName"])
    assert account["metadata"]["name"] == name
    assert account["metadata"]["namespace"] == the("Deployment", name)["metadata"]["namespace"]


@EACH_SERVICE
def test_pods_are_as_restricted_as_their_namespace_demands(name: str) -> None:
    """Pod security "restricted": else not one pod of ours would be created."""
    labels = the("Namespace", "celery-hpa")["metadata"]["labels"]
    for mode in ("enforce", "audit", "warn"):
        assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"
    of_pod, of_container = pod_spec(name)["securityContext"], container(name)["securityContext"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod_spec(name).keys()
    assert all(
        volume.keys()
        & {"configMap", "emptyDir", "secret", "projected", "downwardAPI", "persistentVolumeClaim"}
        for volume in pod_spec(name)["volumes"]
    )
    assert of_pod["runAsNonRoot"] is True
    assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert of_container["allowPrivilegeEscalation"] is False
    assert of_container["capabilities"] == {"drop": ["ALL"]}
    assert of_container["readOnlyRootFilesystem"] is True


@EACH_SERVICE
def test_a_pod_has_the_time_to_end_well(name: str) -> None:
    """Until no new connection comes, and then as long as requests in flight may take."""
    before = int(container(name)["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod_spec(name)["terminationGracePeriodSeconds"] >= before + FINISH_S


def test_the_api_service_is_about_the_group_that_the_adapter_serves() -> None:
    spec = the("APIService", metrics_adapter.app.API_SERVICE)["spec"]
    assert (spec["group"], spec["version"]) == (GROUP, VERSION)


def test_the_api_server_is_sent_to_our_services() -> None:
    """And by them to the port that has a certificate."""
    for reference, name in (
        (the("APIService", metrics_adapter.app.API_SERVICE)["spec"]["service"], "metrics-adapter"),
        (webhook()["clientConfig"]["service"], "drain-hook"),
    ):
        service = the("Service", name)
        (port,) = service["spec"]["ports"]
        assert (reference["namespace"], reference["name"]) == (service["metadata"]["namespace"], name)
        assert reference["port"] == port["port"]
        assert port["targetPort"] == "https"


def test_reviews_are_sent_to_the_path_that_the_hook_serves() -> None:
    class Nobody:
        async def review(self, review: Review, *, deadline: float) -> Verdict:
            raise NotImplementedError

    routes = webhook_app(Nobody()).router.routes()
    served = {(route.method, route.resource.canonical) for route in routes if route.resource}
    assert ("POST", "/validate/{webhook}") in served
    assert webhook()["clientConfig"]["service"]["path"] == f"/validate/{webhook()['name']}"


@pytest.mark.parametrize(
    ("name", "service"),
    [("metrics-adapter", metrics_adapter.app.SERVICE), ("drain-hook", drain_hook.app.SERVICE)],
)
async def test_the_certificate_is_made_for_the_name_that_is_called(name: str, service: str) -> None:
    """By the API server, which checks it; and it is kept in the Secret that the roles name."""
    assert environment(name)["POD_NAMESPACE"] == {"fieldRef": {"fieldPath": "metadata.namespace"}}
    namespace = own_namespace({"POD_NAMESPACE": the("Deployment", name)["metadata"]["namespace"]})
    cluster = FakeCluster()
    cluster.register_cas("ours", b"")
    registration = Registration(
        read=lambda: cluster.webhook_ca("ours"),
        replace=lambda bundle, found: cluster.replace_webhook_ca("ours", bundle, found),
    )
    async with with_certificate(
        arguments(name), secrets=cluster, service=service, registration=registration, namespace=namespace
    ) as certified:
        certificate_file = certified.settings.tls_cert_file
        key_file = certified.settings.tls_private_key_file
        assert certificate_file is not None
        assert key_file is not None
        pair = load_key_pair(certificate_file=certificate_file, key_file=key_file)
    called = the("Service", name)["metadata"]
    assert f"{called['name']}.{called['namespace']}.svc" in pair.names()
    ((where, secret),) = cluster.secrets
    assert cluster.ca_bundles["ours"].bundles == (cluster.secrets[where, secret].data["ca.crt"],)
    assert any(g.namespace == where and g.allows("get", "", "secrets", secret) for g in grants(name))


def test_the_hook_is_asked_where_pools_are_and_nowhere_else() -> None:
    """While it does not answer only they wait: not the cluster's other Deployments, nor the hook itself."""
    assert asked_in(webhook()) == {pool.namespace for pool in POOLS}
    assert "celery-hpa" not in asked_in(webhook())


def test_scale_downs_wait_for_the_hook_and_nothing_else_does() -> None:
    """Not scale-ups; and the API server waits longer than an answer is held."""
    assert webhook()["failurePolicy"] == "Fail"
    assert [condition["name"] for condition in webhook()["matchConditions"]] == ["decrease"]
    (rule,) = webhook()["rules"]
    assert (rule["operations"], rule["scope"]) == (["UPDATE"], "Namespaced")
    assert rule["resources"] == ["deployments/scale"]
    assert webhook()["sideEffects"] == "NoneOnDryRun"
    assert all(pool.drain.hold_seconds < webhook()["timeoutSeconds"] for pool in POOLS)
