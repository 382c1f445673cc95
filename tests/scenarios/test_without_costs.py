"""A cluster with the feature gate PodDeletionCost off, with real workers; a sandbox of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploy.sandbox import manifests
from deploy.sandbox.cluster import sandbox
from deploy.sandbox.kubeconfigs import read_kubeconfig
from tests.scenarios.crews import Cluster

pytestmark = [
    pytest.mark.scenario,
    pytest.mark.skipif("KUBECONFIG" in os.environ, reason="a cluster's feature gates are not ours to set"),
    pytest.mark.timeout(180),
]
POOL = "costless"


def _configuration(broker_url: str) -> manifests.Document:
    return manifests.configuration(
        manifests.pool(
            name=POOL,
            workload=POOL,
            broker_url=broker_url,
            slots=1,
            queues=(POOL,),
            drain={"holdSeconds": 0},
        )
    )


async def test_whom_kubernetes_picks_is_drained_and_waited_for(tmp_path: Path) -> None:
    """Nobody is deleted at work, and no cost is needed for it; who scales is told."""
    async with sandbox(tmp_path, configuration=_configuration, honours_costs=False) as box:
        cluster = Cluster(
            kube=box.kube,
            access=read_kubeconfig(box.kubeconfig),
            broker_url=box.broker_url,
            directory=tmp_path,
        )
        async with cluster.crew(POOL, 1) as crew:
            # One after the other: of pods that are of one age Kubernetes takes any.
            await crew.scale(2)
            await crew.at_work(2)
            await crew.submit(3)
            answers = await crew.scale_until_allowed(1)
            assert "pod-deletion-cost" in " ".join(answers[-1].warnings)
            victim = {pod.name for pod in await crew.pods() if pod.has_mark_annotation}
            (left,) = await crew.until(lambda pods: len(pods) == 1, "one pod is left")
            assert not left.has_mark_annotation
            assert victim
            await crew.all_finished_once()
