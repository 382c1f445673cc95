"""The real kubectl in front of a registered adapter."""

from __future__ import annotations

import asyncio
import os
import shutil

import pytest

from tests.metrics_adapter.lab import Lab, is_served, until

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed here")


async def kubectl(lab: Lab, *arguments: str) -> tuple[str, str]:
    """What it printed, and what it complained of."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(lab.directory),
        "KUBECONFIG": str(lab.directory / "kubeconfig"),
    }
    process = await asyncio.create_subprocess_exec(
        "kubectl",
        "--request-timeout=20s",
        *arguments,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return out.decode(), err.decode()


async def test_kubectl_explains_a_metric_and_lists_them_without_a_complaint(lab: Lab) -> None:
    """By the OpenAPI that the adapter serves; an empty discovery would be an error in every kubectl call."""
    async with lab.running():
        await until(lambda: lab.metric("celery_demand"), is_served)
        explained, complaint = await kubectl(
            lab, "explain", "celery_demand", "--recursive", "--api-version=external.metrics.k8s.io/v1beta1"
        )
        assert complaint == ""
        assert "KIND:       ExternalMetricValueList" in explained
        assert "GROUP:      external.metrics.k8s.io" in explained
        assert all(f"{name}\t<" in explained for name in ("metricLabels", "metricName", "timestamp", "value"))
        listed, complaint = await kubectl(lab, "api-resources", "--api-group=external.metrics.k8s.io")
        assert complaint == ""
        assert "celery_demand" in listed
