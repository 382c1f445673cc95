"""The controllers that scaling needs, kube-controller-manager's and OpenKruise's, as one object."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import MappingProxyType, TracebackType
from typing import Self

from deploy.sandbox.client import ApiClient
from deploy.sandbox.controllers.autoscaler import AutoscalerController
from deploy.sandbox.controllers.deployment_controller import DeploymentController
from deploy.sandbox.controllers.pod_owner_controller import (
    CLONE_SET_RULES,
    STATEFUL_SET_RULES,
    PodOwnerController,
)
from deploy.sandbox.controllers.replicaset_controller import ReplicaSetController
from deploy.sandbox.event_recorder import EventRecorder
from deploy.sandbox.informers import Informer, cancel
from deploy.sandbox.resources import (
    AUTOSCALERS,
    CLONE_SETS,
    DEPLOYMENTS,
    PODS,
    REPLICA_SETS,
    STATEFUL_SETS,
)

DEPLOYMENT_ACCOUNT = ("kube-system", "deployment-controller")
REPLICA_SET_ACCOUNT = ("kube-system", "replicaset-controller")
STATEFUL_SET_ACCOUNT = ("kube-system", "statefulset-controller")
AUTOSCALER_ACCOUNT = ("kube-system", "horizontal-pod-autoscaler")
CLONE_SET_ACCOUNT = ("kruise-system", "kruise-manager")
ACCOUNTS = (
    DEPLOYMENT_ACCOUNT,
    REPLICA_SET_ACCOUNT,
    STATEFUL_SET_ACCOUNT,
    AUTOSCALER_ACCOUNT,
    CLONE_SET_ACCOUNT,
)
"""Namespace and name of the service accounts under which the real controllers act."""


class Controllers:
    """`async with Controllers(client)` runs them all until the block ends; entered once caches are filled.

    Give them clients of their own by account for requests under the identity that the real ones have; else
    `client` is used, which also reads for all of them. The clients are opened and closed by the caller.
    `honours_costs` is kube-controller-manager's feature gate PodDeletionCost; OpenKruise has none.
    """

    def __init__(
        self,
        client: ApiClient,
        *,
        clients: Mapping[tuple[str, str], ApiClient] = MappingProxyType({}),
        hpa_sync_period_s: float = 15.0,
        honours_costs: bool = True,
    ) -> None:
        self._clients = dict.fromkeys(ACCOUNTS, client) | dict(clients)
        self._hpa_sync_period_s = hpa_sync_period_s
        self._honours_costs = honours_costs
        # Pods first, ReplicaSets next: nobody may find its dependents missing and make them anew.
        self._informers = {
            resource: Informer(client, resource)
            for resource in (PODS, REPLICA_SETS, STATEFUL_SETS, CLONE_SETS, DEPLOYMENTS, AUTOSCALERS)
        }
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
        pods, replica_sets = self._informers[PODS], self._informers[REPLICA_SETS]
        deploying = DeploymentController(
            self._clients[DEPLOYMENT_ACCOUNT],
            deployments=self._informers[DEPLOYMENTS],
            replica_sets=replica_sets,
            pods=pods,
            events=await self._events(stack, DEPLOYMENT_ACCOUNT),
        )
        replicating = ReplicaSetController(
            self._clients[REPLICA_SET_ACCOUNT],
            replica_sets=replica_sets,
            pods=pods,
            events=await self._events(stack, REPLICA_SET_ACCOUNT),
            honours_costs=self._honours_costs,
        )
        owning = [
            PodOwnerController(
                self._clients[account],
                rules,
                workloads=self._informers[rules.resource],
                pods=pods,
                events=await self._events(stack, account),
            )
            for account, rules in (
                (STATEFUL_SET_ACCOUNT, STATEFUL_SET_RULES),
                (CLONE_SET_ACCOUNT, CLONE_SET_RULES),
            )
        ]
        autoscaling = AutoscalerController(
            self._clients[AUTOSCALER_ACCOUNT],
            autoscalers=self._informers[AUTOSCALERS],
            events=await self._events(stack, AUTOSCALER_ACCOUNT),
            sync_period_s=self._hpa_sync_period_s,
        )
        queues = [deploying.queue, replicating.queue, *(one.queue for one in owning)]
        for stop in (*(queue.stop for queue in queues), autoscaling.stop):
            stack.push_async_callback(stop)
        for informer in self._informers.values():
            task = asyncio.create_task(informer.run(), name="informer")
            stack.push_async_callback(cancel, [task])
            await informer.synced.wait()

    async def _events(self, stack: AsyncExitStack, account: tuple[str, str]) -> EventRecorder:
        _, component = account
        return await stack.enter_async_context(EventRecorder(self._clients[account], component=component))
