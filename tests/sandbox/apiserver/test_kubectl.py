"""The real kubectl against the API server."""

import asyncio
import base64
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.sandbox.apiserver.server import ApiServer
from tests.sandbox.apiserver.documents import DEPLOYMENTS, PODS, deployment, pod
from tests.sandbox.apiserver.webhook import answered
from tests.sandbox.apiserver.webhook import serving as serving_webhook
from tests.sandbox.conftest import Cluster
from tests.sandbox.http_client import Client

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed here")


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What kubectl printed."""

    code: int
    out: str
    err: str


class Kubectl:
    """Runs kubectl as the administrator; a `stdin` is the document for `-f -`."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment

    async def __call__(self, *arguments: str, stdin: Any = None) -> Output:
        process = await self.start(*arguments)
        out, err = await process.communicate(json.dumps(stdin).encode() if stdin else b"")
        return Output(code=process.returncode or 0, out=out.decode(), err=err.decode())

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            "kubectl",
            "--request-timeout=20s",
            *arguments,
            env=self._environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )


@pytest.fixture
def kubectl(cluster: Cluster, server: ApiServer, tmp_path: Path) -> Kubectl:
    """kubectl with a kubeconfig and a home of its own."""
    config = tmp_path / "kubeconfig"
    config.write_text(json.dumps(kubeconfig(cluster, server.url)))
    return Kubectl({"PATH": os.environ["PATH"], "HOME": str(tmp_path), "KUBECONFIG": str(config)})


def kubeconfig(cluster: Cluster, url: str) -> dict[str, Any]:
    """A kubeconfig with everything inside."""

    def encoded(path: Path) -> str:
        return base64.b64encode(path.read_bytes()).decode()

    api = {"server": url, "certificate-authority-data": encoded(cluster.authority.file)}
    admin = {
        "client-certificate-data": encoded(cluster.admin.certificate),
        "client-key-data": encoded(cluster.admin.key),
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "sandbox", "cluster": api}],
        "users": [{"name": "admin", "user": admin}],
        "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": "admin"}}],
        "current-context": "sandbox",
    }


def typed(document: dict[str, Any], kind: str, api_version: str) -> dict[str, Any]:
    return {"kind": kind, "apiVersion": api_version} | document


AUTOSCALER = {
    "kind": "HorizontalPodAutoscaler",
    "apiVersion": "autoscaling/v2",
    "metadata": {"name": "w"},
    "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "w"},
        "maxReplicas": 8,
        "metrics": [
            {
                "type": "External",
                "external": {
                    "metric": {"name": "celery_load_factor"},
                    "target": {"type": "Value", "value": "800m"},
                },
            }
        ],
    },
}


async def test_objects_are_created_applied_and_shown(client: Client, kubectl: Kubectl) -> None:
    """create and apply with validation, and one get of many kinds."""
    created = await kubectl("create", "-f", "-", stdin=typed(deployment(), "Deployment", "apps/v1"))
    assert created.out == "deployment.apps/w created\n", created.err
    changed = typed(deployment(replicas=2), "Deployment", "apps/v1")
    assert (await kubectl("apply", "-f", "-", stdin=changed)).out == "deployment.apps/w configured\n"
    assert (await kubectl("apply", "-f", "-", stdin=changed)).out == "deployment.apps/w unchanged\n"
    assert (await kubectl("apply", "-f", "-", stdin=AUTOSCALER)).code == 0
    shown = await kubectl("get", "deploy,rs,hpa,pods,events,leases,nodes,ns")
    assert shown.code == 0, shown.err
    lines = {line.split()[0]: line.split() for line in shown.out.splitlines() if line}
    assert lines["deployment.apps/w"][1:4] == ["0/2", "0", "0"]
    assert lines["horizontalpodautoscaler.autoscaling/w"][1:6] == [
        "Deployment/w",
        "<unknown>/800m",
        "1",
        "8",
        "0",
    ]


