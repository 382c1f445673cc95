"""The cluster the scenarios run on: the sandbox, or the one of KUBECONFIG.

Another control plane must have a kubelet that starts a pod's command as a local process, and reach this
machine as `localhost`. Both services run as local processes either way, with the service accounts and
roles of deploy/base.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from deploy.sandbox import manifests
from deploy.sandbox.client import ApiClient
from deploy.sandbox.cluster import broker, sandbox
from deploy.sandbox.kubeconfigs import read_kubeconfig
from deploy.sandbox.services import grant_what_we_ship, services
from tests.scenarios.crews import Cluster
from tests.scenarios.identities import kubeconfig_of

POOLS: dict[str, manifests.Document] = {
    "idle-first": {"whenBusy": "proceed"},
    "held": {"holdSeconds": 0.5},
    "proceeds": {"whenBusy": "proceed", "holdSeconds": 0},
    "protected": {"whenBusy": "proceed", "holdSeconds": 0},
    "forced": {},
    "dry-run": {},
    "restless": {},
    "up-again": {},
    "scaled": {},
    "updated": {"holdSeconds": 0},
    "rolled": {"holdSeconds": 0},
    "emptied": {"holdSeconds": 0},
    "recreated": {"holdSeconds": 0},
    "down-again": {"holdSeconds": 0},
    "stuck": {"holdSeconds": 0, "maxRolloutWait": 8},
    "beside-a-rollout": {"holdSeconds": 0, "duringRollout": "allow"},
    "annotated": {"holdSeconds": 0},
    "ordinals": {"holdSeconds": 0},
    "clones": {"holdSeconds": 0},
    "foreign": {"holdSeconds": 0},
}
"""Pools by name, which is also their workload's and their queue's; with what they set under `drain`."""
KINDS = {"ordinals": "StatefulSet", "clones": "CloneSet"}
"""Of those whose workload is no Deployment."""
IS_SANDBOX = "KUBECONFIG" not in os.environ


def _configuration(broker_url: str) -> manifests.Document:
    return manifests.configuration(
        *(
            manifests.pool(
                name=name,
                workload=name,
                broker_url=broker_url,
                slots=1,
                queues=(name,),
                kind=KINDS.get(name, "Deployment"),
                drain=drain,
            )
            for name, drain in POOLS.items()
            if IS_SANDBOX or name != "clones"  # most clusters have no OpenKruise
        )
    )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """One for all scenarios."""
    directory = tmp_path_factory.mktemp("scenarios")
    if kubeconfig := os.environ.get("KUBECONFIG"):
        async with _on_the_cluster_of(Path(kubeconfig), directory) as cluster:
            yield cluster
        return
    async with sandbox(
        directory, configuration=_configuration, hpa_sync_period_s=2.0, with_updates=True
    ) as box:
        yield Cluster(
            kube=box.kube,
            access=read_kubeconfig(box.kubeconfig),
            broker_url=box.broker_url,
            directory=directory,
        )


@asynccontextmanager
async def _on_the_cluster_of(kubeconfig: Path, directory: Path) -> AsyncIterator[Cluster]:
    access = read_kubeconfig(kubeconfig)
    async with (
        broker(directory) as broker_url,
        ApiClient(access.url, tls=access.tls(), token=access.token, user_agent="scenarios") as kube,
    ):
        configuration = _configuration(broker_url)
        await grant_what_we_ship(kube, configuration)  # only an account that is there has a token
        async with services(
            kube,
            directory=directory,
            configuration=configuration,
            adapter_kubeconfig=await kubeconfig_of(kube, access, manifests.ADAPTER_SERVICE, directory),
            hook_kubeconfig=await kubeconfig_of(kube, access, manifests.HOOK_SERVICE, directory),
            with_updates=True,
        ):
            yield Cluster(kube=kube, access=access, broker_url=broker_url, directory=directory)
