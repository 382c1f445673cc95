"""What docs/draining.md and docs/uninstall.md promise whoever has to do without the hook."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy

import pytest

from deploy.sandbox import manifests
from deploy.sandbox.resources import WEBHOOK_CONFIGURATIONS
from deploy.sandbox.services import apply
from tests.scenarios.crews import Cluster

pytestmark = [pytest.mark.scenario, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

REGISTRATION = "celery-hpa-drain"
NOBODY = {"url": "https://127.0.0.1:1/validate"}
"""Where no hook listens."""


@asynccontextmanager
async def restored(cluster: Cluster) -> AsyncIterator[manifests.Document]:
    """A copy of the hook's registration to change; afterwards it is as it was."""
    before = await cluster.kube.get(WEBHOOK_CONFIGURATIONS, "", REGISTRATION)
    del before["metadata"]["resourceVersion"]
    try:
        yield deepcopy(before)
    finally:
        await apply(cluster.kube, before)


async def test_without_an_answer_the_patch_of_the_failure_policy_lets_scale_downs_through(
    cluster: Cluster,
) -> None:
    """They are refused before; nothing else of the registration changes."""
    async with cluster.crew("scaled", 2) as crew, restored(cluster) as registration:
        for webhook in registration["webhooks"]:
            webhook["clientConfig"] = NOBODY
        await apply(cluster.kube, registration)
        refused = await crew.scale(1)
        assert refused.code == 500
        assert "failed calling webhook" in refused.message
        for webhook in registration["webhooks"]:
            webhook["failurePolicy"] = "Ignore"
        await apply(cluster.kube, registration)
        assert (await crew.scale(1)).is_allowed
        await crew.until(lambda pods: len(pods) == 1, "one pod is left")


async def test_who_is_drained_when_the_webhook_is_taken_away_works_again(cluster: Cluster) -> None:
    """So uninstalling leaves nobody who takes no tasks, if the hook goes after the webhook."""
    async with cluster.crew("updated", 2) as crew, restored(cluster):
        await crew.submit(6, 6)
        assert not (await crew.scale(1)).is_allowed
        await crew.until(lambda pods: sum(p.has_mark_annotation for p in pods) == 1, "one pod is marked")
        await cluster.kube.delete(WEBHOOK_CONFIGURATIONS, "", REGISTRATION)
        await crew.at_work(2)
        assert (await crew.scale(1)).is_allowed
        await crew.until(lambda pods: len(pods) == 1, "one pod is left")
        await crew.all_finished_once()