async def test_replicas_are_scaled_with_and_without_a_precondition(client: Client, kubectl: Kubectl) -> None:
    """scale, scale --current-replicas, and a dry run on the server."""
    await client.post(DEPLOYMENTS, deployment())
    assert (await kubectl("scale", "deploy/w", "--replicas=3")).out == "deployment.apps/w scaled\n"
    refused = await kubectl("scale", "deploy/w", "--replicas=1", "--current-replicas=5")
    assert "Expected replicas to be 5, was 3" in refused.err
    await kubectl("scale", "deploy/w", "--replicas=2", "--current-replicas=3")
    dry = await kubectl("scale", "deploy/w", "--replicas=1", "--dry-run=server")
    assert dry.out == "deployment.apps/w scaled (server dry run)\n"
    patch = ("--type=merge", "-p", '{"spec":{"replicas":4}}')
    patched = await kubectl("patch", "deploy/w", "--subresource=scale", *patch)
    assert patched.out == "scale.autoscaling/w patched\n"
    assert (await kubectl("get", "deploy/w", "-o", "jsonpath={.spec.replicas}")).out == "4"


@pytest.mark.parametrize(
    ("short", "kind", "api_version", "columns"),
    [
        ("sts", "StatefulSet", "apps/v1", ["w", "0/3"]),
        ("clone", "CloneSet", "apps.kruise.io/v1alpha1", ["w", "3", "0", "0", "0", "0"]),
    ],
)
async def test_workloads_that_own_their_pods_are_scaled_and_shown(
    client: Client, kubectl: Kubectl, short: str, kind: str, api_version: str, columns: list[str]
) -> None:
    """A custom resource with a scale subresource too."""
    created = await kubectl("create", "-f", "-", stdin=typed(deployment(), kind, api_version))
    assert created.code == 0, created.err
    scaled = await kubectl("scale", f"{short}/w", "--replicas=3")
    assert scaled.code == 0, scaled.err
    shown = await kubectl("get", short)
    assert shown.out.splitlines()[1].split()[:-1] == columns


async def test_a_refusal_and_a_warning_are_printed(
    cluster: Cluster, client: Client, kubectl: Kubectl
) -> None:
    """The webhook's words, as in a real cluster."""
    await client.post(DEPLOYMENTS, deployment())
    async with serving_webhook(cluster.authority) as webhook:
        url = f"https://127.0.0.1:{webhook.port}/validate"
        configuration = webhook.configuration(clientConfig={"url": url, "caBundle": webhook.bundle})
        await client.post(
            "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", configuration
        )
        webhook.answer = lambda uid: answered(uid, allowed=False, status={"message": "2 of 3 workers busy"})
        refused = await kubectl("scale", "deploy/w", "--replicas=2")
        webhook.answer = lambda uid: answered(uid, allowed=True, warnings=["draining 2 workers"])
        warned = await kubectl("scale", "deploy/w", "--replicas=2")
    denied = 'admission webhook "drain.lab.example" denied the request: 2 of 3 workers busy'
    assert (refused.code, refused.err) == (1, f"Error from server: {denied}\n")
    assert warned.err == "Warning: draining 2 workers\n"


async def test_metadata_is_annotated_labelled_and_patched(client: Client, kubectl: Kubectl) -> None:
    """Each with its own patch type."""
    await client.post(PODS, pod("p", node="n"))
    cost = "controller.kubernetes.io/pod-deletion-cost"
    assert (await kubectl("annotate", "pod", "p", f"{cost}=-7")).out == "pod/p annotated\n"
    assert (await kubectl("label", "pod", "p", "pool=a")).out == "pod/p labeled\n"
    step = '[{"op":"add","path":"/metadata/labels/x","value":"y"}]'
    assert (await kubectl("patch", "pod", "p", "--type=json", "-p", step)).out == "pod/p patched\n"
    metadata = (await client.get(f"{PODS}/p")).body["metadata"]
    assert (metadata["annotations"], metadata["labels"]) == ({cost: "-7"}, {"pool": "a", "x": "y"})
    refused = await kubectl("annotate", "pod", "p", "--overwrite", f"{cost}=1.5")
    assert "must be a 32bit integer" in refused.err
    selected = await kubectl("get", "pods", "-l", "pool in (a,b),!z", "-o", "name")
    assert selected.out == "pod/p\n"


