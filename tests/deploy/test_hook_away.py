"""Who waits while no replica of the hook answers: scale-downs where pools are, and nobody else."""

from pathlib import Path

import pytest

from tests.deploy.manifests import the
from tests.fakes.kubernetes_documents import workload_document
from tests.shared.kubernetes_stages import SandboxStage, sandbox_stage

WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"


async def scale_down(stage: SandboxStage, namespace: str) -> None:
    """Of a Deployment in this namespace. Raises AssertionError with the API server's words if it refuses."""
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    document = workload_document("worker", replicas=3)
    document["metadata"] = {"name": "worker"}
    template = {"metadata": {"labels": {"app": "worker"}}, "spec": {"containers": [{"name": "worker"}]}}
    document["spec"] |= {"template": template, "selector": {"matchLabels": {"app": "worker"}}}
    await stage.create(path, document)
    await stage.send("PATCH", f"{path}/worker/scale", {"spec": {"replicas": 1}})


async def arrange(stage: SandboxStage, *namespaces: str) -> None:
    """The webhook of deploy/base, whose Service is not there."""
    for namespace in namespaces:
        await stage.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
    await stage.create(WEBHOOKS, the("ValidatingWebhookConfiguration", "celery-hpa-drain"))


async def test_scale_downs_where_pools_are_wait_for_the_hook(tmp_path: Path) -> None:
    async with sandbox_stage(tmp_path) as stage:
        await arrange(stage)
        with pytest.raises(AssertionError, match="failed calling webhook"):
            await scale_down(stage, "default")


@pytest.mark.parametrize("namespace", ["ingress", "celery-hpa", "kube-system"])
async def test_no_other_scale_down_waits_for_the_hook(tmp_path: Path, namespace: str) -> None:
    """Not even its own, which may be what mends it."""
    async with sandbox_stage(tmp_path) as stage:
        await arrange(stage, *({namespace} - {"kube-system"}))
        await scale_down(stage, namespace)
        scaled = await stage.send("GET", f"/apis/apps/v1/namespaces/{namespace}/deployments/worker")
    assert scaled["spec"]["replicas"] == 1
