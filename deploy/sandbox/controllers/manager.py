"""The controllers that scaling needs, as kube-controller-manager runs them: one object to start and stop."""

import asyncio
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from deploy.sandbox.client import ApiClient
from deploy.sandbox.controllers.autoscaler import AutoscalerController
from deploy.sandbox.controllers.deployment_controller import DeploymentController
from deploy.sandbox.controllers.replicaset_controller import ReplicaSetController
from deploy.sandbox.event_recorder import EventRecorder
from deploy.sandbox.informers import Informer, cancel
from deploy.sandbox.resources import AUTOSCALERS, DEPLOYMENTS, PODS, REPLICA_SETS

DEPLOYMENT_ACCOUNT = "deployment-controller"
REPLICA_SET_ACCOUNT = "replicaset-controller"
AUTOSCALER_ACCOUNT = "horizontal-pod-autoscaler"
"""The service accounts of kube-system under which kube-controller-manager acts."""


class Controllers:
    """`async with Controllers(client)` runs all three until the block ends; entered once caches are filled.

    Give each its own client for requests under the identity that the real one has; else all use `client`,
    which also reads for all of them. The clients are opened and closed by the caller.
    """

    def __init__(
        self,
        client: ApiClient,
        *,
        deployment_client: ApiClient | None = None,
        replica_set_client: ApiClient | None = None,
        autoscaler_client: ApiClient | None = None,
        hpa_sync_period_s: float = 15.0,
    ) -> None:
        self._clients = (
            deployment_client or client,
            replica_set_client or client,
            autoscaler_client or client,
        )
        self._hpa_sync_period_s = hpa_sync_period_s
        self._informers = [
            Informer(client, resource) for resource in (DEPLOYMENTS, REPLICA_SETS, PODS, AUTOSCALERS)
        ]
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _start(self, stack: AsyncExitStack) -> None:
        deployments, replica_sets, pods, autoscalers = self._informers
        for_deployments, for_replica_sets, for_autoscalers = self._clients
        recorders = [
            await stack.enter_async_context(EventRecorder(client, component=component))
            for client, component in zip(
                self._clients, (DEPLOYMENT_ACCOUNT, REPLICA_SET_ACCOUNT, AUTOSCALER_ACCOUNT), strict=True
            )
        ]
        deploying = DeploymentController(
            for_deployments,
            deployments=deployments,
            replica_sets=replica_sets,
            pods=pods,
            events=recorders[0],
        )
        replicating = ReplicaSetController(
            for_replica_sets, replica_sets=replica_sets, pods=pods, events=recorders[1]
        )
        autoscaling = AutoscalerController(
            for_autoscalers,
            autoscalers=autoscalers,
            events=recorders[2],
            sync_period_s=self._hpa_sync_period_s,
        )
        for stop in (deploying.queue.stop, replicating.queue.stop, autoscaling.stop):
            stack.push_async_callback(stop)
        # Pods first, ReplicaSets next: nobody may find its dependents missing and make them anew.
        for informer in (pods, replica_sets, deployments, autoscalers):
            task = asyncio.create_task(informer.run(), name="informer")
            stack.push_async_callback(cancel, [task])
            await informer.synced.wait()