async def test_objects_are_described_with_their_events(client: Client, kubectl: Kubectl) -> None:
    """describe finds events by the object they are about."""
    uid = (await client.post(DEPLOYMENTS, deployment())).body["metadata"]["uid"]
    await client.post(PODS, pod("p", node="n"))
    event = {
        "metadata": {"name": "w.1"},
        "involvedObject": {"kind": "Deployment", "name": "w", "namespace": "default", "uid": uid},
        "reason": "ScalingReplicaSet",
        "message": "Scaled up replica set w-1 from 0 to 5",
        "type": "Normal",
        "firstTimestamp": "2026-11-24T12:00:00Z",
        "lastTimestamp": "2026-11-24T12:00:00Z",
        "count": 1,
        "source": {"component": "deployment-controller"},
    }
    await client.post("/api/v1/namespaces/default/events", event)
    described = await kubectl("describe", "deploy/w")
    assert "Scaled up replica set w-1 from 0 to 5" in described.out
    assert (await kubectl("describe", "pod/p")).out.split()[-2:] == ["Events:", "<none>"]
    assert (await kubectl("apply", "-f", "-", stdin=AUTOSCALER)).code == 0
    assert (
        '"celery_load_factor" (target value):  <unknown> / 800m' in (await kubectl("describe", "hpa/w")).out
    )


async def test_a_pod_is_deleted_and_kubectl_waits_for_it(client: Client, kubectl: Kubectl) -> None:
    """delete watches until the kubelet has finished."""
    await client.post(PODS, pod("p", node="n"))
    waiting = asyncio.create_task(kubectl("delete", "pod", "p"))
    async with client.session.get(f"{client.url}{PODS}?watch=true&fieldSelector=metadata.name%3Dp") as watch:
        while b"deletionTimestamp" not in await watch.content.readline():
            pass
    await client.delete(f"{PODS}/p", {"gracePeriodSeconds": 0})
    assert (await waiting).out == 'pod "p" deleted\n'


async def test_a_watch_prints_changes_as_they_come(client: Client, kubectl: Kubectl) -> None:
    """get -w: a line for what is there, and one for each change."""
    await client.post(PODS, pod("p"))
    process = await kubectl.start("get", "pods", "-w", "--no-headers")
    assert process.stdout is not None
    assert (await process.stdout.readline()).split()[:3] == [b"p", b"0/1", b"Pending"]
    await client.patch(f"{PODS}/p/status", {"status": {"phase": "Running"}})
    assert (await process.stdout.readline()).split()[:3] == [b"p", b"0/1", b"Running"]
    process.terminate()
    await process.communicate()


async def test_every_output_form_is_served(client: Client, kubectl: Kubectl) -> None:
    """yaml, json, wide, raw."""
    await client.post(DEPLOYMENTS, deployment())
    assert "kind: Deployment" in (await kubectl("get", "deploy/w", "-o", "yaml")).out
    listed = json.loads((await kubectl("get", "deploy", "-o", "json")).out)
    assert listed["items"][0]["kind"] == "Deployment"
    assert "app=w" in (await kubectl("get", "deploy", "-o", "wide")).out
    raw = await kubectl("get", "--raw", f"{DEPLOYMENTS}/w/scale")
    assert json.loads(raw.out)["spec"] == {"replicas": 5}


async def test_kubectl_asks_what_it_may(kubectl: Kubectl) -> None:
    """can-i for resources and paths, and who one is."""
    assert (await kubectl("auth", "can-i", "patch", "deployments/scale")).out == "yes\n"
    assert (await kubectl("auth", "can-i", "get", "/healthz")).out == "yes\n"
    assert "lab-admin" in (await kubectl("auth", "whoami")).out
    assert "horizontalpodautoscalers" in (await kubectl("api-resources")).out
